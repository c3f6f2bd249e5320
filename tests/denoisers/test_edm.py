"""Which levels an EDM network is asked for."""

import torch
from torch import nn

from unimodal_monitor.denoisers import EDMDenoiser


def test_levels_stay_within_the_networks_limits():
    """Levels at a limit are kept in spite of rounding; infinite or zero limits are none."""
    net = nn.Identity()
    net.sigma_min, net.sigma_max = 0.002, torch.tensor(1.0)
    wanted = torch.tensor([0.001, 0.002 - 1e-12, 0.5, 1.0, 1.1], dtype=torch.float64)
    assert torch.equal(EDMDenoiser(net).snap(wanted), wanted[1:4])
    net.sigma_min, net.sigma_max = 0, float("inf")
    assert torch.equal(EDMDenoiser(net).snap(wanted), wanted)
