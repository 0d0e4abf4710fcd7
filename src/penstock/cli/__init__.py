"""The command line: verbs, settings, and the one place where everything is put together."""
