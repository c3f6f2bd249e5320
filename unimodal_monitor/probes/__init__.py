"""Linear probes, batched over levels and layers."""
