"""The mixture of low-rank Gaussians in which the paper explains the hump."""
