"""Rules: what may raise the alarm."""
