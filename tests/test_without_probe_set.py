"""Probe images from where people have them: dataloaders, plain arguments, YAML, scripts with `accelerate`."""

import sys
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers.training_utils import EMAModel
from tiny_job import TinyJob, blobs, tiny_trainer
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from unimodal_monitor import Monitor, UnimodalMonitor

TRAIN, TEST = blobs(96, seed=1), blobs(300, seed=2)


class Stream(IterableDataset):
    def __init__(self, source):
        self.source = source

    def __iter__(self):
        yield from zip(*self.source, strict=True)


class JobWithLoaders(TinyJob):
    """With dataloaders of its own; its `factor` stands for an encoder."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.5))

    def train_dataloader(self):
        return DataLoader(TensorDataset(*TRAIN), batch_size=16)

    def val_dataloader(self):
        return DataLoader(TensorDataset(*TEST), batch_size=16)

    def validation_step(self, batch, batch_idx):
        pass


def probe_set_of(folder, job, *loaders, **options):
    monitor, seen = UnimodalMonitor(every_n_train_steps=100, **options), []
    monitor.on_train_batch_start = lambda trainer, *_: seen.append(monitor.monitor.checker.plan.probe_set)
    tiny_trainer(folder, callbacks=[monitor], max_steps=1, num_sanity_val_steps=0).fit(job, *loaders)
    return seen[0]


def rows(images):
    return {tuple(row) for row in images.tolist()}


def test_no_argument_takes_the_datasets_of_the_jobs_own_loaders(tmp_path):
    found = probe_set_of(tmp_path, JobWithLoaders())
    assert rows(found.members.images) == rows(TRAIN[0])
    assert rows(found.heldout.images) | rows(found.fit.images) == rows(TEST[0])


def test_loaders_given_to_fit_and_numbers(tmp_path):
    """Lightning loads no validation data before the first epoch that has one; a stream gives its first items."""
    loaders = DataLoader(Stream(TRAIN), batch_size=16), DataLoader(Stream(TEST))
    found = probe_set_of(tmp_path, JobWithLoaders(), *loaders, num_members=40, num_heldout=200)
    assert rows(found.members.images) == rows(TRAIN[0][:40])
    assert len(found.heldout) + len(found.fit) == 200


def test_datasets_and_a_transform_are_plain_arguments(tmp_path):
    options = {"members": TensorDataset(*TRAIN), "heldout": TensorDataset(*TEST)}
    found = probe_set_of(tmp_path, JobWithLoaders(), transform=lambda images, job: job.factor * images, **options)
    torch.testing.assert_close(found.members.images, TRAIN[0] / 2)


class Noisy(TensorDataset):
    """Augments at random, with torch's generator."""

    def __getitem__(self, row):
        image, label = super().__getitem__(row)
        return image + 0.01 * torch.randn_like(image), label


def test_reading_the_jobs_own_datasets_draws_no_random_number_of_the_job(tmp_path):
    """The losses of a job that augments are equal with and without."""
    losses = []
    for monitors in ([], [UnimodalMonitor(every_n_train_steps=5)]):
        torch.manual_seed(0)
        job = TinyJob()
        loaders = DataLoader(Noisy(*TRAIN), batch_size=16, shuffle=True), DataLoader(Noisy(*TEST), batch_size=100)
        job.validation_step = lambda *_: None
        tiny_trainer(tmp_path, callbacks=monitors, max_steps=8).fit(job, *loaders)
        losses.append(job.losses)
    assert losses[0] == losses[1]


class OnePass(IterableDataset):
    """Items that are read once."""

    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return self.items


