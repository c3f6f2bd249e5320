"""A monitor of data without labels: the cleanliness of the features takes the place of the probe."""

import csv
import json

import numpy as np
import pytest
import torch
from pytorch_lightning.loggers import CSVLogger
from tiny_job import TinyDenoiser, TinyJob, blobs, tiny_loader, tiny_trainer

from unimodal_monitor import UnimodalMonitor, read_checks
from unimodal_monitor.alarm.alarm import Alarm, AlarmState
from unimodal_monitor.data.image_set import ImageSet
from unimodal_monitor.data.probe_set import ProbeSet
from unimodal_monitor.denoisers import EDMDenoiser, Network
from unimodal_monitor.denoisers.memorizer import Memorizer
from unimodal_monitor.forward.hooks import capture
from unimodal_monitor.forward.noise import unit_noise
from unimodal_monitor.forwards import Forwards
from unimodal_monitor.monitor import Monitor
from unimodal_monitor.report.console import line
from unimodal_monitor.report.figures import FigureReporter
from unimodal_monitor.report.plot import plot_curve, plot_history
from unimodal_monitor.signals.invariance import Contamination
from unimodal_monitor.signals.views import another_view
from unimodal_monitor.stats.verdict import judge
from unimodal_monitor.witnesses import IMAGES_PER_DIRECTION, SECOND_VIEW

LAYERS = ["blocks.0", "blocks.1"]


def unlabelled():
    return ProbeSet.from_datasets(blobs(96, seed=1)[0], blobs(120, seed=2)[0])


def unlabelled_monitor(**options):
    torch.manual_seed(0)
    return Monitor(EDMDenoiser(Network(TinyDenoiser())), unlabelled(), layers=LAYERS, **options)


class Halves(torch.nn.Module):
    """A network for what has any shape."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Identity()

    def forward(self, noised, sigma):
        return self.layer(noised) / 2


def pictures(num, *, seed, brightness=0.0):
    return torch.randn(num, 3, 2, 2, generator=torch.Generator().manual_seed(seed)) + brightness


def cleanliness(monitor):
    """1 - ICR of the judged layer, from the two noises of every held-out image: vectors have no other views."""
    network, images = monitor.denoiser.network.eval(), monitor.probe_set.heldout.images
    signal, rows = Contamination(9, images_per_direction=IMAGES_PER_DIRECTION), torch.arange(len(images))
    for is_second in (False, True):
        with torch.no_grad(), capture({"layer": network.blocks[1]}) as captured:
            options = {"device": torch.device("cpu"), "batch_size": 10_000}
            forwards = Forwards(monitor.denoiser, captured, monitor.noising, **options)
            (batch,) = forwards.batches(ImageSet(images), rows, numbers=rows + SECOND_VIEW * is_second)
            signal.update(batch.features["layer"], rows, is_second=is_second)
    network.train()
    return 1 - signal.compute().icr_K


def test_the_curve_is_the_cleanliness_of_the_features():
    """Of the judged layer, over the held-out images; there is no accuracy to speak of."""
    monitor = unlabelled_monitor()
    check = monitor.check(1)
    assert check.curve.accuracy is None
    assert check.curve.peak_accuracy is None
    assert check.curve.score.name == "cleanliness (1 - ICR)"
    assert [(curve.layer, curve.num_images) for curve in check.curves] == [("blocks.1", 120)]
    np.testing.assert_allclose(check.curve.score.mean, cleanliness(monitor), atol=1e-4)
    assert check.verdict == judge(check.curve)
    assert check.verdict.quantity == "cleanliness (1 - ICR)"


def of_pictures(members, heldout, **options):
    network = EDMDenoiser(Network(Halves()))
    return Monitor(network, ProbeSet.from_datasets(members, heldout), layers=["layer"], **options)


def test_the_alarm_of_images_waits_for_the_cleanliness_and_the_gap():
    """Unless the user gives one; it is armed at the first check, for no hump is waited for."""
    monitor = of_pictures(pictures(96, seed=1), pictures(120, seed=2))
    assert monitor.alarm == Alarm.without_labels()
    assert unlabelled_monitor(alarm=Alarm()).alarm == Alarm()
    check = monitor.check(10)
    assert check.state is AlarmState.ARMED
    assert "the cleanliness of the features stands at 100% of its best" in check.evidence
    assert "the denoising gap is" in check.evidence


def test_the_alarm_of_vectors_waits_for_the_gap_alone():
    """Their views differ by noise alone, and the cleanliness of those does not fall."""
    monitor = unlabelled_monitor()
    assert monitor.alarm == Alarm.without_labels(are_images=False)
    check = monitor.check(10)
    assert check.state is AlarmState.ARMED
    assert check.evidence.startswith("the denoising gap is")
    probe_set = monitor.probe_set
    memorizer = Monitor(Memorizer(probe_set.members.images), probe_set, layers=["recalled"])
    assert [memorizer.check(step).state.value for step in (10, 20)] == ["fading", "raised"]
    assert "surely more than 10%" in memorizer.history[-1].evidence


class Wide(torch.nn.Module):
    """Forty features of small images, by one convolution."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Sequential(torch.nn.Conv2d(3, 40, 3, padding=1), torch.nn.Tanh())

    def forward(self, noised, sigma):
        return self.layer(noised)[:, :3]


