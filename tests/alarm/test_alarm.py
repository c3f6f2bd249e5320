"""Findings in time become states; an alarm that should not be raised is, as seldom as promised."""

import json
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from simulated import FLAT, HUMPED, LOWER, simulated_check

from unimodal_monitor import AdvantageGrew, Alarm, AlarmState, GapOpened
from unimodal_monitor.alarm.alarm import AlarmMemory, share_of_check
from unimodal_monitor.alarm.forecast import expected_copies
from unimodal_monitor.alarm.rule import Finding
from unimodal_monitor.stats.estimate import Estimate

W, G, N, M, C = AlarmState  # warming up, generalizing, onset, memorizing, copying


@dataclass(frozen=True)
class Scripted:
    """A rule that finds what the test wants: "w" nothing to compare with, "-" no, "x" triggered, "?" not tested."""

    script: str
    state: AlarmState = M
    share: float = 0.5
    alphas: list[float] = field(default_factory=list)

    def test(self, measured, reference, *, number, step, alpha):
        self.alphas.append(alpha)
        now = self.script[number - 1]
        return Finding(now == "x", f"found {now}", is_tested=now != "?", is_ready=now != "w")


def run(alarm, checks, *, memory=None):
    """The states and sentences of these checks, and the memory after them."""
    states, sentences, memory = [], [], memory or AlarmMemory()
    for measured in checks:
        memory, evidence, _ = alarm.update(memory, measured, step=10 * (memory.num_checks + 1))
        states.append(memory.state)
        sentences.append(evidence)
    return states, sentences, memory


@pytest.mark.parametrize(
    ("scripts", "patience", "states"),
    [
        (["ww--"], 2, [W, W, G, G]),
        (["--ww"], 2, [G, G, G, G]),  # a check that cannot tell takes nothing back
        (["-x-x"], 2, [G, G, G, G]),  # a check in between starts the count anew
        (["-xx-xx"], 2, [G, G, M, M, M, M]),  # a single check without a finding does not end it
        (["-xx--x"], 2, [G, G, M, M, G, G]),  # as many as it took do
        (["-xx?-?-"], 2, [G, G, M, M, M, M, G]),
        (["-x?x"], 2, [G, G, G, M]),  # a check that cannot test leaves the count as it is
        (["-xxx--xx---"], 3, [G, G, G, M, M, M, M, M, M, M, G]),
        (["-x"], 1, [G, M]),
        (["w--", "wxx"], 2, [W, G, M]),  # any rule raises, also while another
        (["---", "-w-"], 2, [G, G, G]),  # the first one says whether there is something to compare with
    ],
)
def test_findings_lead_to_states(scripts, patience, states):
    alarm = Alarm(rules=[Scripted(script) for script in scripts], patience=patience)
    assert run(alarm, [simulated_check(num_images=2)] * len(states))[0] == states


@pytest.mark.parametrize(
    ("onset", "memorizing", "states"),
    [
        ("-xxxxxx", "---xxxx", [G, G, N, N, M, M, M]),
        ("-xxxxxx", "-xx----", [G, G, M, M, N, N, N]),  # back to what is still found
        ("-xx----", "-------", [G, G, N, N, G, G, G]),
        ("-xx-xx-", "-------", [G, G, N, N, N, N, N]),
        ("-------", "-xx-x--", [G, G, M, M, M, M, G]),
    ],
)
def test_the_state_of_the_most_harm_counts(onset, memorizing, states):
    alarm = Alarm(rules=[Scripted(onset, N), Scripted(memorizing, M)])
    assert run(alarm, [simulated_check(num_images=2)] * len(states))[0] == states


