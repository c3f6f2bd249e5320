"""The command line, and the demo's story."""

from dataclasses import replace

import pytest
from simulated_checks import simulated_check, simulated_signal

import unimodal_monitor
from unimodal_monitor import AlarmState
from unimodal_monitor.check import forecast_of
from unimodal_monitor.cli import main
from unimodal_monitor.report.jsonl import JsonlReporter


def test_an_unknown_command_is_told(capsys):
    """With the usage."""
    with pytest.raises(SystemExit):
        main(["dance"])
    assert "demo" in capsys.readouterr().err


def test_the_version_is_that_of_the_package(capsys):
    """And nothing else is loaded for it."""
    with pytest.raises(SystemExit):
        main(["--version"])
    assert unimodal_monitor.__version__ in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_few_members_raise_the_alarm_and_many_do_not(tmp_path, seed):
    """The first run stops before its limit, the second goes on to it."""
    from unimodal_monitor import demo

    monitors = demo.run_demo(tmp_path, seed=seed)
    few, many = monitors["few"].history, monitors["many"].history
    assert few[-1].state is AlarmState.MEMORIZING
    assert few[-1].step < demo.STEPS
    assert {check.state for check in many[2:]} == {AlarmState.GENERALIZING}  # at the first nothing is compared yet
    assert many[-1].step == demo.STEPS
    assert (monitors["few"].written_to / "history.png").exists()


def test_a_short_run_is_scaled_to_another_number_of_members(tmp_path, capsys):
    """Four times the members, four times the steps; a run without a gap that grows says so."""
    gaps = ((100, 0.05), (200, 0.12), (300, 0.5))
    history = [
        replace(simulated_check(step), signals=(simulated_signal("normalized_gap", "gap", gap),)) for step, gap in gaps
    ]
    for num in range(1, 4):
        JsonlReporter(tmp_path).report(history[:num], {})
    plan = ["plan", "--from", str(tmp_path), "--from-members", "256"]
    own = forecast_of(history)
    assert main([*plan, "--members", "1024"]) == 0
    expected = replace(own, low=4 * own.low, high=4 * own.high, seen=0, expected=4 * own.expected)
    assert expected.sentence("steps") in capsys.readouterr().out
    other = tmp_path / "other"
    JsonlReporter(other).report(history[:1], {})
    with pytest.raises(SystemExit):
        main(["plan", "--from", str(other), "--from-members", "256", "--members", "1024"])
    assert "has no normalized gap over 0.1 that grows" in capsys.readouterr().err
