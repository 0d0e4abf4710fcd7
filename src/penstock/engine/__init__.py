"""Decisions in time: requests become runs, runs become releases."""
