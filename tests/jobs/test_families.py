"""Every family in a real Trainer: two arguments at most, confirmed on its own steps, and equal to its own estimate."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from families import FAMILIES, Job, table
from torch.utils.data import DataLoader, TensorDataset

from unimodal_monitor import ProbeSet, UnimodalMonitor

DOCS = Path(__file__).parents[2] / "docs" / "jobs.md"
every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def images(num, *, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num) % 2
    rough = 0.2 * torch.randn(num, 3, 8, 8, generator=generator)
    return (0.4 * torch.randn(num, 3, 1, 1, generator=generator) + rough + labels.view(-1, 1, 1, 1) / 4), labels


@every_family
def test_family_is_confirmed_and_denoised_as_it_does_itself(family, tmp_path, capsys):
    torch.manual_seed(0)
    assert len(family.arguments) <= 2
    probe_set = ProbeSet.from_datasets(images(40, seed=1), images(60, seed=2))
    monitor, job, denoisers = UnimodalMonitor(probe_set, every_n_train_steps=100, **family.arguments), Job(family), []

    class Keep(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, index):
            denoisers.append(monitor.monitor.denoiser)

    trainer = pl.Trainer(
        accelerator="cpu", max_steps=5, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, callbacks=[monitor, Keep()],
    )  # fmt: skip
    trainer.fit(job, DataLoader(TensorDataset(*images(40, seed=1)), batch_size=8))
    assert family.says in capsys.readouterr().out

    sigma = denoisers[-1].snap(torch.tensor(family.sigmas))
    noised = images(len(sigma), seed=3)[0] + sigma.view(-1, 1, 1, 1) * torch.randn(len(sigma), 3, 8, 8)
    with torch.no_grad():
        own = family.estimate(job.eval(), noised, sigma)
        correction = (own - noised).flatten(1).norm(dim=1)
        error = (denoisers[-1](noised, sigma) - own).flatten(1).norm(dim=1)
    assert (error / correction).max() < 1e-4


def test_table_of_families_stands_in_the_documentation():
    """Written by `python tests/jobs/test_families.py`."""
    assert table() in DOCS.read_text()


if __name__ == "__main__":
    DOCS.write_text(
        "# Jobs and what each needs\n\nMade from `tests/jobs/families.py`: each is trained by a Trainer, confirmed"
        " on its own steps, and equal to\nits own estimate of the clean image, to 1e-4 of the correction. The rows of"
        " diffusers use its own classes; the others are small\nnetworks that follow the convention of the family.\n\n"
        + table()
    )
