"""Sequences of findings and the states they lead to; sequences of curves."""

import json
from dataclasses import dataclass, field, replace

import pytest
from simulated import FALLING, HUMPED, made_verdict
from test_gap_opened import look_with
from test_rules import FLAT, LOWER, SLIGHTLY_LOWER, look_at

from unimodal_monitor.alarm.alarm import Alarm, AlarmState
from unimodal_monitor.alarm.rules.base import Finding
from unimodal_monitor.alarm.rules.both import Both
from unimodal_monitor.alarm.rules.cleanliness import CleanlinessFell
from unimodal_monitor.alarm.rules.gap import GapOpened
from unimodal_monitor.alarm.rules.peak import PeakFell
from unimodal_monitor.alarm.rules.rise import RiseLost
from unimodal_monitor.stats.verdict import Shape

W, N, A, F, R = (
    AlarmState.WARMING_UP,
    AlarmState.NEVER_UNIMODAL,
    AlarmState.ARMED,
    AlarmState.FADING,
    AlarmState.RAISED,
)
FALLEN, UNSURE = made_verdict(Shape.MONOTONE, -0.1), made_verdict(Shape.UNDECIDED, 0.1)


@dataclass
class Scripted:
    """A rule that says what the test says: "u" established anew, "-" nothing, "x" lost."""

    script: str
    share: float = 0.5
    errors: list[float] = field(default_factory=list)

    def look(self, look, *, error):
        self.errors.append(error)
        said = self.script[: len(self.errors)]
        return Finding(said[-1] == "x", "u" in said, said[-1] == "u", f"said {said[-1]}")

    def state_dict(self):
        return {}

    def load_state_dict(self, record):
        pass


@pytest.mark.parametrize(
    ("script", "states"),
    [
        ("---", [W, W, W]),
        ("----", [W, W, W, N]),
        ("----u", [W, W, W, N, A]),
        ("u--", [A, A, A]),
        ("uxx", [A, F, R]),
        ("ux-x", [A, F, A, F]),
        ("uxx-", [A, F, R, R]),
        ("uxxx", [A, F, R, R]),
        ("uxxu", [A, F, R, A]),
        ("uxxuxx", [A, F, R, A, F, R]),
    ],
    ids=[
        "nothing to lose",
        "said so after a while",
        "and yet armed later",
        "armed stays armed",
        "raised when lost twice",
        "a check in between starts the count anew",
        "silence does not lower it",
        "stays raised",
        "an established rise lowers it",
        "raised a second time",
    ],
)
def test_findings_lead_to_states(script, states):
    """With a patience of two and a warm-up of four checks."""
    alarm = Alarm(rules=(Scripted(script),), watched=(), warm_up=4)
    assert [alarm.update(None) for _ in script] == states


def test_a_watched_rule_is_told_and_changes_no_state():
    """However often it speaks: a healthy run's peak may fall as well."""
    alarm = Alarm(rules=(Scripted("u----"),), watched=(Scripted("uxxxx"),))
    assert [alarm.update(None) for _ in range(5)] == [A] * 5
    assert alarm.explain(UNSURE) == "said -; said x (at 4 checks in a row)"


def test_any_rule_raises_alone():
    """The second of two."""
    alarm = Alarm(rules=(Scripted("u--"), Scripted("uxx")), watched=())
    assert [alarm.update(None) for _ in range(3)] == [A, F, R]


def test_all_rules_together_spend_no_more_than_the_significance():
    """Over ten thousand checks."""
    rules = [Scripted("u" * 10_000, share=0.7), Scripted("u" * 10_000, share=0.3)]
    alarm = Alarm(rules=rules[:1], watched=rules[1:], significance=0.02)
    for _ in range(10_000):
        alarm.update(None)
    assert 0.0199 < sum(map(sum, (rule.errors for rule in rules))) <= 0.02
    assert sum(rules[0].errors) == pytest.approx(0.7 / 0.3 * sum(rules[1].errors))


@pytest.mark.parametrize("cut", range(1, 6))
def test_a_resumed_alarm_goes_on_as_if_never_stopped(cut):
    """The state passes through JSON, as through a checkpoint."""
    looks = [look_at(mean, number=n) for n, mean in enumerate((FLAT, HUMPED, FLAT, FLAT, LOWER, HUMPED), 1)]
    whole, first, second = Alarm(), Alarm(), Alarm()
    expected = [whole.update(look) for look in looks]
    assert expected == [W, A, F, R, A, A]
    found = [first.update(look) for look in looks[:cut]]
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert found + [second.update(look) for look in looks[cut:]] == expected
    assert second == whole


