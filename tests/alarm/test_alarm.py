"""Findings in time become states; an alarm that should not be raised is, as seldom as promised."""

import json
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from simulated import FALLING, FLAT, HUMPED, LOWER, SLIGHTLY_LOWER, made_verdict, simulated_check

from unimodal_monitor import Alarm, AlarmState, PeakFell, RiseLost, Shape
from unimodal_monitor.alarm.alarm import AlarmMemory, share_of_check
from unimodal_monitor.alarm.rule import Finding

W, N, A, F, R = AlarmState  # warming up, never unimodal, armed, fading, raised
MONOTONE, UNDECIDED = made_verdict(Shape.MONOTONE, -0.1), made_verdict(Shape.UNDECIDED, 0.1)


@dataclass(frozen=True)
class Scripted:
    """A rule that finds what the test wants: "u" established anew, "-" nothing, "x" triggered."""

    script: str
    share: float = 0.5
    alphas: list[float] = field(default_factory=list)

    def test(self, measured, reference, *, number, step, alpha):
        self.alphas.append(alpha)
        now = self.script[number - 1]
        return Finding(now == "x", "u" in self.script[:number], now == "u", f"found {now}")


def run(alarm, checks, *, verdict=MONOTONE, memory=None):
    """The states and sentences of these checks, and the memory after them."""
    states, sentences, memory = [], [], memory or AlarmMemory()
    for measured in checks:
        memory, evidence = alarm.update(memory, measured, verdict, step=10 * (memory.num_checks + 1))
        states.append(memory.state)
        sentences.append(evidence)
    return states, sentences, memory


@pytest.mark.parametrize(
    ("scripts", "patience", "states"),
    [
        (["----u"], 2, [W, W, W, N, A]),  # reported after the warm-up
        (["ux-x"], 2, [A, F, A, F]),  # a check in between starts the count anew
        (["uxx-xx"], 2, [A, F, R, R, R, R]),  # a check without a finding does not lower it
        (["uxxuxx"], 2, [A, F, R, A, F, R]),  # what would arm it anew does
        (["uxxx-xx"], 3, [A, F, F, R, R, R, R]),
        (["ux"], 1, [A, R]),
        (["u--", "uxx"], 2, [A, F, R]),  # any rule raises alone
        (["-u-", "u--"], 2, [W, A, A]),  # and the first one arms
        (["u-x", "ux-"], 2, [A, F, F]),
        (["uxxu", "---x"], 2, [A, F, R, R]),
    ],
)
def test_findings_lead_to_states(scripts, patience, states):
    alarm = Alarm(rules=[Scripted(script) for script in scripts], patience=patience, warm_up=4)
    assert run(alarm, [simulated_check(num_images=2)] * len(states))[0] == states


@pytest.mark.parametrize("planned", [1, 2, 7, 50])
def test_planned_checks_have_equal_shares_later_ones_less_and_less_and_all_of_them_sum_to_one(planned):
    """The tail of planned / (2 n (n - 1)) from N + 1 on sums to planned / (2 N)."""
    shares = [share_of_check(number, planned=planned) for number in range(1, 10_001)]
    assert set(shares[:planned]) == {1 / (2 * planned)}
    assert all(later < earlier for earlier, later in pairwise(shares[planned - 1 :]))
    assert sum(shares) == pytest.approx(1 - planned / (2 * 10_000))


def test_all_rules_together_spend_no_more_than_the_significance():
    """Over two thousand checks, in proportion to their shares."""
    rules = [Scripted("u" * 2000, share=share) for share in (0.7, 0.3)]
    run(Alarm(rules=rules, significance=0.02, planned_checks=20), [simulated_check(num_images=2)] * 2000)
    first, second = (sum(rule.alphas) for rule in rules)
    assert 0.0198 < first + second <= 0.02
    assert first == pytest.approx(0.7 / 0.3 * second)


@dataclass(frozen=True)
class AtTheMark:
    """A rule whose null hypothesis is just true: it triggers with the probability alpha, anew at every check."""

    generator: np.random.Generator
    share: float = 0.5

    def test(self, measured, reference, *, number, step, alpha):
        return Finding(self.generator.random() < alpha, True, False, "by chance")


@pytest.mark.parametrize(("num_checks", "spent"), [(10, 0.2), (40, 0.35)])
def test_a_false_alarm_is_raised_as_seldom_as_promised(num_checks, spent):
    """Half of the significance is spent by the planned checks, and 1 - 10 / 80 of it by four times as many."""
    rules = [AtTheMark(np.random.default_rng(seed)) for seed in range(2)]
    alarm = Alarm(rules=rules, significance=0.4, patience=1, planned_checks=10)
    checks = [simulated_check(num_images=2)] * num_checks
    raised = np.mean([R in run(alarm, checks)[0] for _ in range(600)])
    error = 3 * (spent * (1 - spent) / 600) ** 0.5
    assert spent - spent**2 / 2 - error < raised < spent + error


@pytest.mark.parametrize("cut", [1, 3, 5])
def test_a_resumed_alarm_goes_on_as_if_never_stopped(cut):
    """The memory passes through JSON, as through a checkpoint."""
    checks = [simulated_check(mean, gap=0.0) for mean in (FLAT, HUMPED, FLAT, FLAT, LOWER, HUMPED)]
    states, sentences, memory = run(Alarm(), checks)
    assert states == [W, A, F, R, A, A]
    *first, saved = run(Alarm(), checks[:cut])
    saved = AlarmMemory.from_dict(json.loads(json.dumps(saved.to_dict())))
    *second, resumed = run(Alarm(), checks[cut:], memory=saved)
    assert [a + b for a, b in zip(first, second, strict=True)] == [states, sentences]
    assert resumed == memory


