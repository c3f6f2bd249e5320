"""Quick looks: what they say, how often they are wrong, and when they are taken."""

import json

import numpy as np
import pytest
import torch
from simulated import FALLING, HUMPED, SIGMAS, STD, simulated_outcomes
from tiny_job import TinyDenoiser, tiny_probe_set

from unimodal_monitor import Alarm, AlarmState, Check, EDMDenoiser, LogisticProbe, Monitor, Network, RidgeProbe
from unimodal_monitor.alarm.rules.base import Look, Terms
from unimodal_monitor.alarm.rules.peak import PeakFell
from unimodal_monitor.alarm.rules.rise import RiseLost
from unimodal_monitor.glance import ERROR, LOOKS, PORTION, Glance, glance_levels, glance_portion
from unimodal_monitor.stats.estimate import Curve
from unimodal_monitor.stats.paired import Reference

MORE = (*HUMPED[:2], *(0.30 + 1.6 * (value - 0.30) for value in HUMPED[2:6]), *HUMPED[6:])
MOST = (*HUMPED[:2], *(0.30 + 0.85 * (value - 0.30) for value in HUMPED[2:6]), *HUMPED[6:])


def full_look(mean, *, number=1, num_images=4000, seed=0):
    """A check whose portion is its first quarter."""
    outcomes = simulated_outcomes(mean, num_images=num_images, seed=seed)
    curve = Curve.from_outcomes("mid_block", SIGMAS, STD, outcomes)
    return Look(number, 10 * number, curve, outcomes.score_KM, outcomes.score_KM[:, : num_images // PORTION])


def glance_at(mean, levels, *, num_images=1000, seed=1):
    """What a glance sees of a later network: some levels, and the first images of the portion."""
    outcomes = simulated_outcomes(mean, num_images=num_images, seed=seed)
    curve = Curve.from_outcomes("mid_block", SIGMAS, STD, outcomes)
    part = Curve.from_dict({**curve.to_dict(), "sigmas": [curve.sigmas[level] for level in levels]})
    return Look(2, 20, part, outcomes.score_KM[levels])


def armed_rule():
    rule, look = RiseLost(), full_look(HUMPED)
    assert rule.look(look, error=1e-4).reaches
    return rule, glance_levels(look.curve)


TERMS = Terms(fraction=1 / PORTION, check_error=1e-4, error=ERROR)


@pytest.mark.parametrize(
    ("mean", "loses", "establishes", "grows"),
    [
        (HUMPED, False, True, False),
        (MOST, False, True, False),
        (FALLING, True, False, False),
        (MORE, False, True, True),
    ],
    ids=["as it was", "mostly there", "gone", "grown"],
)
def test_a_glance_forecasts_what_a_check_would_find_of_an_established_rise(mean, loses, establishes, grows):
    """Lost or not, established anew or not, grown by so much that its reference is stale; and how it stands."""
    rule, levels = armed_rule()
    forecast = rule.forecast(glance_at(mean, levels), TERMS)
    assert (forecast.loses, forecast.establishes, forecast.grows) == (loses, establishes, grows)
    assert "% of that of step 10" in forecast.sentence


def test_a_glance_forecasts_whether_a_first_rise_would_be_established():
    """Nothing can be lost before."""
    levels = glance_levels(full_look(HUMPED).curve)
    for mean, establishes in ((FALLING, False), (HUMPED, True)):
        forecast = RiseLost().forecast(glance_at(mean, levels), TERMS)
        assert (forecast.loses, forecast.establishes) == (False, establishes)


def test_a_reference_without_glances_leaves_everything_to_checks():
    """Such as one of a run that was saved when full checks alone were made."""
    rule, levels = armed_rule()
    rule.reference = Reference(**{**rule.reference.to_dict(), "glance_M": ()})
    forecast = rule.forecast(glance_at(HUMPED, levels), TERMS)
    assert forecast.loses
    assert forecast.establishes


def test_a_rule_that_is_left_to_full_checks_forecasts_nothing():
    """The fallen peak is not looked after by glances."""
    assert PeakFell().forecast(full_look(HUMPED), TERMS) is None


@pytest.mark.slow
@pytest.mark.parametrize("share_of_mark", [0.75, 0.8, 0.85])
def test_a_glance_rules_out_a_loss_that_a_check_would_find_as_seldom_as_promised(share_of_mark):
    """The true rise is under the mark, a half of what it was, by so much that a check finds it lost now and then."""
    num, wrong, lost, num_runs = 4000, 0, 0, 400
    rise = 0.045 * share_of_mark
    mean = [0.30, 0.30, 0.30, 0.30, 0.30 + rise / 3, 0.30 + rise, 0.28, 0.22, 0.10]
    for seed in range(num_runs):
        rule, was = RiseLost(), full_look(HUMPED, num_images=num, seed=2 * seed)
        rule.look(was, error=1e-4)
        levels = glance_levels(was.curve)
        now = full_look(mean, number=2, num_images=num, seed=2 * seed + 1)
        part = Curve.from_dict({**now.curve.to_dict(), "sigmas": [now.curve.sigmas[level] for level in levels]})
        ruled_out = False
        for divisor in LOOKS:
            seen = num // PORTION // divisor
            terms = Terms(seen / num, check_error=1e-4, error=ERROR / len(LOOKS))
            ruled_out |= not rule.forecast(Look(2, 20, part, now.score_KM[levels, :seen]), terms).loses
        holds = rule.look(now, error=1e-4).holds
        lost += holds
        wrong += holds and ruled_out
    assert lost >= 0.02 * num_runs
    assert wrong <= ERROR * num_runs


@pytest.mark.parametrize(
    ("mean", "levels"),
    [
        (HUMPED, [0, 1, 4, 5, 6]),
        (FALLING, [0, 1, 2, 3]),
        ((*HUMPED[:7], 0.5, 0.1), [0, 1, 6, 7, 8]),
    ],
    ids=["interior", "at the low end", "last but one"],
)
def test_the_levels_of_a_glance_are_the_low_end_and_the_peak_with_its_neighbours(mean, levels):
    """Five of nine, or fewer."""
    assert glance_levels(full_look(mean).curve) == levels


def test_a_portion_is_a_quarter_and_balanced_at_every_beginning():
    """A glance may end after a quarter or a half of it; few fit images are all used."""
    probe_set = tiny_probe_set()
    portion = glance_portion(probe_set, seed=0)
    assert len(portion.fit) == len(probe_set.fit)
    assert len(portion.heldout) == len(probe_set.heldout) // PORTION
    labels = probe_set.heldout.labels[portion.heldout]
    for divisor in LOOKS:
        counts = labels[: len(labels) // divisor].bincount(minlength=3)
        assert counts.max() - counts.min() <= 1


class Calm(Alarm):
    """Says at the `ask`-th question of a glance that all is as it was."""

    ask = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.asked = 0

    def forecast(self, look, *, fraction, error):
        self.asked += 1
        return "all is as it was" if self.asked >= self.ask else None


class Restless(Alarm):
    def forecast(self, look, *, fraction, error):
        return None


def tiny_monitor(alarm=None, **options):
    torch.manual_seed(0)
    options = {"layers": ["blocks.0", "blocks.1"], "alarm": alarm, "full_every": 8, **options}
    return Monitor(EDMDenoiser(Network(TinyDenoiser())), tiny_probe_set(), **options)


def kinds(monitor, num):
    return "".join("C" if isinstance(monitor.look(step), Check) else "g" for step in range(num))


@pytest.mark.parametrize(("full_every", "expected"), [(1, "CCCCCC"), (2, "CCgCgC"), (4, "CCgggCggg")])
def test_glances_and_checks_alternate_as_full_every_says(full_every, expected):
    """The untrained network of step 0 is nothing to compare with; then one look of so many is a check."""
    assert kinds(tiny_monitor(Calm(), full_every=full_every), len(expected)) == expected


def test_a_glance_in_doubt_is_followed_by_a_check_at_once():
    """At every look."""
    monitor = tiny_monitor(Restless(), full_every=4)
    assert kinds(monitor, 5) == "CCCCC"
    assert monitor.glances == []


def test_a_fading_rise_always_gets_a_check():
    """The next check decides on the alarm."""
    monitor = tiny_monitor(Calm(), full_every=8)
    monitor.look(10)
    monitor.alarm.state = AlarmState.FADING
    assert isinstance(monitor.look(20), Check)


@pytest.mark.parametrize(("ask", "divisor"), [(1, 4), (2, 2), (3, 1)])
@pytest.mark.parametrize("num_draws", [1, 2])
def test_a_glance_takes_the_forwards_that_it_says(ask, divisor, num_draws):
    """Counted at the network's door, when it decides at the first, the second or the last look."""
    monitor, inputs = tiny_monitor(Calm(), num_draws=num_draws), []
    monitor.look(10)
    monitor.alarm.ask = ask
    handle = monitor.denoiser.network.blocks[0].register_forward_pre_hook(
        lambda module, args: inputs.append(len(args[0]))
    )
    glance = monitor.look(20)
    handle.remove()
    assert isinstance(glance, Glance)
    assert glance.num_forwards == sum(inputs)
    assert glance.num_images == len(monitor.probe_set.heldout) // PORTION // divisor
    assert glance.num_forwards < monitor.num_forwards / 2


@pytest.mark.parametrize("probe", [RidgeProbe(), LogisticProbe()])
def test_a_glance_scores_as_the_check_did_for_glances(probe):
    """The same network at the same images: nothing changes between the two, to rounding."""
    seen = []

    class Keeps(Calm):
        def update(self, look):
            seen.append(look.glance_KM)
            return super().update(look)

        def forecast(self, look, *, fraction, error):
            seen.append(look)
            return "seen" if len(look.score_KM[0]) == len(seen[0][0]) else None

    monitor = tiny_monitor(Keeps(), probe=probe)
    check = monitor.look(10)
    monitor.look(20)
    glanced = seen[-1].score_KM
    np.testing.assert_allclose(glanced, seen[0][glance_levels(check.curve)], atol=1e-4)


def test_a_glance_leaves_no_trace():
    """Weights, buffers, hooks, modes and random states are as before."""
    monitor = tiny_monitor(Calm())
    network = monitor.denoiser.network
    monitor.look(10)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    random_state = torch.get_rng_state()
    assert isinstance(monitor.look(20), Glance)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(module.training for module in network.modules())
    assert not any(module._forward_hooks for module in network.modules())


def test_a_run_goes_on_between_its_glances():
    """Saved as JSON after two of three glances, one more is made before the check."""
    first, second = tiny_monitor(Calm(), full_every=4), tiny_monitor(Calm(), full_every=4)
    assert kinds(first, 4) == "CCgg"
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.glances == first.glances
    assert second.state_dict() == first.state_dict()
    assert ["g" if isinstance(second.look(step), Glance) else "C" for step in (4, 5)] == ["g", "C"]
