"""The demo's data and its story."""

import pytest
import torch

from unimodal_monitor import AlarmState
from unimodal_monitor.cli import main
from unimodal_monitor.theory.molrg import MoLRG


def test_a_class_varies_in_its_own_subspace():
    """Standard deviation 1 in its directions, delta in the others'."""
    data = MoLRG()
    samples, labels = data.sample(20_000, seed=1)
    coefficients = samples[labels == 1] @ data.basis()
    expected = torch.tensor([0.3] * 5 + [1.0] * 5 + [0.3] * 5)
    torch.testing.assert_close(coefficients.std(0), expected, rtol=0.05, atol=0)
    assert samples.std().item() == pytest.approx(data.std, rel=0.02)


def test_samples_are_a_function_of_the_seed():
    """Members and held-out samples come from other seeds."""
    data = MoLRG()
    assert torch.equal(data.sample(5, seed=3)[0], data.sample(5, seed=3)[0])
    assert not torch.equal(data.sample(5, seed=3)[0], data.sample(5, seed=4)[0])


def test_an_unknown_command_is_told(capsys):
    """With the usage."""
    with pytest.raises(SystemExit):
        main(["dance"])
    assert "demo" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_few_members_raise_the_alarm_and_many_do_not(tmp_path, seed):
    """The first run stops before its limit, the second ends armed."""
    from unimodal_monitor import demo

    monitors = demo.run_demo(tmp_path, seed=seed)
    few, many = monitors["few"].history, monitors["many"].history
    assert few[-1].state is AlarmState.RAISED
    assert few[-1].step < demo.STEPS
    assert {check.state for check in many[1:]} == {AlarmState.ARMED}
    assert many[-1].step == demo.STEPS
    assert (monitors["few"].written_to / "history.png").exists()
