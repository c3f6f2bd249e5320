"""What each adapter does beyond the contract that all of them keep."""

import pytest
import torch
from torch import Tensor, nn

from unimodal_monitor.denoisers import EDMDenoiser, FlowDenoiser, Network, VPDenoiser

LINEAR = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)


class Same(nn.Module):
    """Puts out its input and notes the times."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.seen = t.tolist()
        return x


def test_edm_levels_stay_within_the_networks_limits():
    """Levels at a limit stay in spite of rounding; infinite or zero limits are none."""
    module = Same()
    module.sigma_min, module.sigma_max = 0.002, torch.tensor(1.0)
    wanted = torch.tensor([0.001, 0.002 - 1e-12, 0.5, 1.0, 1.1], dtype=torch.float64)
    assert torch.equal(EDMDenoiser(Network(module)).snap(wanted), wanted[1:4])
    module.sigma_min, module.sigma_max = 0, float("inf")
    assert torch.equal(EDMDenoiser(Network(module)).snap(wanted), wanted)


@pytest.mark.parametrize(
    ("sigma", "timestep"), [(0.01, 0), (0.02, 2), (0.05, 11), (0.1, 26), (0.5, 144), (1.0, 258), (10.0, 674)]
)
def test_linear_schedule_has_the_known_timesteps(sigma, timestep):
    """Worked values of the linear DDPM schedule."""
    module = Same()
    VPDenoiser(Network(module), alphas_cumprod=LINEAR)(torch.zeros(1, 3, 2, 2), torch.tensor([sigma]))
    assert module.seen == [timestep]


def test_levels_below_the_schedule_merge_into_its_lowest():
    """The lowest level that the schedule has is kept once; what is far above the highest is dropped."""
    denoiser = VPDenoiser(Network(Same()), alphas_cumprod=LINEAR)
    snapped = denoiser.snap(torch.tensor([0.001, 0.002, 0.0099, 1.0, 158.0, 170.0]))
    assert snapped.tolist() == pytest.approx([0.0100, 1.0, 157.4], rel=0.01)


def test_zero_snr_and_noise_free_timesteps_are_never_used():
    """Schedules rescaled to zero terminal SNR end in an infinite level; some begin with none."""
    alphas_cumprod = torch.tensor([1.0, 0.9, 0.5, 0.1, 6e-8, 0.0])
    denoiser = VPDenoiser(Network(Same()), alphas_cumprod=alphas_cumprod)
    levels = ((1 - alphas_cumprod) / alphas_cumprod).sqrt()[1:4]
    torch.testing.assert_close(denoiser.snap(torch.tensor([1e-5, 0.3, 1.0, 3.0, 1e4, torch.inf])), levels)


def test_later_changes_of_the_schedule_do_not_reach_the_denoiser():
    """Sampling during validation may rewrite a scheduler's arrays in place."""
    alphas_cumprod = LINEAR.clone()
    denoiser = VPDenoiser(Network(Same()), alphas_cumprod=alphas_cumprod)
    before = denoiser.snap(torch.tensor([0.1]))
    alphas_cumprod.fill_(0.5)
    assert torch.equal(denoiser.snap(torch.tensor([0.1])), before)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda net: VPDenoiser(net, alphas_cumprod=LINEAR, prediction="eps"), "prediction is 'eps'"),
        (lambda net: VPDenoiser(net, alphas_cumprod=torch.zeros(9)), "alphas_cumprod is of shape \\(9,\\)"),
        (lambda net: FlowDenoiser(net, noise_at=2), "noise_at is 2"),
        (lambda net: FlowDenoiser(net, time_scale=0), "must be positive"),
    ],
)
def test_wrong_argument_is_named(make, message):
    """Before any work, with what came and what would do."""
    with pytest.raises(ValueError, match=message):
        make(Network(Same()))
