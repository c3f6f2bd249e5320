"""No wrong `schedule=` is ever confirmed: every family against every other family's word, and losses of every kind.

A convention is wrong if its denoiser differs from the family's own estimate; small outputs, half precision and losses
that are read by their signs hide the difference best.
"""

from dataclasses import replace

import pytest
import torch
from families import FAMILIES, Family, Job, Net, linear, path
from torch import nn

from unimodal_monitor.detect.find import find_denoiser
from unimodal_monitor.detect.watch import Watch

WORDS = (
    *("flow", "flow:data", "flow:x1000", "flow:to_data", "flow:to_data:x1000", "flow:epsilon", "flow:x0", "flow:v"),
    *("cosine", "cosine:v", "cosine:data", "cosine:epsilon", "vpsde", "vpsde:x1", "subvp", "ve", "edm:inner"),
)
NAMED = {
    family.arguments["schedule"]: family for family in FAMILIES if isinstance(family.arguments.get("schedule"), str)
}
LOSSES = {
    "squared": (torch.square, None),
    "L1": (torch.abs, None),
    "Huber": (lambda error: nn.functional.smooth_l1_loss(error, torch.zeros_like(error), reduction="none"), None),
    "bf16": (torch.square, torch.bfloat16),
}

pytestmark = pytest.mark.slow


class ZeroNet(Net):
    """The last layer begins at zero, as in DiT, SiT, ADM and EDM: first the outputs are near zero."""

    def __init__(self):
        super().__init__()
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)


def images(num, *, seed):
    generator = torch.Generator().manual_seed(seed)
    flat = 0.4 * torch.randn(num, 3, 1, 1, generator=generator)
    return flat + 0.2 * torch.randn(num, 3, 8, 8, generator=generator) + torch.arange(num).view(-1, 1, 1, 1) % 2 / 4


def watched(family, word, *, reduce, dtype=None, rate=1e-3, num_steps=6):
    """The verification of a word that the user gave."""
    torch.manual_seed(0)
    job = Job(family)
    optimizer = torch.optim.Adam(job.net.parameters(), rate)
    watch = Watch(job, find_denoiser(job, net="net", schedule=word), given="schedule")
    for step in range(num_steps):
        batch = images(8, seed=step)
        with watch.recording([batch]), torch.autocast("cpu", dtype, enabled=dtype is not None):
            reduce(family.error(job, batch)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if watch.settle(is_last=step == num_steps - 1) is not None:
            break
    return watch.verification


@torch.no_grad()
def difference(family, word):
    """From the family's own estimate, as a fraction of the correction, by a network with outputs like its targets."""
    torch.manual_seed(0)
    job = Job(replace(family, net=Net))
    nn.init.normal_(job.net.last.weight, std=0.3)
    denoiser = find_denoiser(job, net="net", schedule=word)
    sigma = denoiser.snap(torch.tensor(family.sigmas))
    noised = images(len(sigma), seed=9) + sigma.view(-1, 1, 1, 1) * torch.randn(len(sigma), 3, 8, 8)
    own = family.estimate(job, noised, sigma)
    differences = (denoiser(noised, sigma) - own).flatten(1).norm(dim=1)
    return float((differences / (own - noised).flatten(1).norm(dim=1)).max())


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("right", [word for word in NAMED if word != "ve"])  # whose network divides by sigma
def test_wrong_word_is_refused_and_the_right_one_is_named(right, loss):
    reduce, dtype = LOSSES[loss]
    family = NAMED[right]
    assert difference(family, right) < 1e-4
    assert watched(family, right, reduce=reduce, dtype=dtype).state == "confirmed"
    for word in WORDS:
        if word != right and difference(family, word) > 1e-2:
            verification = watched(family, word, reduce=reduce, dtype=dtype)
            assert verification.state == "refused", (word, verification.text)
            assert right in verification.reason, (word, verification.text)


def half_velocity():
    """A target of half the size of the word's, which no word names."""
    return Family(
        "half a velocity",
        ZeroNet,
        **path(
            linear,
            lambda x, noise, a, s: (noise - x) / 2,
            lambda x_t, out, a, s: x_t - 2 * s * out,
            time_of=lambda sigma: sigma / (1 + sigma),
        ),
    )


def v_on_cosine():
    """Two thirds of the cosine path's velocity."""
    return replace(NAMED["cosine:v"], net=ZeroNet)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("family", "word"), [(half_velocity(), "flow"), (v_on_cosine(), "cosine")])
def test_target_of_another_size_is_not_confirmed_while_the_outputs_are_near_zero(family, word, loss):
    """Then the gradient alone is seen, whose direction is that of any positive multiple of the target."""
    reduce, dtype = LOSSES[loss]
    assert difference(family, word) > 0.1
    for num_steps in (4, 40):
        assert watched(family, word, reduce=reduce, dtype=dtype, rate=1e-4, num_steps=num_steps).state != "confirmed"


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("right", ["flow", "cosine:v"])
def test_right_word_is_confirmed_as_soon_as_the_outputs_tell_its_size(right, loss):
    reduce, dtype = LOSSES[loss]
    family = replace(NAMED[right], net=ZeroNet)
    verification = watched(family, right, reduce=reduce, dtype=dtype, rate=1e-3, num_steps=40)
    assert verification.state == "confirmed", verification.text


def test_schedules_that_are_the_same_count_as_one():
    """A sampler holds the table of the schedule: both names stand for one denoiser."""

    class Table:
        alphas_cumprod = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)

    def error(job, x):
        noise, t = torch.randn_like(x), torch.randint(0, 1000, (len(x),))
        alphas = Table.alphas_cumprod[t].float().view(-1, 1, 1, 1)
        return job.net(alphas.sqrt() * x + (1 - alphas).sqrt() * noise, t) - noise

    family = Family("two tables", Net, error, lambda *_: None, parts=lambda: {"diffusion": Table(), "sampler": Table()})
    verification = watched(family, "flow", reduce=torch.square)
    assert "schedule='diffusion:epsilon' agrees with them" in verification.reason
