"""What every signal guarantees, and what a new one costs."""

import json

import pytest
import torch

from unimodal_monitor.signals import DEFAULT_SIGNALS, Estimate, Measured
from unimodal_monitor.stats.estimate import mean_estimate

SIGMAS = torch.tensor([0.1, 0.3, 1.0], dtype=torch.float64)


def better_denoised(measured: Measured) -> Estimate | None:
    """A new signal: the share of members that the network denoises better than their held-out partner."""
    if measured.heldout_error is None or measured.members_error is None:
        return None
    is_better_KN = measured.members_error < measured.heldout_error
    return mean_estimate("better_denoised", "members denoised better", measured.sigmas, is_better_KN, neutral=0.5)


PARTS = ("heldout_error", "members_error", "memorizer_error", "heldout_spread", "members_spread", "invariance")


def measured():
    """Numbers of 120 members and held-out images; members are denoised better, and by the memorizer far better."""
    values = torch.rand(6, 3, 120, generator=torch.Generator().manual_seed(0))
    values += torch.tensor([1.2, 1.0, 0.0, 0.0, 0.1, 0.0]).view(6, 1, 1)
    parts = dict(zip(PARTS, values.double(), strict=True))
    return Measured(SIGMAS, 0.5, ("mid_block",), "Brier gain", **parts, num_features=64, num_directions=15)


@pytest.mark.parametrize("signal", [*DEFAULT_SIGNALS, better_denoised], ids=lambda signal: signal.__name__)
def test_limits_enclose_the_value_at_the_levels_of_the_check(signal):
    """Under the name of the function, which scalar keys use. What was not measured has no estimate."""
    found = signal(measured())
    assert found.name == signal.__name__
    assert found.sigmas == tuple(SIGMAS.tolist())
    assert all(low <= value <= high for low, value, high in zip(found.low, found.value, found.high, strict=True))
    assert Estimate.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False))) == found
    assert signal(Measured(SIGMAS, 0.5, ("mid_block",), "Brier gain")) is None


@pytest.mark.parametrize("default", DEFAULT_SIGNALS, ids=lambda signal: signal.__name__)
def test_a_value_that_is_not_finite_is_an_error(default):
    spoiled = measured()
    for part in PARTS:
        getattr(spoiled, part)[1, 3] = float("nan")
    with pytest.raises(FloatingPointError, match="not finite"):
        default(spoiled)
