"""Timesteps and levels of a variance-preserving network."""

import pytest
import torch
from torch import Tensor, nn

from unimodal_monitor.denoisers import VPDenoiser

LINEAR = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)


class Same(nn.Module):
    """Puts out its input and notes the times."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.seen = t.tolist()
        return x


def test_linear_schedule_has_the_known_timesteps():
    """Worked values of the linear DDPM schedule."""
    net, sigmas = Same(), torch.tensor([0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 10.0])
    VPDenoiser(net, alphas_cumprod=LINEAR)(torch.zeros(7, 3, 2, 2), sigmas)
    assert net.seen == [0, 2, 11, 26, 144, 258, 674]


def test_levels_below_the_schedule_merge_into_its_lowest():
    """The lowest level of the schedule is kept once; what is far above the highest is dropped."""
    snapped = VPDenoiser(Same(), alphas_cumprod=LINEAR).snap(torch.tensor([0.001, 0.002, 0.0099, 1.0, 158.0, 170.0]))
    assert snapped.tolist() == pytest.approx([0.0100, 1.0, 157.4], rel=0.01)


def test_zero_snr_and_noise_free_timesteps_are_never_used():
    """Schedules rescaled to zero terminal SNR end in an infinite level; some begin without noise."""
    alphas_cumprod = torch.tensor([1.0, 0.9, 0.5, 0.1, 6e-8, 0.0])
    levels = ((1 - alphas_cumprod) / alphas_cumprod).sqrt()[1:4]
    snapped = VPDenoiser(Same(), alphas_cumprod=alphas_cumprod).snap(torch.tensor([1e-5, 0.3, 1, 3, 1e4, torch.inf]))
    torch.testing.assert_close(snapped, levels)


def test_later_changes_of_the_schedule_do_not_reach_the_denoiser():
    """Sampling during validation may rewrite a scheduler's arrays in place."""
    alphas_cumprod = LINEAR.clone()
    denoiser = VPDenoiser(Same(), alphas_cumprod=alphas_cumprod)
    before = denoiser.snap(torch.tensor([0.1]))
    alphas_cumprod.fill_(0.5)
    assert torch.equal(denoiser.snap(torch.tensor([0.1])), before)
