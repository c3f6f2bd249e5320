"""Every family in a real Trainer: two arguments at most, confirmed on its own steps, and equal to its own estimate."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from diffusers_families import DIFFUSERS
from families import FAMILIES, Job, table
from more_families import MORE
from packaged import rows
from torch.utils.data import DataLoader, TensorDataset

from unimodal_monitor import ProbeSet, UnimodalMonitor

DOCS = Path(__file__).parents[2] / "docs" / "jobs.md"
ALL = [*FAMILIES, *MORE, *DIFFUSERS]
old_diffusers = pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")  # about its own imports
float32 = pytest.mark.filterwarnings("ignore:In CPU autocast, but the target dtype:UserWarning")  # Mochi


def each_of(families, *, slow=()):
    params = [
        pytest.param(family, id=family.name, marks=[pytest.mark.slow] * (family.is_slow or family in slow))
        for family in families
    ]
    return pytest.mark.parametrize("family", params)


def images(num, shape=(3, 8, 8), *, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num) % 2
    rough = 0.2 * torch.randn(num, *shape, generator=generator)
    flat = torch.randn(num, shape[0], *[1] * (len(shape) - 1), generator=generator)
    return 0.4 * flat + rough + labels.view(-1, *[1] * len(shape)) / 4, labels


def check(family, arguments, folder, output, *, num_steps):
    """Train the job beside the monitor: it says what it should, and its denoiser is the job's own estimate."""
    torch.manual_seed(0)
    train, test = images(40, family.shape, seed=1), images(60, family.shape, seed=2)
    probe_set = ProbeSet.from_datasets(train, test, transform=family.transform)
    monitor, job, denoisers = UnimodalMonitor(probe_set, every_n_train_steps=100, **arguments), Job(family), []

    class Keep(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, index):
            denoisers.append(monitor.monitor and monitor.monitor.denoiser)

    trainer = pl.Trainer(
        accelerator="cpu", max_steps=num_steps, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, callbacks=[monitor, Keep()],
    )  # fmt: skip
    trainer.fit(job, DataLoader(TensorDataset(*train), batch_size=8))
    assert family.says in output().out

    sigma = denoisers[-1].snap(torch.tensor(family.sigmas))
    clean = probe_set.heldout.images[: len(sigma)]
    noised = clean + sigma.view(-1, *[1] * (clean.ndim - 1)) * torch.randn_like(clean)
    with torch.no_grad():
        own = family.estimate(job.eval(), noised, sigma)
        correction = (own - noised).flatten(1).norm(dim=1)
        error = (denoisers[-1](noised, sigma) - own).flatten(1).norm(dim=1)
    assert (error / correction).max() < 1e-4


@each_of(ALL, slow=DIFFUSERS)
@old_diffusers
@float32
def test_family_is_confirmed_and_denoised_as_it_does_itself(family, tmp_path, capsys):
    assert len(family.arguments) <= 2
    check(family, family.arguments, tmp_path, capsys.readouterr, num_steps=5)


@each_of([family for family in ALL if family.needed != family.arguments], slow=DIFFUSERS)
@old_diffusers
@float32
def test_network_and_schedule_are_found_by_the_training_steps(family, tmp_path, capsys):
    """What the table says that the family needs is enough: the network by its call, the schedule by its agreement."""
    check(family, family.needed, tmp_path, capsys.readouterr, num_steps=12)


def test_table_of_families_stands_in_the_documentation():
    """Written by `python tests/jobs/test_families.py`."""
    assert table([*ALL, *rows()]) in DOCS.read_text()


if __name__ == "__main__":
    DOCS.write_text(
        "# Jobs and what each needs\n\nMade from the families in `tests/jobs`: each is trained by a Trainer, and its"
        " denoiser is equal to its own estimate of the\nclean image, to 1e-4 of the correction. The rows of diffusers"
        " and of the packages below them use their own classes, the others\nare small networks that follow the"
        " convention of the family. Where network and schedule are not given, the first training steps\ntell them. The"
        " last column is what is printed: the steps confirm the schedule, settle it by another one, or cannot be read."
        "\n\n" + table([*ALL, *rows()])
    )
