"""Lines for checks, and the progress bar."""

import io
import sys
from dataclasses import replace

import pytest
from simulated_checks import AUDIT, RUN, simulated_signal, without_labels

from unimodal_monitor import AlarmState
from unimodal_monitor.alarm.forecast import forecast
from unimodal_monitor.check import forecast_of
from unimodal_monitor.report.console import ConsoleReporter, line, progress_bar
from unimodal_monitor.stats.estimate import Estimate

FIRST, HEALTHY, ALARM = RUN


def test_a_line_has_step_curve_peak_rise_shape_seconds_and_state():
    """Without labels the peak is that of the score."""
    curve = HEALTHY.curve
    words = ["100", curve.sparkline(), f"{100 * curve.peak_accuracy:.1f}", f"{100 * HEALTHY.verdict.rise:+.1f}"]
    words += [HEALTHY.verdict.shape.value, "1.5", "generalizing"]
    assert [word for word in line(HEALTHY).split() if word in words] == words
    assert f"{max(curve.score.mean):.3f}" in line(without_labels(HEALTHY))


def test_only_a_check_that_changes_the_state_is_followed_by_copies_and_evidence():
    """The state before the first check is warming up; every line begins with the name of the monitor."""
    lines = []
    reporter = ConsoleReporter(lines.append, name="raw")
    for history in (RUN[:1], [HEALTHY, HEALTHY], RUN):
        reporter.report(history, {})
    assert lines[:-2] == [f"raw  {line(check)}" for check in RUN]
    assert lines[-2] == f"raw  {AUDIT.sentence()}"
    expected = ("raw  generalizing -> memorizing", "evidence of step 207", ALARM.verdict.reason, ALARM.state.advice)
    assert all(words in lines[-1] for words in expected)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_is_removed_at_the_end_and_after_a_failure(monkeypatch):
    """What follows the last carriage return stays visible."""
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with pytest.raises(RuntimeError), progress_bar("check at step 500", total=64, delay_s=0.0) as advance:
        advance(32)
        assert "check at step 500" in terminal.getvalue().split("\r")[-1]
        raise RuntimeError
    assert terminal.getvalue().split("\r")[-1] == ""
    assert "\n" not in terminal.getvalue()


@pytest.mark.parametrize(("stream", "options"), [(Terminal, {}), (io.StringIO, {"delay_s": 0.0})])
def test_nothing_is_written_of_a_quick_check_or_without_a_terminal(monkeypatch, stream, options):
    monkeypatch.setattr(sys, "stderr", written := stream())
    with progress_bar("check", total=64, **options) as advance:
        advance(64)
    assert written.getvalue() == ""


def test_a_forecast_follows_a_state_that_is_worse_than_generalizing():
    """In steps, where the gap has grown enough since an earlier check."""
    gaps = ((100, AlarmState.GENERALIZING, 0.05), (200, AlarmState.GENERALIZING, 0.12), (300, AlarmState.ONSET, 0.4))
    history = [
        replace(HEALTHY, step=step, state=state, signals=(simulated_signal("normalized_gap", "gap", gap),))
        for step, state, gap in gaps
    ]
    lines = []
    ConsoleReporter(lines.append).report(history, {})
    assert lines[-1].startswith("unimodal  1 % of copies expected between ")
    assert lines[-1].endswith(" steps (rough, from 3 runs); you are at 300")
    lines.clear()
    ConsoleReporter(lines.append).report(history[:2], {})
    assert len(lines) == 1


def test_the_forecast_compares_one_level():
    """The clearest level changes here; at the last one's the gap grew, at the clearest of each check it did not."""
    sigmas, gaps = (0.17, 0.73), ((100, (0.05, 0.3)), (200, (0.2, 0.4)), (300, (0.41, 0.4)))
    history = []
    for step, (first, second) in gaps:
        low, high = (first - 0.01, second - 0.2), (first + 0.1, second + 0.2)
        gap = Estimate("normalized_gap", "gap", sigmas, (first, second), low, high)
        history.append(replace(HEALTHY, step=step, signals=(gap,)))
    assert [check.gap.sigma for check in history] == [0.73, 0.73, 0.17]
    assert forecast_of(history) == forecast([100, 200, 300], [0.05, 0.2, 0.41], lows=[0.04, 0.19, 0.4])
    assert forecast_of(history) is not None
