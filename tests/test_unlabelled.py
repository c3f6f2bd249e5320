"""Data without labels: the invariance of the features takes the place of the probe."""

import csv

import numpy as np
import pytest
import torch
from pytorch_lightning.loggers import CSVLogger
from tiny_job import TinyDenoiser, TinyJob, blobs, tiny_loader, tiny_trainer
from torch import nn

from unimodal_monitor import Alarm, AlarmState, EDMDenoiser, Monitor, ProbeSet, UnimodalMonitor, judge, read_checks
from unimodal_monitor.denoisers.memorizer import Memorizer
from unimodal_monitor.forward.noise import unit_noise
from unimodal_monitor.method import VIEW_OFFSET
from unimodal_monitor.signals.invariance import invariance_values
from unimodal_monitor.signals.views import another_view


def unlabelled():
    return ProbeSet.from_datasets(blobs(96, seed=1)[0], blobs(120, seed=2)[0])


def unlabelled_monitor(network=None, **options):
    torch.manual_seed(0)
    network = EDMDenoiser(TinyDenoiser()) if network is None else network
    return Monitor(network, unlabelled(), **{"layer": "blocks.1", "reporters": (), **options})


class Wide(nn.Module):
    """Forty features of small images, by one convolution."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Sequential(nn.Conv2d(3, 40, 3, padding=1), nn.Tanh())

    def forward(self, noised, sigma):
        return self.layer(noised)[:, :3]


def of_images(network, members, heldout):
    probe_set = ProbeSet.from_datasets(members, heldout)
    return Monitor(EDMDenoiser(network), probe_set, layer="layer", reporters=())


def pictures(num, *, seed, brightness=0.0):
    return torch.randn(num, 3, 6, 6, generator=torch.Generator().manual_seed(seed)) + brightness


def test_the_curve_is_the_invariance_of_the_features():
    """Of the judged layer, over the held-out images; there is no accuracy."""
    check = unlabelled_monitor().check(1)
    assert check.curve.accuracy is None
    assert check.curve.score.name == "invariance (1 - ICR)"
    assert [(curve.layer, curve.num_images) for curve in check.curves] == [("blocks.1", 120)]
    assert check.curve.score.mean == pytest.approx(check.signal("invariance").value)
    assert check.verdict == judge(check.curve)
    assert check.num_forwards == 9 * (120 + 96 + 120)


def test_the_views_are_the_image_and_an_augmentation_in_as_many_directions_as_the_images_allow():
    """80 images of 40 features, noised by hand: 20 directions."""
    network, heldout = Wide(), pictures(80, seed=0)
    found = of_images(network, pictures(80, seed=1), heldout).check(1)
    views, offsets, features = (heldout, another_view(heldout, seed=0, indices=range(80))), (0, VIEW_OFFSET), []
    for view, offset in zip(views, offsets, strict=True):
        noise = unit_noise(range(offset, offset + 80), (3, 6, 6), seed=0)
        with torch.no_grad():
            features.append(torch.stack([network.layer(view + s * noise).mean((2, 3)) for s in found.curve.sigmas]))
    values_KN, _, num_directions = invariance_values(*features)
    assert found.measured.num_directions == num_directions == 20
    np.testing.assert_allclose(found.signal("invariance").value, values_KN.mean(1), atol=1e-4)


def test_the_alarm_is_the_one_of_labelled_images():
    """A memorizer raises it, though nothing can grow in it."""
    monitor = of_images(Wide(), pictures(96, seed=1), pictures(120, seed=2))
    assert monitor.alarm == unlabelled_monitor().alarm == Alarm()
    states = [monitor.check(step).state for step in (10, 20)]
    assert states == [AlarmState.WARMING_UP, AlarmState.GENERALIZING]
    assert "did not grow" in monitor.history[-1].evidence
    assert "the denoising gap is" in monitor.history[-1].evidence
    memorizer = unlabelled_monitor(Memorizer(unlabelled().members.images), layer="recalled")
    assert [memorizer.check(step).state.value for step in (10, 20)] == ["warming up", "memorizing"]
    assert "significantly over 50%" in memorizer.history[-1].evidence


@pytest.mark.parametrize(
    ("num_members", "brightness", "reason"),
    [
        (96, 0.0, None),
        (6, 0.0, "memorization cannot be found"),
        (96, 1.0, "held-out images are brighter"),
    ],
)
def test_what_cannot_be_compared_is_told_at_the_start(num_members, brightness, reason):
    monitor = of_images(Wide(), pictures(num_members, seed=1), pictures(120, seed=2, brightness=brightness))
    line = monitor.start()
    assert "no labels: two views of 120 held-out images" in line
    reasons = ("memorization cannot be found", "held-out images are brighter")
    assert [each for each in reasons if each in line] == ([] if reason is None else [reason])


def test_too_few_images_are_refused_before_the_first_check():
    """Without two views of enough of them there would be no curve at all."""
    probe_set = ProbeSet.from_datasets(blobs(96, seed=1)[0], blobs(6, seed=2)[0])
    with pytest.raises(ValueError, match="without labels .* need at least 8 images, got 6"):
        Monitor(EDMDenoiser(TinyDenoiser()), probe_set)


def test_a_fit_writes_logs_and_resumes(tmp_path):
    """checks.jsonl, scalars without an accuracy, and a checkpoint that goes on."""
    torch.manual_seed(0)
    monitor, logger = UnimodalMonitor(unlabelled(), every_n_train_steps=5), CSVLogger(tmp_path)
    trainer = tiny_trainer(tmp_path, callbacks=[monitor], logger=logger, max_steps=6)
    trainer.fit(TinyJob(), tiny_loader())
    logger.finalize("success")
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    assert read_checks(monitor.written_to) == monitor.history
    with (tmp_path / "lightning_logs/version_0/metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["unimodal/rise"]]
    assert [int(row["step"]) for row in rows] == [0, 5]
    invariance = monitor.history[-1].signal("invariance").headline.value
    assert float(rows[-1]["unimodal/invariance"]) == pytest.approx(invariance)
    assert "unimodal/peak_accuracy" not in trainer.callback_metrics
    second = UnimodalMonitor(unlabelled(), every_n_train_steps=5)
    tiny_trainer(tmp_path, callbacks=[second], max_steps=11).fit(
        TinyJob(), tiny_loader(), ckpt_path=tmp_path / "run.ckpt"
    )
    assert [check.step for check in second.history] == [0, 5, 10]
