"""The audit against planted copies and networks whose truth is known."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from unimodal_monitor.copies.audit import clopper_pearson
from unimodal_monitor.copies.draw import audit_copies, audit_samples

NUM, SHAPE = 40, (3, 6, 6)


def images(num: int = NUM, *, seed: int = 0) -> torch.Tensor:
    return 0.5 * torch.randn(num, *SHAPE, generator=torch.Generator().manual_seed(seed))


def noisy(clean: torch.Tensor, *, std: float = 0.05, seed: int = 9) -> torch.Tensor:
    return clean + std * torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))


class Memorizer:
    """The closed-form denoiser of a few points, which reproduces them, behind a network with dropout."""

    def __init__(self, points: torch.Tensor, *, num_weights: int = 1) -> None:
        self.points, self.num_batches = points, 0
        self.network = nn.Sequential(nn.Linear(1, num_weights), nn.Dropout())

    def __call__(self, noised, sigma):
        self.num_batches += 1
        torch.rand(1), np.random.rand()  # a network may draw
        assert not self.network.training
        distances = (noised[:, None] - self.points).flatten(2).square().sum(2)
        weights = (-distances / (2 * sigma.view(-1, 1) ** 2)).softmax(1)
        return (weights @ self.points.flatten(1)).view_as(noised)

    def snap(self, sigmas):
        return sigmas


def test_planted_copies_are_counted_and_named():
    """Three of ten samples, one of them mirrored; the pairs say which."""
    training = images()
    planted = noisy(torch.stack([training[7], training[30].flip(-1), training[2]]))
    audit = audit_samples(torch.cat([images(7, seed=1), planted]), training)
    assert (audit.num_samples, audit.num_copies, audit.num_copies_third) == (10, 3, 3)
    found = {(pair.sample, pair.training, pair.is_flipped) for pair in audit.pairs if pair.is_copy}
    assert found == {(7, 7, False), (8, 30, True), (9, 2, False)}
    assert [pair.ratio for pair in audit.pairs] == sorted(pair.ratio for pair in audit.pairs)


def test_a_mirrored_copy_counts_only_where_flips_do():
    """The plain rule of the literature has no flips."""
    training = images()
    samples = noisy(training[:4].flip(-1))
    assert audit_samples(samples, training, flips=True).num_copies == 4
    assert audit_samples(samples, training, flips=False).num_copies == 0


DUPLICATES = {
    "twice": lambda image: image[None],
    "ten times": lambda image: image.expand(10, *SHAPE),
    "mirrored": lambda image: image.flip(-1)[None],
    "slightly changed": lambda image: noisy(image.expand(5, *SHAPE)),
}


@pytest.mark.parametrize("duplicate", DUPLICATES.values(), ids=DUPLICATES)
def test_copies_of_duplicated_training_images_are_found(duplicate):
    """The plain rule misses them, the more the more often an image occurs."""
    training = torch.cat([images(), duplicate(images()[3])])
    audit = audit_samples(torch.cat([images(9, seed=1), noisy(images()[3:4], seed=8)]), training)
    assert (audit.num_copies, audit.num_copies_third) == (1, 0)
    assert "0 by the plain 1/3 rule" in audit.sentence()


def test_a_sample_of_a_memorizer_is_a_copy_and_one_of_the_distribution_is_not():
    """The two networks whose truth is known."""
    training = images()
    copied = audit_copies(Memorizer(training), training, num_samples=20)
    assert copied.num_copies == copied.num_copies_third == 20
    assert copied.interval[1] == 1.0
    assert copied.num_forwards == 20 * 35
    fresh = audit_copies(Memorizer(images(seed=1)), training, num_samples=20)
    assert fresh.num_copies == fresh.num_copies_third == 0
    assert fresh.interval == pytest.approx((0.0, 0.1684), abs=1e-4)


def test_samples_depend_on_the_seed_and_not_on_the_batches():
    """The noise of a sample belongs to its number."""
    training = images(12)
    one, other, third = (
        audit_copies(Memorizer(training), training, num_samples=10, batch_size=size, seed=seed).samples
        for size, seed in ((10, 0), (3, 0), (10, 1))
    )
    torch.testing.assert_close(one, other)
    assert not torch.allclose(one, third)


def test_the_audit_leaves_no_trace():
    """Random states and modes are as before, whatever the network draws."""
    denoiser = Memorizer(images())
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    audit_copies(denoiser, images(), num_samples=2, steps=4)
    assert random.getstate() == states[0]
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert torch.equal(torch.get_rng_state(), states[2])
    assert denoiser.network.training
    assert denoiser.network[1].training


def test_the_budget_ends_the_drawing_and_the_limits_know():
    """One batch is drawn, and the interval is that of the samples there are."""
    denoiser = Memorizer(images())
    audit = audit_copies(denoiser, images(), num_samples=300, batch_size=4, max_seconds=0.0)
    assert audit.num_samples == len(audit.samples) == 4
    assert denoiser.num_batches == 35
    assert audit.interval == clopper_pearson(4, 4)
    assert 0 < audit.seconds < 10


BROKEN = images()
BROKEN = BROKEN.index_fill(0, torch.tensor([5]), torch.nan)


@pytest.mark.parametrize(
    ("training", "arguments", "message"),
    [
        (images(2), {}, "2 training images"),
        (BROKEN, {}, "number 5"),
        (images(1).expand(4, *SHAPE), {}, "are equal"),
        ((127 * images()).to(torch.uint8), {}, "floats"),
        (images(), {"num_samples": 0}, "num_samples is 0"),
        (images(), {"batch_size": 0}, "batch_size is 0"),
        (images(), {"steps": 2}, "steps is 2"),
    ],
)
def test_bad_input_is_refused_before_any_work(training, arguments, message):
    """The network is not run."""
    denoiser = Memorizer(images())
    with pytest.raises(ValueError, match=message):
        audit_copies(denoiser, training, **arguments)
    assert denoiser.num_batches == 0


def test_broken_samples_are_an_error_and_no_count():
    """A network that puts out NaN has copied nothing and generalizes nothing."""
    with pytest.raises(FloatingPointError, match="1 of 40 samples"):
        audit_samples(BROKEN, images())
    with pytest.raises(FloatingPointError, match="4 of 4 samples"):
        audit_copies(Memorizer(BROKEN), images(), num_samples=4)


def test_an_audit_of_nothing_is_refused():
    """No fraction without samples, and no distance between different shapes."""
    with pytest.raises(ValueError, match="no samples"):
        audit_samples(images(0), images())
    with pytest.raises(ValueError, match="one shape"):
        audit_samples(images()[..., :3], images())
