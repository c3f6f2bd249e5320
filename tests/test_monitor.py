"""Monitor.audit: samples of the network that a check looks at, kept with the check."""

from contextlib import contextmanager

import pytest
import torch
from tiny_job import WIDTH, TinyDenoiser, blobs, tiny_probe_set
from torch import nn

from unimodal_monitor.data.probe_set import ProbeSet
from unimodal_monitor.denoisers import EDMDenoiser, Network
from unimodal_monitor.denoisers.memorizer import Memorizer
from unimodal_monitor.monitor import Monitor


class Constant(nn.Module):
    """Answers with one image, whatever it is given, and so samples nothing else."""

    def __init__(self):
        super().__init__()
        self.image = nn.Parameter(torch.zeros(WIDTH))
        self.layer = nn.Identity()

    def forward(self, noised, sigma):
        return self.image.expand(len(noised), WIDTH) + 0 * self.layer(noised)


def tiny_monitor(**options):
    torch.manual_seed(0)
    return Monitor(EDMDenoiser(Network(TinyDenoiser())), tiny_probe_set(), layers=["blocks.1"], **options)


def test_a_history_with_other_views_is_refused():
    """100 and 160 images to fit on: 25 and 30 of the 200 scored ones have two views."""
    first, second = (
        Monitor(
            EDMDenoiser(Network(TinyDenoiser())),
            ProbeSet.from_datasets(blobs(96, seed=1), blobs(200 + num_fit, seed=2), num_fit=num_fit),
            layers=["blocks.1"],
        )
        for num_fit in (100, 160)
    )
    first.check(1)
    with pytest.raises(ValueError, match="two views of 25 images, this monitor of 30"):
        second.load_state_dict(first.state_dict())
    assert second.history == []
    assert second.alarm.num_checks == 0


def test_witnesses_may_be_turned_off_and_on_in_a_run():
    """The rules that hear them wait meanwhile."""
    state = tiny_monitor().state_dict()
    for witnesses in (True, False, True):
        monitor = tiny_monitor(witnesses=witnesses)
        monitor.load_state_dict(state)
        monitor.check(len(monitor.history) + 1)
        state = monitor.state_dict()
    assert len(monitor.history) == 3
    assert "the cleanliness of the features stands at 100%" in monitor.alarm._findings[2].sentence


def test_the_last_check_keeps_the_audit():
    """The one before it does not, and it is part of the state."""
    monitor = tiny_monitor()
    monitor.check(0)
    monitor.check(10)
    audit = monitor.audit(num_samples=20)
    assert audit.num_samples == 20
    assert [check.audit for check in monitor.history] == [None, audit]
    restored = tiny_monitor()
    restored.load_state_dict(monitor.state_dict())
    assert restored.history == monitor.history


def test_an_audit_before_any_check_is_given_to_the_caller_alone():
    """There is nothing to keep it."""
    monitor = tiny_monitor()
    assert monitor.audit(num_samples=5).num_samples == 5
    assert monitor.history == []


def test_members_are_what_samples_are_compared_with():
    """A memorizer of them makes copies alone, one of the held-out images makes none."""
    probe_set = tiny_probe_set()
    for images, fraction in ((probe_set.members.images, 1.0), (probe_set.heldout.images, 0.0)):
        monitor = Monitor(Memorizer(images), probe_set, layers=["recalled"])
        assert monitor.audit(num_samples=30).fraction == fraction


def test_averaged_weights_are_audited():
    """The raw ones know no image, the averaged ones member 7."""
    probe_set, module = tiny_probe_set(), Constant()
    averaged = {"image": probe_set.members.images[7]}
    for weights, num_copies in ((lambda: averaged, 10), (None, 0)):
        monitor = Monitor(EDMDenoiser(Network(module, weights=weights)), probe_set, layers=["layer"])
        audit = monitor.audit(num_samples=10)
        assert audit.num_copies == num_copies
        assert {pair.training for pair in audit.pairs if pair.is_copy} == ({7} if num_copies else set())
    assert not module.image.any()


def test_the_budget_of_an_audit_ends_it_after_one_batch():
    """Of the monitor's batch size, 64 at most."""
    assert tiny_monitor(batch_size=16).audit(max_seconds=0.0).num_samples == 16
    assert tiny_monitor(batch_size=512).audit(max_seconds=0.0).num_samples == 64


def test_samples_are_those_of_the_monitors_seed():
    """Again the same, and others with another one."""
    one, again, other = (tiny_monitor(seed=seed).audit(num_samples=5).samples for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_samples_are_drawn_in_the_precision_that_is_given():
    """Its context is around all the forwards."""
    inside = []

    @contextmanager
    def precision():
        inside.append(True)
        yield
        inside.clear()

    monitor, seen = tiny_monitor(), []
    monitor.denoiser.network.register_forward_pre_hook(lambda *_: seen.append(bool(inside)))
    monitor.audit(num_samples=2, precision=precision)
    assert len(seen) == 35
    assert all(seen)
    assert not inside


def test_an_audit_that_fails_leaves_the_checks_alone():
    """A network that puts out NaN has copied nothing."""
    monitor = tiny_monitor()
    check = monitor.check(10)
    nn.init.constant_(monitor.denoiser.network.blocks[2][0].weight, float("nan"))
    with pytest.raises(FloatingPointError, match="5 of 5 samples"):
        monitor.audit(num_samples=5)
    assert monitor.history == [check]
