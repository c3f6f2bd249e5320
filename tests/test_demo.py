"""The command line, and the demo's story."""

import pytest

import unimodal_monitor
from unimodal_monitor import AlarmState
from unimodal_monitor.cli import main


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
