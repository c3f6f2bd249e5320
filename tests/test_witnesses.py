"""The witnesses of a check, on networks whose truth is known in closed form."""

import json

import numpy as np
import pytest
import torch
from tiny_job import CLASSES, WIDTH, TinyDenoiser, blobs, tiny_probe_set
from torch import nn

from unimodal_monitor.alarm.alarm import Alarm
from unimodal_monitor.data.probe_set import ProbeSet
from unimodal_monitor.denoisers import EDMDenoiser, Network
from unimodal_monitor.denoisers.memorizer import Memorizer
from unimodal_monitor.forward.noise import paper_sigmas, unit_noise
from unimodal_monitor.forwards import Noising
from unimodal_monitor.monitor import Monitor
from unimodal_monitor.probes.ridge import RidgeProbe
from unimodal_monitor.theory.molrg import MoLRG
from unimodal_monitor.theory.posterior import PosteriorMean
from unimodal_monitor.witnesses import Witnesses


class Keeps(Alarm):
    """Keeps the looks that it is shown."""

    def __post_init__(self):
        super().__post_init__()
        self.looks = []

    def update(self, look):
        self.looks.append(look)
        return super().update(look)


class Identity(nn.Module):
    """Takes nothing away: the error of an image is that of its noise."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Identity()

    def forward(self, noised, sigma):
        return self.layer(noised)


def edm(module):
    return EDMDenoiser(Network(module))


def tiny_network():
    torch.manual_seed(0)
    return edm(TinyDenoiser())


def mixture(num_members, num_heldout):
    data = MoLRG()
    return data, ProbeSet.from_datasets(data.sample(num_members, seed=1), data.sample(num_heldout, seed=2))


def pictures(num, *, seed, brightness=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num, 3, 8, 8, generator=generator) + brightness, torch.arange(num) % CLASSES


def count_inputs(monitor, step):
    """What passes through the network's door at a check, and the check."""
    inputs = []
    handle = monitor.denoiser.network.register_forward_pre_hook(lambda module, args: inputs.append(len(args[0])))
    check = monitor.check(step)
    handle.remove()
    return sum(inputs), check


def test_the_memorizer_has_a_gap_of_one_and_makes_copies_alone():
    """The closed form, told by the gap and by the audit."""
    _, probe_set = mixture(100, 450)
    monitor = Monitor(Memorizer(probe_set.members.images), probe_set, layers=["recalled"])
    normalized = monitor.check(1).testimony["gap"]["normalized"]
    assert len(normalized["levels_L"]) >= 3
    for limit in ("value_L", "low_L", "high_L"):
        np.testing.assert_allclose(normalized[limit], 1.0, atol=1e-9)
    assert monitor.audit(num_samples=40).fraction == 1.0


def test_the_posterior_mean_has_no_gap_and_makes_no_copies():
    """A network that generalizes perfectly; its interval covers nothing, and not one."""
    data, probe_set = mixture(100, 1500)
    monitor = Monitor(PosteriorMean(data), probe_set, layers=["code"])
    gap = monitor.check(1).testimony["gap"]
    z_K = np.array(gap["gap_K"]) / np.array(gap["error_K"])
    assert np.abs(z_K).max() < 3
    low_L, high_L = (np.array(gap["normalized"][name]) for name in ("low_L", "high_L"))
    assert len(low_L) >= 3
    assert (low_L < 0).all()
    assert (high_L > 0).all()
    assert (high_L - low_L).min() < 0.5
    assert monitor.audit(num_samples=40).num_copies == 0


@pytest.mark.parametrize("num_draws", [1, 2])
def test_images_and_members_share_their_noise(num_draws):
    """An identity leaves just that: sigma^2 times the mean square of the first draw, for both."""
    probe_set = tiny_probe_set()
    monitor = Monitor(edm(Identity()), probe_set, layers=["layer"], alarm=Keeps(), seed=5, num_draws=num_draws)
    monitor.check(1)
    (look,) = monitor.alarm.looks
    numbers = monitor._survey.witnesses.pairs.sort().values
    squares_N = unit_noise(numbers.tolist(), (WIDTH,), draw=0, seed=5).double().square().mean(1)
    expected_KN = monitor.noising.sigmas.double().square()[:, None] * squares_N
    torch.testing.assert_close(look.pairs.heldout_KN, expected_KN, rtol=1e-2, atol=1e-7)
    torch.testing.assert_close(look.pairs.members_KN, expected_KN, rtol=1e-2, atol=1e-7)
    assert look.pairs.heldout_KN.shape == (9, 25)


