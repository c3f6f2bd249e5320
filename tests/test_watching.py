"""The callback watches the first training steps: what it says, and what follows when they disagree."""

import pytest
import torch
from diffusers_jobs import unet
from tiny_job import TinyJob, tiny_loader, tiny_probe_set, tiny_trainer
from torch.utils.data import DataLoader, TensorDataset

from unimodal_monitor import EDMDenoiser, Monitor, UnimodalMonitor, plot_curve


class InnerJob(TinyJob):
    """The preconditioning stands in the step: the network is not a denoiser, although it takes `sigma`."""

    def training_step(self, batch, batch_idx):
        images, _ = batch
        sigma = torch.randn(len(images)).exp()
        s = sigma[:, None]
        noised, root = images + s * torch.randn_like(images), (s**2 + 0.25).sqrt()
        output = self.net(noised / root, sigma.log() / 4)
        return (0.25 / root**2 * noised + 0.5 * s / root * output - images).square().mean()


class OddJob(TinyJob):
    """A loss that no target explains."""

    def training_step(self, batch, batch_idx):
        images, _ = batch
        sigma = torch.randn(len(images)).exp()
        return self.net(images + sigma[:, None] * torch.randn_like(images), sigma).tanh().sum(1).mean()


def fit(folder, job, **options):
    monitor = UnimodalMonitor(tiny_probe_set(), every_n_train_steps=10, **options)
    trainer = tiny_trainer(folder, callbacks=[monitor], max_steps=12)
    trainer.fit(job, tiny_loader())
    return monitor


def test_job_that_trains_what_was_found_is_confirmed(tmp_path, capsys):
    """On the steps after the optimizer's first; then nothing is recorded any more."""
    monitor = fit(tmp_path, TinyJob())
    line = (
        "watching net (TinyDenoiser, 540 trainable), weights ema (ema), EDM, times sigma, images [-4, 3.6];"
        " confirmed on 3 training steps"
    )
    assert line in capsys.readouterr().out
    assert monitor.history[-1].signal("denoising_gap") is not None


def test_what_was_found_wrongly_is_replaced_by_what_the_steps_agree_with(tmp_path, capsys):
    """The first check was measured with the wrong one, and is dropped."""
    monitor = fit(tmp_path, InnerJob())
    out = capsys.readouterr().out
    assert "edm, images [-4, 3.6]; settled" in out
    assert "schedule='edm:inner' agrees with them" in out
    assert [check.step for check in monitor.history] == [4, 10]


def test_run_that_goes_on_keeps_the_schedule_that_was_settled_and_its_history(tmp_path, capsys):
    """The saved state has the schedule; the resumed run is confirmed with it, and goes on from its checks."""
    path = tmp_path / "last.ckpt"
    monitor = UnimodalMonitor(tiny_probe_set(), every_n_train_steps=10)
    trainer = tiny_trainer(tmp_path, callbacks=[monitor], max_steps=12)
    trainer.fit(InnerJob(), tiny_loader())
    trainer.save_checkpoint(path)
    capsys.readouterr()

    resumed = UnimodalMonitor(tiny_probe_set(), every_n_train_steps=10)
    tiny_trainer(tmp_path, callbacks=[resumed], max_steps=22).fit(InnerJob(), tiny_loader(), ckpt_path=path)
    assert "edm, images [-4, 3.6]; confirmed on 3 training steps" in capsys.readouterr().out
    assert [check.step for check in resumed.history] == [4, 10, 20]

    tiny_trainer(tmp_path / "new", callbacks=[resumed], max_steps=12).fit(TinyJob(), tiny_loader())
    assert "EDM, times sigma, images [-4, 3.6]; confirmed" in capsys.readouterr().out  # another job is looked at anew


@pytest.mark.filterwarnings("ignore:unimodal. .* was not measured")
def test_unverified_state_is_shown_without_any_signal(tmp_path):
    check = fit(tmp_path, OddJob(), signals=()).history[-1]
    assert check.caution.startswith("not verified (the loss")


def test_what_was_given_wrongly_stops_the_run(tmp_path):
    with pytest.raises(ValueError, match="^unimodal_monitor: schedule: .* schedule='edm:inner' agrees with them"):
        fit(tmp_path, InnerJob(), schedule="edm")


@pytest.mark.filterwarnings("ignore:unimodal. .* was not measured")
def test_what_cannot_be_verified_gives_no_gap(tmp_path, capsys):
    """A denoiser of the user's own is his word for it."""
    check = fit(tmp_path, OddJob()).history[-1]
    out = capsys.readouterr().out
    assert "EDM, times sigma, images [-4, 3.6]; not verified (the loss is no squared error" in out
    assert out.rstrip().endswith("  not verified")
    assert "not verified (the loss" in plot_curve(check).get_suptitle()
    assert check.signal("denoising_gap") is None
    assert check.missing["denoising_gap"].startswith("not verified (the loss")
    given = fit(tmp_path / "given", OddJob(), denoiser=lambda job: EDMDenoiser(job.net))
    assert "EDM, times sigma, images [-4, 3.6]; as given, not verified" in capsys.readouterr().out
    assert given.history[-1].signal("denoising_gap") is not None


def test_fit_too_short_to_tell_says_so(tmp_path, capsys):
    monitor = UnimodalMonitor(tiny_probe_set(), every_n_train_steps=1)
    tiny_trainer(tmp_path, callbacks=[monitor], max_steps=3).fit(TinyJob(), tiny_loader())
    assert (
        "EDM, times sigma, images [-4, 3.6]; not verified (too few training steps could be read: 2)"
        in capsys.readouterr().out
    )


class UnitJob(TinyJob):
    """Its loader gives images in [0, 1], and the step makes 2 x - 1 of them."""

    def training_step(self, batch, batch_idx):
        return super().training_step((2 * batch[0] - 1, batch[1]), batch_idx)


def test_probe_images_in_another_space_than_the_network_is_trained_on_stop_the_run(tmp_path, capsys):
    images, labels = torch.rand(400, 12), torch.arange(400) % 2
    loader = DataLoader(TensorDataset(images[:96], labels[:96]), batch_size=16)
    sets = {"members": TensorDataset(images[:96], labels[:96]), "heldout": TensorDataset(images[96:], labels[96:])}

    def fit(folder, **options):
        monitor = UnimodalMonitor(every_n_train_steps=10, **sets, **options)
        tiny_trainer(folder, callbacks=[monitor], max_steps=6).fit(UnitJob(), loader)

    mended = r"the probe images are in \[0, 1\] .* give transform=lambda image: 2 \* image - 1$"
    with pytest.raises(ValueError, match=f"^unimodal_monitor: transform: {mended}"):
        fit(tmp_path)
    fit(tmp_path / "mended", transform=lambda image: 2 * image - 1)
    assert "images [-1, 1]; confirmed on 3 training steps" in capsys.readouterr().out


def test_channels_that_are_last_are_noticed():
    """The trial forward fails, and says what may be wrong with the images."""
    images = torch.randn(40, 8, 8, 3)
    monitor = Monitor.of(unet(), "flow:x1000", members=images[:10], heldout=images[10:], reporters=())
    with pytest.raises(
        ValueError, match=r"^unimodal_monitor: net: .* give transform=lambda image: image.permute\(2, 0"
    ):
        monitor.start()
