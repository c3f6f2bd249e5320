"""Monitor in a plain training loop: when it checks, what it survives, audits, saved state."""

import json
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from scripted import scripted_alarm
from tiny_job import WIDTH, TinyDenoiser, blobs, tiny_probe_set
from torch import nn

from unimodal_monitor import AlarmState, EDMDenoiser, Monitor, ProbeSet, RidgeProbe, read_checks
from unimodal_monitor.denoisers.memorizer import Memorizer
from unimodal_monitor.signals import Estimate
from unimodal_monitor.signals.invariance import invariance


class Constant(nn.Module):
    """Answers with one image, whatever it is given, and so samples nothing else."""

    def __init__(self):
        super().__init__()
        self.image = nn.Parameter(torch.zeros(WIDTH))
        self.layer = nn.Identity()

    def forward(self, noised, sigma):
        return self.image.expand(len(noised), WIDTH) + 0 * self.layer(noised)


class Recorder:
    """A reporter that keeps what it is given."""

    def __init__(self):
        self.states, self.figures = [], []

    def report(self, history, figures):
        self.states.append(history[-1].state)
        self.figures.append(figures["curve"])


def tiny_monitor(network=None, *, probe_set=None, **options):
    torch.manual_seed(0)
    network = EDMDenoiser(TinyDenoiser()) if network is None else network
    options = {"layer": "blocks.1", "reporters": (), **options}
    return Monitor(network, tiny_probe_set() if probe_set is None else probe_set, **options)


def run(monitor, num_steps):
    return [check.step for step in range(num_steps + 1) if (check := monitor.step(step)) is not None]


def test_a_plain_loop_gets_checks_alarm_audit_files_and_the_order_to_stop(tmp_path):
    """All that a Lightning job gets; figures are drawn once for all reporters."""
    one, other = Recorder(), Recorder()
    monitor = tiny_monitor(
        every_n_train_steps=5, on_alarm="stop", alarm=scripted_alarm(5, 10), dirpath=tmp_path, reporters=[one, other]
    )
    with pytest.warns(UserWarning, match="samples are copies.*The training stops"):
        assert run(monitor, 12) == [0, 5, 10]
    assert monitor.should_stop
    assert one.states == other.states == [AlarmState.WARMING_UP, AlarmState.GENERALIZING, AlarmState.MEMORIZING]
    assert all(first is second for first, second in zip(one.figures, other.figures, strict=True))
    assert read_checks(tmp_path) == monitor.history
    assert monitor.history[-1].audit.num_samples == 300


def test_any_callable_with_its_network_is_a_denoiser():
    """The same numbers as through an adapter of the package."""
    torch.manual_seed(0)
    network = TinyDenoiser()
    plain = tiny_monitor(lambda noised, sigma: network(noised, sigma), net=network).check(0)
    adapted = tiny_monitor(EDMDenoiser(network)).check(0)
    assert plain.curve == adapted.curve


def test_a_scikit_learn_classifier_is_a_probe():
    """One that knows nothing has a flat curve."""
    from sklearn.dummy import DummyClassifier

    check = tiny_monitor(probe=DummyClassifier(strategy="prior")).check(0)
    assert check.curve.score.mean == pytest.approx([0.0] * 9, abs=1e-6)


def test_the_alarm_warns_once_by_default():
    """At the check that raised it; it stays raised."""
    monitor = tiny_monitor(every_n_train_steps=1, alarm=scripted_alarm(1, 2, 3), copy_audit=None)
    with pytest.warns(UserWarning, match="at 2 checks in a row") as caught:
        run(monitor, 4)
    assert len(caught) == 1
    assert not monitor.should_stop


def test_after_three_failures_in_a_row_no_more_checks_are_made():
    """Each is a warning with its cause."""

    class Broken(RidgeProbe):
        calls = 0

        def fit(self, collected):
            self.calls += 1
            raise RuntimeError("broken probe")

    probe = Broken()
    monitor = tiny_monitor(every_n_train_steps=1, probe=probe)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert run(monitor, 5) == []
    assert probe.calls == len(caught) == 3
    assert all("broken probe" in str(warning.message) for warning in caught)
    assert "no further checks are made" in str(caught[-1].message)