@pytest.mark.parametrize("copies", [True, False])
def test_stream_of_the_job_loses_no_item(copies, tmp_path):
    """Six batches of 16 are trained; a generator cannot be copied, and the members are asked for."""
    pairs = list(zip(*TRAIN, strict=True))
    stream = OnePass(iter(pairs) if copies else (pair for pair in pairs))
    loaders = DataLoader(stream, batch_size=16), DataLoader(TensorDataset(*TEST), batch_size=100)
    job, monitor = JobWithLoaders(), UnimodalMonitor(every_n_train_steps=100)
    trainer = tiny_trainer(tmp_path, callbacks=[monitor], max_epochs=1, max_steps=-1, num_sanity_val_steps=0)
    if not copies:
        with pytest.raises(ValueError, match="^unimodal_monitor: members: the job's OnePass cannot be copied"):
            trainer.fit(job, *loaders)
        return
    trainer.fit(job, *loaders)
    assert len(job.losses) == 6


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (None, "^unimodal_monitor: heldout: the validation dataloader is missing; give heldout= a dataset"),
        ([DataLoader(TensorDataset(*TEST))] * 2, "heldout: the validation dataloader is a list without one dataset"),
    ],
)
@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader` but have no `validation_step`")
@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
def test_missing_images_are_asked_for(loader, message, tmp_path):
    job = TinyJob()
    with pytest.raises(ValueError, match=message):
        probe_set_of(tmp_path, job, DataLoader(TensorDataset(*TRAIN), batch_size=16), loader)


def test_images_are_given_once():
    with pytest.raises(ValueError, match="give probe_set=, or members="):
        UnimodalMonitor(object(), members=TensorDataset(*TRAIN))


class Blobs(TensorDataset):
    """For the YAML below."""

    def __init__(self, num: int, seed: int) -> None:
        super().__init__(*blobs(num, seed=seed))


YAML = """
trainer:
  max_steps: 1
  accelerator: cpu
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  enable_model_summary: false
  default_root_dir: {folder}
  callbacks:
    - class_path: unimodal_monitor.UnimodalMonitor
      init_args:
        every_n_train_steps: 100
        members: {{class_path: test_without_probe_set.Blobs, init_args: {{num: 96, seed: 1}}}}
        heldout: {{class_path: test_without_probe_set.Blobs, init_args: {{num: 300, seed: 2}}}}
        transform: torch.neg
"""


@pytest.mark.filterwarnings("ignore")  # of jsonargparse, and of Lightning about seeds
def test_lightning_cli_builds_it_from_yaml(tmp_path, monkeypatch, capsys):
    pytest.importorskip("jsonargparse")
    from pytorch_lightning.cli import LightningCLI

    (tmp_path / "config.yaml").write_text(YAML.format(folder=tmp_path))
    monkeypatch.syspath_prepend(Path(__file__).parent)
    monkeypatch.setattr(sys, "argv", ["train", "fit", "--config", str(tmp_path / "config.yaml")])
    cli = LightningCLI(JobWithLoaders, save_config_callback=None)
    (callback,) = (c for c in cli.trainer.callbacks if isinstance(c, UnimodalMonitor))
    assert rows(callback.members.tensors[0]) == rows(TRAIN[0])
    assert [check.step for check in callback.history] == [0]


SMALL = {"sample_size": 8, "in_channels": 3, "out_channels": 3, "block_out_channels": (8,), "layers_per_block": 1}
BLOCKS = {"norm_num_groups": 4, "down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}


def pictures(num, *, seed):
    return torch.rand(num, 3, 1, 1, generator=torch.Generator().manual_seed(seed)) + 0.3 * torch.rand(num, 3, 8, 8)


def script(monitor_of, *, kind="epsilon"):
    """As diffusers' `train_unconditional.py` does it; five lines are the monitor's."""
    torch.manual_seed(0)
    train, test = pictures(40, seed=1), pictures(60, seed=2)
    unet = diffusers.UNet2DModel(**SMALL, **BLOCKS, add_attention=False)
    scheduler, optimizer = diffusers.DDPMScheduler(), torch.optim.Adam(unet.parameters(), 1e-3)
    ema = EMAModel(unet.parameters(), decay=0.9, model_cls=type(unet), model_config=unet.config)
    monitor = monitor_of(unet, scheduler, ema=ema, members=train, heldout=test, every_n_train_steps=5)
    for step in range(6):
        monitor.step(step)
        images = train[8 * (step % 5) :][:8]
        with monitor.watching(images):
            noise, t = torch.randn_like(images), torch.randint(0, 1000, (8,))
            target = {"epsilon": noise, "v": scheduler.get_velocity(images, noise, t)}[kind]
            loss = (unet(scheduler.add_noise(images, noise, t), t).sample - target).square().mean()
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        ema.step(unet.parameters())
    monitor.step(6)
    return monitor


def test_script_with_a_network_and_a_scheduler_is_confirmed(capsys):
    monitor = script(Monitor.of)
    assert monitor.verification.text == "confirmed on 3 training steps"
    assert "watching UNet2DModel (10,579 trainable), weights ema (EMAModel)" in capsys.readouterr().out
    assert [(check.step, check.weights) for check in monitor.history] == [(0, "raw"), (5, "ema")]


def test_scheduler_that_the_script_does_not_train_with_is_settled():
    """Its prediction type was left at the default; the check before measured something else and is dropped."""
    monitor = script(Monitor.of, kind="v")
    assert monitor.verification.word == "scheduler:v"
    assert [check.step for check in monitor.history] == [4, 5]
    assert monitor.denoiser.prediction == "v_prediction"


def test_word_that_the_script_does_not_train_with_is_refused():
    with pytest.raises(ValueError, match="^unimodal_monitor: schedule: PathDenoiser disagrees with what was seen"):
        script(lambda unet, scheduler, **options: Monitor.of(unet, "flow", **options))
