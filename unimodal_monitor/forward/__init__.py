"""Noise, hooks, isolation, ranks: what a forward pass of a check needs."""