def unlabelled_look(mean, gap, number):
    """Its curve is the cleanliness of the features; None: no gap was measured."""
    look = look_at(mean, number=number, pairs=None if gap is None else look_with(gap).pairs)
    return replace(look, cleanliness_KN=look.score_KM)


@pytest.mark.parametrize(
    ("means", "gaps", "states"),
    [
        ((FALLING, SLIGHTLY_LOWER, LOWER), (0.0, 0.0, 0.0), [A, A, A]),
        ((FALLING, FALLING, FALLING), (0.0, 0.3, 0.3), [A, A, A]),
        ((FALLING, LOWER, LOWER), (0.0, 0.3, 0.3), [A, F, R]),
        ((FALLING, LOWER, LOWER, FALLING), (0.0, 0.3, 0.3, 0.3), [A, F, R, R]),
        ((FALLING, LOWER, LOWER, FALLING), (0.0, 0.3, 0.3, 0.0), [A, F, R, A]),
        ((FALLING, LOWER, LOWER), (None, None, None), [W, W, W]),
    ],
    ids=["fell alone", "gap alone", "both", "gap stays open", "gap closed again", "gap not measured"],
)
def test_without_labels_a_fall_with_an_open_gap_raises(means, gaps, states):
    """No hump is needed, and neither raises alone."""
    alarm = Alarm.without_labels()
    looks = [unlabelled_look(mean, gap, n) for n, (mean, gap) in enumerate(zip(means, gaps, strict=True), 1)]
    assert [alarm.update(look) for look in looks] == states


def test_without_labels_the_evidence_names_both():
    """Armed, with one of them, and raised; nothing is said twice."""
    alarm, said = Alarm.without_labels(), []
    for number, (mean, gap) in enumerate([(FALLING, 0.0), (FALLING, 0.3), (LOWER, 0.3)], 1):
        alarm.update(unlabelled_look(mean, gap, number))
        said.append(alarm.explain(FALLEN))
    assert said[0].startswith("the cleanliness of the features stands at 100% of its best")
    assert "; the denoising gap is" in said[0]
    assert "surely more than 10%" in said[1]
    assert said[2].startswith("the cleanliness of the features fell from")
    assert said[2].endswith("(at this check)")
    assert all(sentence.count("gap is") == 1 for sentence in said)


def test_without_labels_nothing_is_said_of_classes():
    """No gap that could be trusted: what the rules wait for is the evidence, however long."""
    alarm = Alarm.without_labels()
    for number in range(1, 12):
        alarm.update(unlabelled_look(FALLING, None, number))
    assert alarm.state is AlarmState.NEVER_UNIMODAL
    assert "the denoising gap was not measured" in alarm.explain(FALLEN)
    assert "class" not in alarm.explain(FALLEN)


def test_a_check_that_fails_in_a_rule_is_not_counted():
    """Its error is not spent."""
    alarm = Alarm()
    alarm.update(look_at(HUMPED, number=1))
    with pytest.raises(ValueError, match="best check so far was of 2000 images, this one is of 500"):
        alarm.update(look_at(HUMPED, number=2, num_images=500))
    assert alarm.num_checks == 1


def test_each_state_names_its_evidence():
    """From the first look to the alarm, and after it."""
    alarm = Alarm(warm_up=2)
    assert alarm.explain(UNSURE) == "no check of a trained network yet"
    found = []
    for number, (mean, verdict) in enumerate(
        [(FALLING, FALLEN), (FALLING, FALLEN), (HUMPED, UNSURE), (FLAT, FALLEN), (FLAT, FALLEN), (LOWER, UNSURE)], 1
    ):
        state = alarm.update(look_at(mean, number=number))
        found.append((state, alarm.explain(verdict)))
    assert [state for state, _ in found] == [W, N, A, F, R, A]
    assert "no rise is sure enough" in found[0][1]
    assert "never unimodal in 2 checks: classes may be too easy" in found[1][1]
    assert "the peak fell from 0.496 (step 10)" in found[2][1]
    assert "the rise was 0.0878 (step 30" in found[4][1]
    assert "(at 2 checks in a row)" in found[4][1]


def default_alarm_after(*checks, cleanliness=None):
    """The states of `Alarm()` at checks of these curves and gaps, and its last evidence; None: not measured."""
    alarm = Alarm()
    looks = [
        replace(look_at(mean, number=number), pairs=None if gap is None else look_with(gap, seed=number).pairs)
        for number, (mean, gap) in enumerate(checks, 1)
    ]
    if cleanliness is not None:
        looks = [replace(a, cleanliness_KN=look_at(c).score_KM) for a, c in zip(looks, cleanliness, strict=True)]
    return [alarm.update(look) for look in looks], alarm.explain(FALLEN)


