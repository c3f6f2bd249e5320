"""Estimates over images, paired comparisons, simultaneous limits, the shape of a curve."""
