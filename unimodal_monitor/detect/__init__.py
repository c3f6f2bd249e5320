"""What a training job consists of: network, schedule, averaged weights, condition."""