def test_an_update_changes_nothing_and_so_a_check_that_fails_is_not_counted():
    memory = run(Alarm(), [simulated_check(HUMPED)])[2]
    first, second = (run(Alarm(), [simulated_check(FLAT)], memory=memory) for _ in range(2))
    assert first == second
    assert (first[0], memory.num_checks) == ([F], 1)


def unlabelled(means, gaps):
    """Checks whose invariance has these means; None: no gap was measured."""
    return [simulated_check(None, invariance=mean, gap=gap) for mean, gap in zip(means, gaps, strict=True)]


@pytest.mark.parametrize(
    ("are_images", "means", "gaps", "states"),
    [
        (True, (FALLING, SLIGHTLY_LOWER, LOWER), (0.0, 0.0, 0.0), [A, A, A]),
        (True, (FALLING, FALLING, FALLING), (0.0, 0.3, 0.3), [A, A, A]),
        (True, (FALLING, LOWER, LOWER, FALLING), (0.0, 0.3, 0.3, 0.3), [A, F, R, R]),
        (True, (FALLING, LOWER, LOWER, FALLING), (0.0, 0.3, 0.3, 0.0), [A, F, R, A]),
        (True, (FALLING, LOWER, LOWER), (None, None, None), [W, W, W]),
        (False, (FALLING, FALLING, FALLING, FALLING), (0.0, 0.3, 0.3, 0.0), [A, F, R, A]),
    ],
    ids=["fell alone", "gap alone", "both, then the gap", "both, then none", "gap not measured", "gap of vectors"],
)
def test_without_labels_a_fall_with_an_open_gap_raises_and_of_vectors_the_gap_alone(are_images, means, gaps, states):
    """No hump is needed."""
    assert run(Alarm.without_labels(are_images=are_images), unlabelled(means, gaps))[0] == states


def test_without_labels_the_evidence_names_invariance_and_gap_and_no_classes():
    sentences = run(Alarm.without_labels(), unlabelled((FALLING, FALLING, LOWER), (0.0, 0.3, 0.3)))[1]
    expected = ("invariance of the features is 100%", "significantly over 10%", "invariance of the features fell from")
    assert all(words in sentence for words, sentence in zip(expected, sentences, strict=True))
    assert all(sentence.count("gap is") == 1 for sentence in sentences)
    states, sentences, _ = run(Alarm.without_labels(), unlabelled([FALLING] * 11, [None] * 11))
    assert states[-1] is N
    assert "the denoising gap was not measured" in sentences[-1]
    assert "class" not in sentences[-1]


@pytest.mark.parametrize(
    ("mean", "gap", "invariance", "states", "evidence", "fell"),
    [
        (LOWER, 0.8, None, [A, F, R], "the peak of the score", True),
        (LOWER, 0.0, None, [A, A, A], "the rise is 8", True),
        (LOWER, None, None, [A, A, A], "the rise is 8", True),
        (HUMPED, 0.8, LOWER, [A, F, R], "the invariance of the features", True),
        (HUMPED, 0.0, LOWER, [A, A, A], "the rise is", True),
        (HUMPED, 0.8, FALLING, [A, A, A], "the rise is 100%", False),
        (FLAT, None, None, [A, F, R], "the rise is", True),
    ],
)
def test_the_default_alarm_is_raised_by_a_lost_rise_or_a_fall_with_an_open_gap(
    mean, gap, invariance, states, evidence, fell
):
    """At two checks after a healthy one. What is significant without raising it is noted, once."""
    healthy, later = ((HUMPED, 0.0, FALLING), (mean, gap, invariance))
    checks = [simulated_check(mean, gap=gap, invariance=values) for mean, gap, values in (healthy, later, later)]
    found, (*_, sentence), _ = run(Alarm(), checks)
    assert found == states
    assert sentence.startswith(evidence)
    assert sentence.count("the denoising gap is") == (gap == 0.8)
    assert ("fell" in sentence) is fell


def test_each_state_names_its_evidence():
    """From the first check to the alarm, and after it."""
    means = (FALLING, FALLING, HUMPED, FLAT, FLAT, tuple(0.6 * value for value in FALLING), HUMPED)
    states, sentences, _ = run(Alarm(warm_up=2), [simulated_check(mean) for mean in means])
    assert states == [W, N, A, F, R, R, A]
    expected = ("no rise is significant", "never unimodal in 2 checks: classes may be too easy", "is established")
    expected += ("(at this check)", "(at 2 checks in a row)", "(at 3 checks in a row)", "the rise is 100%")
    assert all(words in sentence for words, sentence in zip(expected, sentences, strict=True))
    assert "unimodal-monitor power" in run(Alarm(warm_up=1), [simulated_check(FLAT)], verdict=UNDECIDED)[1][0]
    found = run(Alarm(rules=[Scripted("uxx-")]), [simulated_check(num_images=2)] * 4)[1]
    assert found[3] == "not established again: found -"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *(({name: 0}, f"{name} = 0") for name in ("patience", "planned_checks", "warm_up")),
        *(({"significance": value}, f"significance = {value}") for value in (1.0, float("nan"))),
        *(({"rules": rules}, "rules must hold") for rules in ((), [RiseLost])),
        ({"rules": (RiseLost(share=0.6), PeakFell(share=0.5))}, "sum to more than one"),
    ],
)
def test_an_argument_out_of_range_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Alarm(**arguments)