def test_the_memorizers_errors_are_those_on_the_same_noised_members():
    """The formula by a loop, image by image."""
    probe_set = tiny_probe_set()
    monitor = Monitor(tiny_network(), probe_set, alarm=Keeps())
    monitor.check(1)
    (look,) = monitor.alarm.looks
    members, numbers = probe_set.members.images.double(), monitor._survey.witnesses.pairs
    for column, row in enumerate(numbers.argsort().tolist()):
        noise = unit_noise([int(numbers[row])], (WIDTH,), draw=0, seed=0)[0].double()
        for level in (0, 4, 8):
            sigma = float(monitor.noising.sigmas[level])
            noised = members[row] + sigma * noise
            weights = torch.softmax(-(noised - members).square().sum(1) / (2 * sigma**2), 0)
            error = float((weights @ members - members[row]).square().mean())
            assert float(look.pairs.memorizer_KN[level, column]) == pytest.approx(error, rel=1e-3, abs=1e-9)


class Marks(nn.Module):
    """Lays a chessboard over the images of a list; its mean over space is 0."""

    def __init__(self, images):
        super().__init__()
        self.layer, self.images = nn.Identity(), images.flatten(1)
        self.board = 1 - 2 * ((torch.arange(8) + torch.arange(8).unsqueeze(1)) % 2)

    def forward(self, noised, sigma):
        is_known = torch.cdist(noised.flatten(1), self.images).amin(1) < 0.5
        return self.layer(noised + is_known.view(-1, 1, 1, 1) * self.board)


def test_the_spikiness_sees_what_pooling_takes_away():
    """Members whose features have another pattern and the same means; and none where there is no pattern."""
    probe_set = ProbeSet.from_datasets(pictures(200, seed=0), pictures(300, seed=1))
    said = [
        Monitor(edm(module), probe_set, layers=["layer"], sigmas=[1e-3, 2e-3, 4e-3, 8e-3]).check(1).testimony
        for module in (Marks(probe_set.members.images), Identity())
    ]
    marked, alike = (np.array(testimony["spikiness"]["auc_K"]) for testimony in said)
    assert (marked > 0.95).all()
    assert (np.abs(alike - 0.5) < 0.25).all()


@pytest.mark.parametrize(("brightness", "word"), [(0.5, "brighter"), (-0.5, "darker")])
def test_heldout_images_of_another_brightness_are_named(brightness, word):
    """The gap is still told, and no rule may trust it."""
    probe_set = ProbeSet.from_datasets(pictures(200, seed=0), pictures(300, seed=1, brightness=brightness))
    monitor = Monitor(edm(Identity()), probe_set, layers=["layer"], alarm=Keeps())
    check = monitor.check(1)
    assert f"{word} than the members" in check.testimony["missing"]["trust in the gap"]
    assert check.testimony["gap"] is not None
    assert monitor.alarm.looks[0].pairs is None


def test_heldout_images_of_the_same_brightness_are_trusted():
    """Two draws of one distribution."""
    probe_set = ProbeSet.from_datasets(pictures(200, seed=0), pictures(300, seed=1))
    monitor = Monitor(edm(Identity()), probe_set, layers=["layer"], alarm=Keeps())
    assert monitor.check(1).testimony["missing"] == {}
    assert monitor.alarm.looks[0].pairs is not None


@pytest.mark.parametrize("num_draws", [1, 2])
@pytest.mark.parametrize("batch_size", [50, 512])
@pytest.mark.parametrize("is_labelled", [True, False])
@pytest.mark.parametrize("num_heldout", [18, 60, 300])
def test_a_check_takes_the_forwards_that_it_says(num_draws, batch_size, is_labelled, num_heldout):
    """Counted at the network's door, with few images and with many."""
    members, heldout = blobs(96, seed=1), blobs(num_heldout, seed=2)
    roles = (members, heldout) if is_labelled else (members[0], heldout[0])
    options = {"num_draws": num_draws, "batch_size": batch_size, "layers": ["blocks.1"]}
    monitor = Monitor(tiny_network(), ProbeSet.from_datasets(*roles), **options)
    found, check = count_inputs(monitor, 1)
    assert found == check.num_forwards == monitor.num_forwards


@pytest.mark.parametrize("is_labelled", [True, False])
def test_the_progress_of_a_check_ends_at_its_images(is_labelled):
    """Members and views are images as well."""
    members, heldout = blobs(96, seed=1), blobs(300, seed=2)
    roles = (members, heldout) if is_labelled else (members[0], heldout[0])
    monitor, done = Monitor(tiny_network(), ProbeSet.from_datasets(*roles), num_draws=2), []
    monitor.check(1, progress=done.append)
    assert sum(done) == monitor.num_images


def test_the_witnesses_cost_a_quarter_more_forwards_at_most():
    """With 2,000 held-out images, which are recommended; and they do cost something."""
    probe_set = ProbeSet.from_datasets(blobs(1000, seed=1), blobs(2000, seed=2))
    options = {"layers": ["blocks.0"], "batch_size": 4096}
    whole, _ = count_inputs(Monitor(tiny_network(), probe_set, **options), 1)
    alone, check = count_inputs(Monitor(tiny_network(), probe_set, **options, witnesses=False), 1)
    assert check.testimony["gap"] is None
    assert 1.1 * alone < whole <= 1.25 * alone