def test_copies_that_were_found_count_until_an_audit_finds_none():
    """A pair that may be alike by chance is no copying, and does not end it."""
    alarm, checks = Alarm(rules=[Scripted("-xx------")]), [simulated_check(num_images=2)]
    memory = run(alarm, checks * 3)[2]
    after_audit = partial(alarm.after_audit, gap=None)
    assert after_audit(memory, copies=(1, 300), at_least=0.0005) == memory
    copying = after_audit(memory, copies=(9, 300), at_least=0.01)
    assert copying.state is C
    states, _, later = run(alarm, checks * 3, memory=copying)
    assert states == [C, C, C]
    assert after_audit(later, copies=(1, 300), at_least=0.0005).state is C
    assert after_audit(later, copies=(0, 300), at_least=0.0).state is G
    assert after_audit(copying, copies=(0, 300), at_least=0.0).state is M


def test_an_audit_recalibrates_the_copies_that_are_expected_until_the_next_one():
    """Three times as many as the line says at this gap; later checks keep the offset, also through JSON."""
    alarm, checks, share = Alarm(), memorizing_run(), expected_copies(0.93)[0]
    memory = run(alarm, checks[:2])[2]
    found = alarm.after_audit(memory, gap=0.93, copies=(round(3000 * share), 1000), at_least=0.05)
    assert expected_copies(0.93, offset=found.copies_offset)[0] == pytest.approx(3 * share, rel=0.05)
    later = run(alarm, checks[2:4], memory=AlarmMemory.from_dict(json.loads(json.dumps(found.to_dict()))))[2]
    assert later.copies_offset == found.copies_offset


@pytest.mark.parametrize("planned", [1, 2, 7, 50])
def test_planned_checks_have_equal_shares_later_ones_less_and_less_and_all_of_them_sum_to_one(planned):
    """The tail of planned / (2 n (n - 1)) from N + 1 on sums to planned / (2 N)."""
    shares = [share_of_check(number, planned=planned) for number in range(1, 10_001)]
    assert set(shares[:planned]) == {1 / (2 * planned)}
    assert all(later < earlier for earlier, later in pairwise(shares[planned - 1 :]))
    assert sum(shares) == pytest.approx(1 - planned / (2 * 10_000))


def test_all_rules_together_spend_no_more_than_the_significance():
    """Over two thousand checks, in proportion to their shares."""
    rules = [Scripted("-" * 2000, share=share) for share in (0.7, 0.3)]
    run(Alarm(rules=rules, significance=0.02, planned_checks=20), [simulated_check(num_images=2)] * 2000)
    first, second = (sum(rule.alphas) for rule in rules)
    assert 0.0198 < first + second <= 0.02
    assert first == pytest.approx(0.7 / 0.3 * second)


@dataclass(frozen=True)
class AtTheMark:
    """A rule whose null hypothesis is just true: it triggers with the probability alpha, anew at every check."""

    generator: np.random.Generator
    share: float = 0.5
    state: AlarmState = M

    def test(self, measured, reference, *, number, step, alpha):
        return Finding(self.generator.random() < alpha, "by chance")


@pytest.mark.parametrize(("num_checks", "spent"), [(10, 0.2), (40, 0.35)])
def test_a_false_alarm_is_raised_as_seldom_as_promised(num_checks, spent):
    """Half of the significance is spent by the planned checks, and 1 - 10 / 80 of it by four times as many."""
    rules = [AtTheMark(np.random.default_rng(seed)) for seed in range(2)]
    alarm = Alarm(rules=rules, significance=0.4, patience=1, planned_checks=10)
    checks = [simulated_check(num_images=2)] * num_checks
    raised = np.mean([M in run(alarm, checks)[0] for _ in range(600)])
    error = 3 * (spent * (1 - spent) / 600) ** 0.5
    assert spent - spent**2 / 2 - error < raised < spent + error


RUN = (0.0, 0.0, 0.04, 0.12, 0.2, 0.3, 0.3, 0.7, 0.8)
"""Gaps of a run that memorizes; its features lose their peak at the sixth check."""


def memorizing_run(gaps=RUN, *, curves=(*[HUMPED] * 5, *[LOWER] * 4), **options):
    return [simulated_check(mean, gap=gap, num_pairs=600, **options) for gap, mean in zip(gaps, curves, strict=True)]


