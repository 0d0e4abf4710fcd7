"""Who starts and stops processes."""