def test_the_views_of_images_are_as_they_are_and_augmented_in_as_many_directions_as_they_allow():
    """80 images of 40 features, noised by hand: 20 directions."""
    generator = torch.Generator().manual_seed(0)
    members, heldout = torch.randn(2, 80, 3, 6, 6, generator=generator).sub(0.01)
    network = Wide()
    monitor = Monitor(EDMDenoiser(Network(network)), ProbeSet.from_datasets(members, heldout), layers=["layer"])
    found, rows = monitor.check(1), torch.arange(80)
    heldout = monitor.probe_set.heldout.images
    signal = Contamination(9, images_per_direction=4)
    views = heldout, another_view(heldout, seed=0, indices=rows.tolist())
    for is_second, view in enumerate(views):
        noise = unit_noise((rows + SECOND_VIEW * is_second).tolist(), (3, 6, 6), draw=0, seed=0)
        with torch.no_grad():
            features = [network.layer(view + sigma * noise).mean((2, 3)) for sigma in monitor.noising.sigmas.float()]
        signal.update(torch.stack(features), rows, is_second=bool(is_second))
    expected = signal.compute()
    assert expected.num_directions == found.testimony["contamination"]["num_directions"] == 20
    np.testing.assert_allclose(found.testimony["contamination"]["icr_K"], expected.icr_K, atol=1e-4)


def test_a_rise_of_the_cleanliness_may_be_watched_all_the_same(monkeypatch):
    """Scripted cleanliness, through the checks of a real monitor with the alarm of a probe."""
    heights = iter([0.9, 0.9, 0.3, 0.3])

    def scripted(self):
        found = original(self)
        height, generator = next(heights), torch.Generator().manual_seed(0)
        values_KN = 0.3 + 0.02 * torch.randn(9, 120, generator=generator, dtype=torch.float64)
        values_KN[3:6] += height - 0.3
        values_KN[-1] -= 0.2
        return type(found)(1 - values_KN.mean(1), found.error_K, values_KN, 12, 12)

    original = Contamination.compute
    monkeypatch.setattr(Contamination, "compute", scripted)
    monitor = unlabelled_monitor(alarm=Alarm())
    assert [monitor.check(step).state.value for step in range(10, 50, 10)] == ["armed", "armed", "fading", "raised"]
    assert "the rise was" in monitor.history[-1].evidence


def test_the_witnesses_are_heard_even_where_they_were_not_asked_for():
    """They are all there is."""
    assert unlabelled_monitor(witnesses=False).check(1).testimony == unlabelled_monitor().check(1).testimony


def test_further_noises_change_nothing_and_cost_nothing():
    """They are for the probe."""
    once, twice = unlabelled_monitor(), unlabelled_monitor(num_draws=2)
    assert once.check(1).curve == twice.check(1).curve
    assert once.num_forwards == twice.num_forwards == 9 * (120 + 96 + 120)


def test_a_run_goes_on_from_its_state():
    """Saved as JSON between two checks, the next one is the same."""
    first, second = unlabelled_monitor(), unlabelled_monitor()
    first.check(10)
    second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
    assert second.history == first.history
    assert second.state_dict() == first.state_dict()
    found = [monitor.check(20) for monitor in (first, second)]
    assert found[0].curve == found[1].curve
    assert found[0].evidence == found[1].evidence


@pytest.mark.parametrize("is_labelled", [True, False])
def test_a_history_of_other_images_is_refused(is_labelled):
    """Of a probe, and of another number of held-out images."""
    torch.manual_seed(0)
    roles = blobs(96, seed=1), blobs(120 if is_labelled else 90, seed=2)
    probe_set = ProbeSet.from_datasets(*(role if is_labelled else role[0] for role in roles))
    other = Monitor(EDMDenoiser(Network(TinyDenoiser())), probe_set, layers=LAYERS)
    other.check(10)
    with pytest.raises(ValueError, match="this monitor measures"):
        unlabelled_monitor().load_state_dict(other.state_dict())


def test_what_is_measured_is_told_without_a_probe():
    """The description names members and held-out images."""
    told = unlabelled_monitor().describe()
    assert "probe" not in told
    assert "no labels: two views of 120 held-out images, and 96 members against as many held-out images" in told
    assert "blocks.1 (judged)" in told


@pytest.mark.parametrize(
    ("num_members", "brightness", "reason"),
    [(96, 0.0, None), (6, 0.0, "6 images are too few"), (96, 1.0, "held-out images are brighter")],
)
def test_an_alarm_that_cannot_be_raised_is_told_at_the_start(num_members, brightness, reason):
    """Rather than armed for ever."""
    told = of_pictures(pictures(num_members, seed=1), pictures(120, seed=2, brightness=brightness)).describe()
    assert ("cannot be raised" in told) is (reason is not None)
    assert reason is None or f"without a gap to trust: {reason}" in told