@pytest.mark.parametrize("cut", [1, 3, 6])
def test_a_resumed_alarm_goes_on_as_if_never_stopped(cut):
    """The memory passes through JSON, as through a checkpoint."""
    checks = memorizing_run()
    states, sentences, memory = run(Alarm(), checks)
    assert states == [W, G, G, G, N, N, M, M, M]
    *first, saved = run(Alarm(), checks[:cut])
    saved = AlarmMemory.from_dict(json.loads(json.dumps(saved.to_dict())))
    *second, resumed = run(Alarm(), checks[cut:], memory=saved)
    assert [a + b for a, b in zip(first, second, strict=True)] == [states, sentences]
    assert json.dumps(resumed.to_dict()) == json.dumps(memory.to_dict())


def test_an_update_changes_nothing_and_so_a_check_that_fails_is_not_counted():
    memory = run(Alarm(), [simulated_check(HUMPED, gap=0.0)])[2]
    first, second = (run(Alarm(), [simulated_check(FLAT, gap=0.2)], memory=memory) for _ in range(2))
    assert first[:2] == second[:2]
    assert (first[0], memory.num_checks) == ([G], 1)


@pytest.mark.parametrize("mean", [LOWER, FLAT])
def test_no_loss_of_the_curve_raises_the_alarm_alone(mean):
    """As in a run of fresh images, which cannot memorize."""
    checks = memorizing_run([0.0] * 6, curves=[HUMPED, HUMPED, *[mean] * 4], invariance=HUMPED)
    states, sentences, _ = run(Alarm(), checks)
    assert states == [W, G, G, G, G, G]
    assert "the members' advantage did not grow significantly" in sentences[-1]


def test_without_labels_it_is_the_same_alarm():
    """The invariance confirms; of vectors, whose invariance does not fall, a gap over a half is enough."""
    fell = [simulated_check(None, gap=gap, num_pairs=600, invariance=mean)
            for gap, mean in zip(RUN, [HUMPED] * 5 + [LOWER] * 4, strict=True)]  # fmt: skip
    assert run(Alarm(), fell)[0] == [W, G, G, G, N, N, M, M, M]
    vectors = [simulated_check(None, gap=gap, num_pairs=600, invariance=HUMPED) for gap in RUN]
    assert run(Alarm(), vectors)[0] == [W, G, G, G, N, N, N, N, M]


def test_where_nothing_can_be_compared_nothing_is_claimed():
    states, sentences, _ = run(Alarm(), [simulated_check(HUMPED), *[simulated_check(LOWER)] * 3])
    assert states == [W] * 4
    assert "members and held-out images cannot be compared: their errors were not measured" in sentences[-1]


def test_each_state_names_its_evidence():
    sentences = run(Alarm(), memorizing_run())[1]
    expected = ("nothing to compare with yet", "did not grow", "since step", "(at this check)")
    expected += ("(at 2 checks in a row)",)
    expected += ("(at this check)", "the peak of the score", "(at this check)", "(at 2 checks in a row)")
    for words, sentence in zip(expected, sentences, strict=True):
        assert words in sentence
    assert "significantly over 50% (at 2 checks in a row)" in sentences[-1]


def test_what_the_rules_estimate_is_handed_on():
    checks = memorizing_run()[:2]
    memory = run(Alarm(), checks[:1])[2]
    (growth,) = Alarm().update(memory, checks[1], step=20)[2]
    assert isinstance(growth, Estimate)
    assert growth.name == "growth"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *(({name: 0}, f"{name} = 0") for name in ("patience", "planned_checks")),
        *(({"significance": value}, f"significance = {value}") for value in (1.0, float("nan"))),
        *(({"rules": rules}, "rules must hold") for rules in ((), [GapOpened])),
        ({"rules": (AdvantageGrew(share=0.6), GapOpened(share=0.5))}, "sum to more than one"),
    ],
)
def test_an_argument_out_of_range_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Alarm(**arguments)
