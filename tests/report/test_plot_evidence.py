"""The figure of all witnesses: its panels, what they show, and what is left out."""

from dataclasses import replace

import numpy as np
import pytest
from simulated import FALLING, HUMPED, simulated_check, simulated_testimony

from unimodal_monitor.alarm.alarm import AlarmState
from unimodal_monitor.copies.audit import Audit, clopper_pearson
from unimodal_monitor.report.plot_evidence import plot_evidence

AUDIT = Audit(300, 21, 20, clopper_pearson(21, 300), (), 12.0, 300 * 35)
RUN = [
    replace(simulated_check(0, FALLING, state=AlarmState.WARMING_UP), testimony=simulated_testimony(gap=0.0)),
    replace(simulated_check(100, HUMPED), testimony=simulated_testimony(gap=0.2, icr=0.3)),
    replace(simulated_check(207, FALLING, state=AlarmState.RAISED), testimony=simulated_testimony(), audit=AUDIT),
    replace(simulated_check(300, FALLING, state=AlarmState.RAISED), testimony=simulated_testimony(gap=0.5)),
]
TITLES = ["rise", "normalized gap", "ICR", "spikiness AUC", "copies"]


def titles(figure):
    return [axes.get_ylabel().split("\n")[0] for axes in figure.axes]


def drawn(axes):
    """Steps, values, lower and upper limits of a panel."""
    (bars,) = axes.containers
    line, _, (segments,) = bars
    limits = np.array([segment[:, 1] for segment in segments.get_segments()])
    return line.get_xdata(), line.get_ydata(), limits.min(1), limits.max(1)


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        (RUN, TITLES),
        (RUN[:2], TITLES[:4]),
        (RUN[:1], TITLES[:4]),
        ([replace(check, testimony={}, audit=None) for check in RUN], TITLES[:1]),
        ([replace(check, testimony={**check.testimony, "gap": None}) for check in RUN[:3]], ["rise", *TITLES[2:]]),
    ],
    ids=["all", "without an audit", "one check", "without witnesses", "without a gap"],
)
def test_each_witness_that_was_heard_has_a_panel(tmp_path, history, expected):
    """Over one axis of steps, and the figure can be saved."""
    figure = plot_evidence(history)
    assert titles(figure) == expected
    assert figure.axes[-1].get_xlabel() == "step"
    figure.savefig(tmp_path / "evidence.png", dpi=60)
    assert (tmp_path / "evidence.png").read_bytes().startswith(b"\x89PNG")


def test_every_panel_has_its_unit():
    """Or what its values mean, where they have none."""
    units = [axes.get_ylabel().split("\n")[1] for axes in plot_evidence(RUN).axes]
    assert units == ["(% of height)", "(1: memorizer)", "(0: no noise)", "(0.5: alike)", "(% of samples)"]


def test_the_rise_is_in_per_cent_of_the_height():
    """With the verdict's limits."""
    steps, *values = drawn(plot_evidence(RUN).axes[0])
    assert steps.tolist() == [0, 100, 207, 300]
    expected = [
        100 * np.array([check.verdict.rise, check.verdict.rise_low, check.verdict.rise_high]) / check.verdict.height
        for check in RUN
    ]
    np.testing.assert_allclose(np.array(values).T, expected)


def test_witnesses_are_shown_at_their_telling_level():
    """Level 3 in the simulation, with its limits; those of the ICR are 1.96 standard errors away."""
    gap, icr, auc = (drawn(axes)[1:] for axes in plot_evidence(RUN[1:2]).axes[1:])
    np.testing.assert_allclose(np.ravel(gap), [0.2, 0.15, 0.27])
    np.testing.assert_allclose(np.ravel(icr), [0.3, 0.3 - 1.96 * 0.02, 0.3 + 1.96 * 0.02])
    np.testing.assert_allclose(np.ravel(auc), [0.6, 0.55, 0.67])


def test_a_check_that_a_witness_was_not_heard_at_is_left_out_of_its_panel():
    """And stays in the others."""
    history = [RUN[0], replace(RUN[1], testimony={**RUN[1].testimony, "gap": None}), *RUN[2:]]
    rise, gap = plot_evidence(history).axes[:2]
    assert drawn(gap)[0].tolist() == [0, 207, 300]
    assert drawn(rise)[0].tolist() == [0, 100, 207, 300]


def test_copies_are_shown_in_front_of_the_alarm():
    """An audit is made when the alarm is raised, so both are at one step; the limits are the audit's."""
    axes = plot_evidence(RUN).axes[-1]
    steps, *values = drawn(axes)
    assert steps.tolist() == [207]
    np.testing.assert_allclose(np.ravel(values), 100 * np.array([AUDIT.fraction, *AUDIT.interval]))
    (alarm,) = [line for line in axes.get_lines() if list(line.get_xdata()) == [207, 207]]
    assert alarm.get_zorder() < min(part.get_zorder() for part in axes.containers[0].get_children())


def test_the_first_alarm_is_marked():
    """At its step, and not at all in a run without one."""
    assert [text.xy[0] for text in plot_evidence(RUN).axes[0].texts] == [207]
    assert not plot_evidence(RUN[:2]).axes[0].texts


def test_limits_that_rounding_puts_beyond_the_value_are_drawn():
    """As of the memorizer itself, whose limits are all 1."""
    said = simulated_testimony(gap=1.0)
    said["gap"]["normalized"] |= {"value_L": [1.0] * 4, "low_L": [1 + 3e-16] * 4, "high_L": [1 - 2e-16] * 4}
    _, value, low, high = drawn(plot_evidence([replace(RUN[1], testimony=said)]).axes[1])
    assert low == value == high == 1.0


def test_a_flat_icr_is_not_stretched():
    """Its panel has no neutral value, and a change in the fifth digit is none."""
    said = simulated_testimony(icr=0.4)
    said["contamination"] |= {"error_K": [1e-6] * 9}
    low, high = plot_evidence([replace(check, testimony=said) for check in RUN]).axes[2].get_ylim()
    assert low < 0.397
    assert high > 0.403


def test_the_steps_of_a_single_check_are_whole():
    """There is no step 0.02."""
    figure = plot_evidence(RUN[:1])
    figure.draw_without_rendering()
    assert all(float(tick).is_integer() for tick in figure.axes[-1].get_xticks())