def test_the_alarm_calls_a_function_with_the_check_once():
    """At the check that raised it."""
    calls = []
    monitor = tiny_monitor(every_n_train_steps=1, on_alarm=calls.append, alarm=scripted_alarm(1, 2, 3), copy_audit=None)
    run(monitor, 4)
    assert calls == [monitor.history[2]]
    assert not monitor.should_stop


def test_what_fails_after_a_check_is_a_warning_and_costs_nothing_else(tmp_path):
    """A reporter, the function on the alarm, the audit: the check stands."""

    class Offline(Recorder):
        def report(self, history, figures):
            raise ConnectionError("no network")

    def explode(check):
        raise RuntimeError("mail server down")

    class NoSamples(TinyDenoiser):
        def forward(self, noised, sigma):
            if len(noised) == 300 // 5:
                raise RuntimeError("out of memory")
            return super().forward(noised, sigma)

    recorder = Recorder()
    (tmp_path / "file").touch()
    monitor = tiny_monitor(
        EDMDenoiser(NoSamples()), dirpath=tmp_path / "file/run", every_n_train_steps=1, on_alarm=explode,
        alarm=scripted_alarm(1, 2), reporters=[Offline(), recorder], batch_size=60,
    )  # fmt: skip
    with pytest.warns(UserWarning, match="failed") as caught:
        assert run(monitor, 2) == [0, 1, 2]
    messages = " ".join(str(warning.message) for warning in caught)
    for words in (
        "Not a directory",
        "no network",
        "mail server down",
        "the copy audit failed at step 2",
        "out of memory",
    ):
        assert words in messages
    assert [check.audit for check in monitor.history] == [None, None, None]
    assert len(recorder.states) == 3


def test_a_failed_check_changes_neither_history_nor_alarm():
    """The next one goes on from the one before."""

    class Flaky(RidgeProbe):
        calls = 0

        def fit(self, collected):
            self.calls += 1
            if self.calls == 2:
                raise RuntimeError("broken probe")
            return super().fit(collected)

    monitor = tiny_monitor(every_n_train_steps=1, probe=Flaky(), alarm=scripted_alarm(3, 4))
    with pytest.warns(UserWarning, match="broken probe"):
        run(monitor, 2)
    assert [(check.step, check.state.value) for check in monitor.history] == [(0, "warming up"), (2, "generalizing")]


@pytest.mark.parametrize(
    ("result", "reason"),
    [(lambda: 1 / 0, "division"), (lambda: 3, "got int"), (lambda: Estimate("n", "n", [1], *3 * [[np.nan]]), "finite")],
)
def test_a_signal_that_fails_is_missing_with_its_reason(result, reason):
    """The check stands, and so do other signals."""

    def broken(measured):
        return result()

    monitor = tiny_monitor(signals=[invariance, broken, lambda measured: invariance(measured)], every_n_train_steps=1)
    with pytest.warns(UserWarning, match="at step 0: ") as warned:
        run(monitor, 1)
    assert sum(reason in str(warning.message) for warning in warned) == 1
    for check in monitor.history:
        assert [signal.name for signal in check.signals] == ["invariance"]
        assert reason in check.missing["broken"]
        assert check.missing["<lambda>"] == "two signals are called 'invariance'"


def test_a_state_saved_as_json_goes_on_as_if_nothing_had_happened():
    """The next check is the same on both sides."""
    first, second = tiny_monitor(), tiny_monitor()
    first.check(10)
    second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
    assert second.history == first.history
    assert json.dumps(second.state_dict()) == json.dumps(first.state_dict())
    found = [monitor.check(20) for monitor in (first, second)]
    assert found[0].curve == found[1].curve
    assert found[0].evidence == found[1].evidence


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"layer": "blocks.2"}, "layers"),
        ({"seed": 1}, "seed"),
        ({"probe": RidgeProbe(0.1)}, "probe"),
        ({"probe_set": ProbeSet.from_datasets(blobs(96, seed=1), blobs(300, seed=3))}, "images"),
        ({"sigmas": [0.1, 0.2, 0.4, 0.8]}, "sigmas"),
        ({"alarm": scripted_alarm(3)}, "rules"),
        ({"probe_set": ProbeSet.from_datasets(blobs(96, seed=1), blobs(270, seed=2))}, "num_heldout"),
        ({"probe_set": ProbeSet.from_datasets(blobs(20, seed=1), blobs(300, seed=2))}, "num_pairs"),
    ],
)
def test_a_state_measured_otherwise_is_refused_by_the_name_of_the_difference(options, difference):
    """Its checks would not compare; nothing is taken over."""
    first, second = tiny_monitor(), tiny_monitor(**options)
    first.check(1)
    with pytest.raises(ValueError, match=f"{difference} was .* and is now"):
        second.load_state_dict(first.state_dict())
    assert second.history == []


