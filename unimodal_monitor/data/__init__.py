"""The images of a check."""