@pytest.mark.parametrize("is_labelled", [True, False])
def test_the_same_network_is_told_the_same_twice(is_labelled):
    """To the last bit at one batch size, and up to rounding at any."""
    members, heldout = blobs(96, seed=1), blobs(300, seed=2)
    probe_set = ProbeSet.from_datasets(*((members, heldout) if is_labelled else (members[0], heldout[0])))
    monitor = Monitor(tiny_network(), probe_set, layers=["blocks.1"])
    first, second = (monitor.check(step).testimony for step in (1, 2))
    assert json.dumps(first) == json.dumps(second)
    other = Monitor(tiny_network(), probe_set, layers=["blocks.1"], batch_size=40).check(1).testimony
    for name, key in (("gap", "gap_K"), ("contamination", "icr_K"), ("spikiness", "auc_K")):
        np.testing.assert_allclose(first[name][key], other[name][key], atol=1e-4)


@pytest.mark.parametrize(
    ("num_members", "num_heldout", "left_out"),
    [
        (96, 18, {"gap", "contamination", "spikiness"}),
        (96, 90, {"gap", "contamination", "spikiness"}),
        (5, 300, {"gap", "spikiness"}),
        (96, 100, set()),
    ],
)
def test_few_images_leave_a_witness_out_and_take_nothing_else_along(num_members, num_heldout, left_out):
    """Each says why; the curve is that of a check without witnesses."""
    probe_set = ProbeSet.from_datasets(blobs(num_members, seed=1), blobs(num_heldout, seed=2))
    check, alone = (
        Monitor(tiny_network(), probe_set, layers=["blocks.1"], witnesses=witnesses).check(1)
        for witnesses in (True, False)
    )
    said = check.testimony
    assert set(said["missing"]) == left_out
    assert all("too few; 8 would do" in reason for reason in said["missing"].values())
    assert {name for name in ("gap", "contamination", "spikiness") if said[name] is None} == left_out
    np.testing.assert_allclose(check.curve.score.mean, alone.curve.score.mean, atol=1e-5)


def test_more_ranks_than_images_leave_a_witness_out():
    """Each rank needs one; 20 members are there for the 25 images that are heard."""
    noising, heldout = Noising(paper_sigmas(1.0)), torch.arange(200)
    probe_set = ProbeSet.from_datasets(blobs(20, seed=1), blobs(300, seed=2))
    for fewest, left_out in ((20, set()), (21, {"gap", "spikiness"}), (26, {"gap", "contamination", "spikiness"})):
        witnesses = Witnesses(probe_set, heldout, noising=noising, layer="blocks.1", fewest=fewest)
        assert set(witnesses.missing) == left_out
        assert len(witnesses.pairs) == (0 if "gap" in left_out else 20)
        assert len(witnesses.views) == (0 if "contamination" in left_out else 25)


def test_second_views_that_could_not_differ_are_not_made():
    """Vectors without noise; the gap is measured all the same, for what it is."""
    monitor = Monitor(tiny_network(), tiny_probe_set(), layers=["blocks.1"], noised_input=False)
    found, check = count_inputs(monitor, 1)
    assert found == check.num_forwards == 9 * (300 + 25)
    assert "noised_input=False takes away" in check.testimony["missing"]["contamination"]
    assert check.testimony["gap"] is not None


def test_a_witness_that_cannot_speak_takes_no_other_along():
    """A memorizer recalls one and the same image from both views, of which there is nothing to compare."""
    _, probe_set = mixture(100, 450)
    monitor = Monitor(Memorizer(probe_set.members.images), probe_set, layers=["recalled"], sigmas=[1e-4, 2e-4, 3e-4, 5])
    said = monitor.check(1).testimony
    assert "both views have the same features" in said["missing"]["contamination"]
    assert said["contamination"] is None
    assert said["gap"] is not None
    assert said["spikiness"] is not None


class Fragile(RidgeProbe):
    """Fails while held-out images are scored, where told to."""

    is_broken = False

    def score(self, *args):
        if self.is_broken:
            raise RuntimeError("broken probe")
        return super().score(*args)


def test_a_check_that_failed_leaves_nothing_to_the_next_one():
    """The held-out images that were heard before it failed were denoised by another network."""
    monitor = Monitor(tiny_network(), tiny_probe_set(), probe=Fragile(), layers=["blocks.1"])
    probe = monitor.probe
    expected = Monitor(tiny_network(), tiny_probe_set(), layers=["blocks.1"]).check(1).testimony
    weight = monitor.denoiser.network.blocks[0][0].weight
    probe.is_broken, kept = True, weight.detach().clone()
    nn.init.zeros_(weight)
    with pytest.raises(RuntimeError, match="broken probe"):
        monitor.check(1)
    probe.is_broken = False
    weight.data.copy_(kept)
    assert monitor.check(2).testimony == expected
