"""Linear probes: how well the class of an image can be read off a layer's features."""
