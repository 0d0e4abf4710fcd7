"""Facts: what happened, in a database."""
