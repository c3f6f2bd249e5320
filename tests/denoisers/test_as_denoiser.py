"""Any callable becomes a denoiser."""

import pytest
import torch
from torch import nn

from unimodal_monitor.denoisers import EDMDenoiser, as_denoiser


class Shrink(nn.Module):
    """The posterior mean of data with unit variance."""

    def forward(self, noised, sigma):
        return noised / (1 + sigma.reshape(-1, 1) ** 2)


@pytest.mark.parametrize("wrap", [lambda net: net, lambda net: torch.compile(net, backend="eager")])
@pytest.mark.parametrize("make", [as_denoiser, lambda net: as_denoiser(lambda *inputs: net(*inputs), net=net)])
def test_function_with_its_network_or_a_module_is_a_denoiser(make, wrap):
    """Hooked without torch.compile's wrapper; all positive, finite levels; raw weights, which nothing has to hold."""
    net = Shrink()
    denoiser = make(wrap(net))
    assert denoiser.network is net
    assert denoiser.snap(torch.tensor([3.0, 0.0, 1.0, 3.0, torch.inf])).tolist() == [1, 3]
    assert denoiser.weights_used == "raw"
    with denoiser.holding_weights():
        denoised = denoiser(torch.ones(2, 1), torch.tensor([1.0, 3.0], dtype=torch.float64))
    torch.testing.assert_close(denoised, torch.tensor([[0.5], [0.1]]))


def test_denoiser_stays_as_it_is():
    """With its own network and levels."""
    denoiser = EDMDenoiser(Shrink())
    assert as_denoiser(denoiser) is denoiser


@pytest.mark.parametrize(
    ("denoiser", "net", "message"),
    [(3, None, "denoiser is of type int"), (max, None, "net is missing"), (max, "unet", "net is of type str")],
)
def test_argument_without_a_call_or_a_network_is_named(denoiser, net, message):
    """Before any work."""
    with pytest.raises(ValueError, match=message):
        as_denoiser(denoiser, net=net)
