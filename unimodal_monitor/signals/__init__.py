"""What the forwards of a check tell besides the probe."""