def test_a_state_of_another_schema_is_refused():
    """With a sentence about versions, not a KeyError."""
    with pytest.raises(ValueError, match="schema None"):
        tiny_monitor().load_state_dict({"history": [], "glances": []})


def test_a_resumed_run_keeps_its_own_folder_beside_that_of_another_run(tmp_path):
    """Both were started with one `dirpath`."""
    runs = [tiny_monitor(every_n_train_steps=1, dirpath=tmp_path / "run") for _ in range(2)]
    assert [run(monitor, num_steps) for monitor, num_steps in zip(runs, (0, 1), strict=True)] == [[0], [0, 1]]
    resumed = tiny_monitor(every_n_train_steps=1, dirpath=tmp_path / "run")
    resumed.load_state_dict(runs[1].state_dict())
    assert run(resumed, 2) == [2]
    assert [len(read_checks(tmp_path / name)) for name in ("run", "run_2")] == [1, 3]


def test_signals_may_be_turned_off_and_on_in_a_run():
    """The rules that need them wait meanwhile."""
    state = tiny_monitor().state_dict()
    for signals in (None, (), None):
        monitor = tiny_monitor(signals=signals)
        monitor.load_state_dict(state)
        monitor.check(len(monitor.history) + 1)
        state = monitor.state_dict()
    assert [bool(check.signals) for check in monitor.history] == [True, False, True]


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


def test_samples_are_compared_with_the_members():
    """A memorizer of them makes copies alone, one of the held-out images makes none."""
    probe_set = tiny_probe_set()
    for images, fraction in ((probe_set.members.images, 1.0), (probe_set.heldout.images, 0.0)):
        monitor = tiny_monitor(Memorizer(images), probe_set=probe_set, layer="recalled")
        assert monitor.audit(num_samples=30).fraction == fraction


def test_averaged_weights_are_audited():
    """The raw ones know no image, the averaged ones member 7."""
    probe_set, module = tiny_probe_set(), Constant()
    averaged = {"image": probe_set.members.images[7]}
    for weights, num_copies in ((lambda: averaged, 10), (None, 0)):
        monitor = tiny_monitor(EDMDenoiser(module, weights=weights), probe_set=probe_set, layer="layer")
        audit = monitor.audit(num_samples=10)
        assert audit.num_copies == num_copies
        assert {pair.training for pair in audit.pairs if pair.is_copy} == ({7} if num_copies else set())
    assert not module.image.any()


def test_the_precision_is_around_the_calls_of_the_network():
    """Of checks and audits; it is left again."""
    inside, seen = [], []

    @contextmanager
    def precision():
        inside.append(True)
        yield
        inside.clear()

    network = TinyDenoiser()
    network.register_forward_pre_hook(lambda *_: seen.append(bool(inside)))
    monitor = tiny_monitor(EDMDenoiser(network), precision=precision)
    monitor.check(0)
    monitor.audit(num_samples=2)
    assert len(seen) > 35
    assert all(seen)
    assert not inside


def test_the_start_finds_a_layer_that_is_never_called():
    """Before the training, not at the first check."""

    class Silent(TinyDenoiser):
        def __init__(self):
            super().__init__()
            self.unused = nn.Linear(2, 2)

    monitor = tiny_monitor(EDMDenoiser(Silent()), layer="unused")
    with pytest.raises(ValueError, match="never called unused"):
        monitor.start()
