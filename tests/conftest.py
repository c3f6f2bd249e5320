"""What all tests share: one thread, so that tests in parallel do not fight for the cores."""

import torch

torch.set_num_threads(1)