def test_a_fallen_peak_with_an_open_gap_raises_the_default_alarm():
    """The rise is still there; both sentences are the evidence."""
    states, evidence = default_alarm_after((HUMPED, 0.0), (LOWER, 0.8), (LOWER, 0.8))
    assert states == [A, F, R]
    assert evidence.startswith("the peak fell from 0.38")
    assert "surely by more than 5% and the denoising gap is" in evidence
    assert evidence.endswith("surely more than 10% (at 2 checks in a row)")


@pytest.mark.parametrize("gap", [0.0, None], ids=["no gap", "not measured"])
def test_a_fallen_peak_without_a_gap_is_told_and_raises_nothing(gap):
    """A healthy run's peak may fall as well."""
    states, evidence = default_alarm_after((HUMPED, gap), (LOWER, gap), (LOWER, gap), (LOWER, gap))
    assert states == [A] * 4
    assert evidence.startswith("the rise stands at 8")
    assert "; the peak fell from" in evidence
    assert "denoising gap" not in evidence


def test_a_fallen_cleanliness_with_an_open_gap_raises_the_default_alarm():
    """The curve stands as it was: this is heard before the probe knows less."""
    checks = (HUMPED, 0.0), (HUMPED, 0.8), (HUMPED, 0.8)
    states, evidence = default_alarm_after(*checks, cleanliness=(FALLING, LOWER, LOWER))
    assert states == [A, F, R]
    assert evidence.startswith("the cleanliness of the features fell from")
    assert evidence.endswith("surely more than 10% (at 2 checks in a row)")


def test_a_fallen_cleanliness_without_a_gap_is_told_and_raises_nothing():
    """A change of the learning rate moves it as well."""
    checks = (HUMPED, 0.0), (HUMPED, 0.0), (HUMPED, 0.0)
    states, evidence = default_alarm_after(*checks, cleanliness=(FALLING, LOWER, LOWER))
    assert states == [A] * 3
    assert "; the cleanliness of the features fell from" in evidence


def test_an_open_gap_alone_is_told_and_raises_nothing():
    """Members may be denoised better long before the features lose anything."""
    states, evidence = default_alarm_after((HUMPED, 0.8), (HUMPED, 0.8), (HUMPED, 0.8))
    assert states == [A] * 3
    assert evidence.count("the denoising gap is") == 1
    assert "the peak fell" not in evidence


def test_a_lost_rise_raises_the_default_alarm_without_a_gap():
    """Alone, as where no gap can be measured."""
    states, evidence = default_alarm_after((HUMPED, None), (FLAT, None), (FLAT, None))
    assert states == [A, F, R]
    assert evidence.startswith("the rise was")


def test_few_images_are_a_reason_of_their_own():
    """An undecided curve is not called too easy."""
    alarm = Alarm(warm_up=1)
    alarm.update(look_at(FLAT, number=1))
    assert "unimodal-monitor power" in alarm.explain(UNSURE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patience": 0}, "patience = 0"),
        ({"planned_checks": 0}, "planned_checks = 0"),
        ({"warm_up": 0}, "warm_up = 0"),
        ({"significance": 1.0}, "significance = 1.0"),
        ({"significance": float("nan")}, "significance = nan"),
        ({"rules": ()}, "rules is empty"),
        ({"rules": (RiseLost(share=0.6),), "watched": (PeakFell(share=0.5),)}, "more than one together"),
    ],
)
def test_an_argument_out_of_range_is_refused(arguments, message):
    """The error names the argument and what came."""
    with pytest.raises(ValueError, match=message):
        Alarm(**arguments)


@pytest.mark.parametrize(
    "rules",
    [
        (RiseLost(),),
        (RiseLost(), Both(CleanlinessFell(), GapOpened(), share=0.25), Both(PeakFell(), GapOpened(), share=0.25)),
    ],
    ids=["fewer", "in another order"],
)
def test_a_state_of_other_rules_is_refused(rules):
    """Its references would be taken for another rule's."""
    alarm = Alarm(rules=rules)
    with pytest.raises(ValueError, match="has the rules RiseLost, .*PeakFell, GapOpened.*; this one RiseLost"):
        alarm.load_state_dict(Alarm().state_dict())
    assert alarm.num_checks == 0
    with pytest.raises(ValueError, match="has the rules of an earlier version; this one RiseLost"):
        alarm.load_state_dict({name: value for name, value in alarm.state_dict().items() if name != "names"})
