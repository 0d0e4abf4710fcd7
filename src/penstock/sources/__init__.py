"""Where commits and pipeline files come from."""