def test_too_few_images_are_told_before_the_first_check():
    """Without two views of enough of them there would be no curve at all."""
    probe_set = ProbeSet.from_datasets(blobs(96, seed=1)[0], blobs(6, seed=2)[0])
    with pytest.raises(ValueError, match="without labels .* 6 images are too few; 8 would do"):
        Monitor(EDMDenoiser(Network(TinyDenoiser())), probe_set, layers=LAYERS)


def test_views_that_cannot_differ_are_told_before_the_first_check():
    """Vectors without noise; images have augmentations all the same."""
    with pytest.raises(ValueError, match="two views by noise alone, which noised_input=False takes away"):
        unlabelled_monitor(noised_input=False)


def test_the_console_line_tells_the_cleanliness():
    """In place of the accuracy."""
    check = unlabelled_monitor().check(10)
    assert f"clean {max(check.curve.score.mean):8.3f}" in line(check)
    assert "accuracy" not in line(check)


def leave_figures_out(patch):
    """They take most of a tiny check's time."""
    patch.setattr(FigureReporter, "report", lambda self, history: None)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A fit with a check at 0, 5 and 10, and its checkpoint."""
    folder = tmp_path_factory.mktemp("unlabelled")
    torch.manual_seed(0)
    monitor = UnimodalMonitor(unlabelled(), every_n_steps=5, audit=2)
    logger = CSVLogger(folder)
    trainer = tiny_trainer(folder, callbacks=[monitor], logger=logger, max_steps=11)
    with pytest.MonkeyPatch.context() as patch:
        leave_figures_out(patch)
        trainer.fit(TinyJob(), tiny_loader())
    logger.finalize("success")
    trainer.save_checkpoint(folder / "run.ckpt")
    return folder, monitor, trainer


def test_a_fit_writes_its_checks(fitted):
    """checks.jsonl gives back the history; there are no outcomes of a probe."""
    _, monitor, _ = fitted
    assert [check.step for check in monitor.history] == [0, 5, 10]
    assert [check.audit is not None for check in monitor.history] == [False, True, False]
    assert all(check.curve.accuracy is None for check in monitor.history)
    assert read_checks(monitor.written_to) == monitor.history
    assert not (monitor.written_to / "outcomes").exists()


def test_its_figures_are_drawn(fitted, tmp_path):
    """Of the cleanliness, and of all witnesses."""
    FigureReporter(tmp_path).report(fitted[1].history)
    assert {path.name for path in tmp_path.iterdir()} == {"curve.png", "history.png", "evidence.png"}
    assert [axes.get_ylabel() for axes in plot_curve(fitted[1].history[-1]).axes] == ["cleanliness (1 - ICR)"]
    heat, _, peak, _ = plot_history(fitted[1].history).axes
    assert heat.get_title(loc="left") == "Where the features are cleanest, over the training"
    assert peak.get_ylabel() == "peak cleanliness"


def test_a_fit_logs_what_it_knows(fitted):
    """The rise and the witnesses, and no accuracy."""
    folder, monitor, trainer = fitted
    with (folder / "lightning_logs/version_0/metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["unimodal/rise"]]
    assert [int(row["step"]) for row in rows] == [0, 5, 10]
    assert float(rows[-1]["unimodal/icr"]) == pytest.approx(1 - max(monitor.history[-1].curve.score.mean))
    assert "unimodal/peak_accuracy" not in trainer.callback_metrics
    assert float(trainer.callback_metrics["unimodal/rise"]) == pytest.approx(monitor.history[-1].verdict.rise)


def test_a_fit_is_resumed(fitted, monkeypatch):
    """From its checkpoint, with its history."""
    leave_figures_out(monkeypatch)
    folder, first, _ = fitted
    second = UnimodalMonitor(unlabelled(), every_n_steps=5)
    trainer = tiny_trainer(folder, callbacks=[second], max_steps=16)
    trainer.fit(TinyJob(), tiny_loader(), ckpt_path=folder / "run.ckpt")
    assert [check.step for check in second.history] == [0, 5, 10, 15]
    assert second.history[:3] == first.history


def test_a_check_that_fails_is_left_out_and_the_fit_goes_on(tmp_path, monkeypatch):
    """The monitor goes back to where it was before."""

    def broken(self):
        calls.append(self)
        if len(calls) == 2:
            raise RuntimeError("broken witness")
        return original(self)

    calls, original = [], Contamination.compute
    monkeypatch.setattr(Contamination, "compute", broken)
    leave_figures_out(monkeypatch)
    monitor = UnimodalMonitor(unlabelled(), every_n_steps=5, audit=None)
    with pytest.warns(UserWarning, match="broken witness"):
        tiny_trainer(tmp_path, callbacks=[monitor], max_steps=11).fit(TinyJob(), tiny_loader())
    assert [check.step for check in monitor.history] == [0, 10]
