"""What a step runs in."""
