"""The audit against planted copies and networks whose samples are known, and its record."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import beta

from unimodal_monitor.copies.audit import Audit, Pair, audit_copies, audit_samples
from unimodal_monitor.denoisers.memorizer import Memorizer

NUM, SHAPE = 40, (3, 6, 6)
PAIRS = (Pair(4, 17, True, 0.5, 6.0), Pair(0, 2, False, 3.0, 5.0))
AUDIT = Audit(300, 3, 3, (0.002, 0.029), PAIRS, 1.5, 300 * 35, samples=torch.zeros(300, 2))


def images(num: int = NUM, *, seed: int = 0) -> torch.Tensor:
    return 0.5 * torch.randn(num, *SHAPE, generator=torch.Generator().manual_seed(seed))


def noisy(clean: torch.Tensor, *, std: float = 0.05, seed: int = 9) -> torch.Tensor:
    return clean + std * torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))


BROKEN = images().index_fill(0, torch.tensor([5]), torch.nan)


class DrawingMemorizer(Memorizer):
    """Draws random numbers and counts its forwards."""

    num_forwards = 0

    def forward(self, noised, sigma):
        self.num_forwards += 1
        torch.rand(1), np.random.rand(), random.random()
        assert not self.training
        return super().forward(noised, sigma)


def test_planted_copies_are_counted_and_named_and_mirrored_ones_only_with_flips():
    training = images()
    planted = noisy(torch.stack([training[7], training[30].flip(-1), training[2]]))
    samples = torch.cat([images(7, seed=1), planted])
    audit = audit_samples(samples, training)
    assert (audit.num_samples, audit.num_copies, audit.num_copies_third) == (10, 3, 3)
    found = {(pair.sample, pair.training, pair.is_flipped) for pair in audit.pairs if pair.is_copy}
    assert found == {(7, 7, False), (8, 30, True), (9, 2, False)}
    assert [pair.ratio for pair in audit.pairs] == sorted(pair.ratio for pair in audit.pairs)
    assert audit_samples(samples, training, flips=False).num_copies == 2


IMAGE = images()[3:4]


@pytest.mark.parametrize(
    "duplicates",
    [IMAGE, IMAGE.expand(10, *SHAPE), IMAGE.flip(-1), noisy(IMAGE.expand(5, *SHAPE))],
    ids=["twice", "ten times", "mirrored", "slightly changed"],
)
def test_copies_of_duplicated_training_images_are_found_which_the_plain_rule_misses(duplicates):
    samples = torch.cat([images(9, seed=1), noisy(IMAGE, seed=8)])
    audit = audit_samples(samples, torch.cat([images(), duplicates]))
    assert (audit.num_copies, audit.num_copies_third) == (1, 0)
    assert "0 by the plain 1/3 rule" in audit.sentence()


@pytest.mark.parametrize("num_copies", [0, 1, 5, 9, 10])
def test_the_limits_are_those_of_clopper_and_pearson(num_copies):
    samples = torch.cat([images()[:num_copies], images(10 - num_copies, seed=1)])
    audit = audit_samples(samples, images())
    low = beta.ppf(0.025, num_copies, 11 - num_copies) if num_copies else 0
    high = beta.ppf(0.975, num_copies + 1, 10 - num_copies) if num_copies < 10 else 1
    assert audit.num_copies == num_copies
    assert audit.interval == pytest.approx((low, high), abs=1e-9)


def test_all_samples_of_a_memorizer_are_copies_and_none_of_another_memorizer():
    copied = audit_copies(Memorizer(images()), images(), num_samples=9)
    assert copied.num_copies == copied.num_copies_third == 9
    assert copied.num_forwards == 9 * 35
    assert audit_copies(Memorizer(images(seed=1)), images(), num_samples=9).num_copies == 0


def test_samples_depend_on_the_seed_and_not_on_the_batches():
    one, other, third = (
        audit_copies(Memorizer(images(12)), images(12), num_samples=10, batch_size=size, seed=seed).samples
        for size, seed in ((10, 0), (3, 0), (10, 1))
    )
    torch.testing.assert_close(one, other)
    assert not torch.allclose(one, third)


def test_the_audit_leaves_no_trace():
    denoiser = DrawingMemorizer(images())
    states = [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]
    audit_copies(denoiser, images(), num_samples=2, steps=4)
    assert [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()] == states
    assert all(module.training for module in denoiser.modules())


def test_max_seconds_ends_the_drawing_and_widens_the_limits():
    denoiser = DrawingMemorizer(images())
    audit = audit_copies(denoiser, images(), num_samples=300, batch_size=4, max_seconds=0.0)
    assert audit.num_samples == len(audit.samples) == 4
    assert denoiser.num_forwards == 35
    assert audit.interval == pytest.approx((beta.ppf(0.025, 4, 1), 1.0))


@pytest.mark.parametrize(
    ("training", "arguments", "message"),
    [
        (images(2), {}, "at least 3 training images"),
        (BROKEN, {}, "number 5"),
        (images(1).expand(4, *SHAPE), {}, "are equal"),
        ((127 * images()).to(torch.uint8), {}, "floats"),
        (images(), {"num_samples": 0}, "num_samples=0"),
        (images(), {"batch_size": 0}, "batch_size=0"),
        (images(), {"steps": 2}, "steps is 2"),
    ],
)
def test_bad_input_is_refused_before_any_forward(training, arguments, message):
    denoiser = DrawingMemorizer(images())
    with pytest.raises(ValueError, match=message):
        audit_copies(denoiser, training, **arguments)
    assert denoiser.num_forwards == 0


@pytest.mark.parametrize(
    ("samples", "error", "message"),
    [
        (images(0), ValueError, "no samples"),
        (images()[..., :3], ValueError, "one shape"),
        (BROKEN, FloatingPointError, "1 of 40 samples"),
    ],
)
def test_samples_that_cannot_be_compared_are_refused(samples, error, message):
    """A network that puts out NaN neither copies nor generalizes."""
    with pytest.raises(error, match=message):
        audit_samples(samples, images())


def test_the_sentence_gives_count_fraction_and_limits_and_the_plain_rules_count_where_it_differs():
    assert AUDIT.sentence() == "3 of 300 samples are copies (1.0 %, 95 % limits 0.2 to 2.9 %)"
    assert replace(AUDIT, num_copies=1, num_copies_third=1).sentence().startswith("1 of 300 samples is a copy (0.3 %")
    assert "; 1 by the plain 1/3 rule" in replace(AUDIT, num_copies_third=1).sentence()


def test_the_record_without_the_samples_survives_json():
    record = json.loads(json.dumps(AUDIT.to_dict(), allow_nan=False))
    assert record["fraction"] == AUDIT.fraction == 0.01
    assert (Audit.from_dict(record), Audit.from_dict(record).samples) == (AUDIT, None)


def test_a_pair_is_a_copy_under_a_third():
    """Two distances of zero do not tell which of two images was copied."""
    distances = [(1, 3.1), (1, 3), (3, 5), (0, 0)]
    assert [Pair(0, 0, False, *pair).is_copy for pair in distances] == [True, False, False, False]
