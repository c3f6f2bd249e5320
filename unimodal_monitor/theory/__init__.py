"""The mixture of low-rank Gaussians with which the paper explains unimodal curves."""
