"""Penstock: CI/CD for AI models. Every commit becomes a versioned, built, tested, gated and traceable release."""

__version__ = "0.1.0"
