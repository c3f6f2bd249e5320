"""Families with the packages' own classes in a real Trainer; each is skipped where its package is missing."""

import dataclasses

import pytest
import pytorch_lightning as pl
import torch
from packaged import PACKAGE_FAMILIES, PackageFamily, meta_flow, rows, torchcfm
from torch.utils.data import DataLoader, TensorDataset

from unimodal_monitor import ProbeSet, UnimodalMonitor

needs_package = [
    pytest.mark.packages,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),  # of the packages' imports
]


def images(num, family, *, seed):
    """Two classes of rough images, as the network sees them."""
    generator, ones = torch.Generator().manual_seed(seed), [1] * (len(family.shape) - 1)
    labels = torch.arange(num) % 2
    tint = 0.3 * torch.randn(num, family.shape[0], *ones, generator=generator) + labels.view(-1, 1, *ones) / 4
    return (tint + 0.2 * torch.randn(num, *family.shape, generator=generator)).clamp(-1, 1), labels


def fit(family, tmp_path, *, probe=lambda x: x, job=None, steps=5):
    """The job after some steps, the monitor's denoiser then, and the monitor."""
    torch.manual_seed(0)
    job = family.make() if job is None else job
    (members, labels), (heldout, classes) = (images(n, family, seed=n) for n in (40, 60))
    probe_set = ProbeSet.from_datasets((probe(members), labels), (probe(heldout), classes))
    monitor = UnimodalMonitor(probe_set, every_n_train_steps=100, **family.arguments)
    kept = []

    class Keep(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, index):
            kept.append(monitor.monitor)

    trainer = pl.Trainer(
        accelerator="cpu", max_steps=steps, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, callbacks=[monitor, Keep()],
    )  # fmt: skip
    batches = (members + 1) / 2 if family.in_unit_interval else members
    trainer.fit(job, DataLoader(TensorDataset(batches, labels), batch_size=8))
    return job, kept[-1].denoiser, kept[-1]


def largest_error(family, denoiser, own):
    """Of the denoiser against the package's own estimate, as a share of the correction."""
    sigma = denoiser.snap(torch.tensor(family.sigmas))
    assert len(sigma) >= 3
    clean = images(len(sigma), family, seed=3)[0]
    noised = clean + sigma.view(-1, *[1] * len(family.shape)) * torch.randn(clean.shape)
    with torch.no_grad():
        estimate = own(noised, sigma)
        correction = (estimate - noised).flatten(1).norm(dim=1)
        return float(((denoiser(noised, sigma) - estimate).flatten(1).norm(dim=1) / correction).max())


def each_of(families):
    params = []
    for family in families:
        faulty = [pytest.mark.xfail(strict=True, raises=(AssertionError, ValueError), reason=family.fault)]
        params.append(pytest.param(family, id=family.name, marks=needs_package + (faulty if family.fault else [])))
    return pytest.mark.parametrize("family", params)


@each_of(PACKAGE_FAMILIES)
def test_family_is_confirmed_and_denoised_as_its_package_does(family, tmp_path, capsys):
    assert len(family.arguments) <= 2
    job, denoiser, _ = fit(family, tmp_path)
    assert family.says in capsys.readouterr().out
    assert largest_error(family, denoiser, job.eval().own) < 1e-4


@each_of([family for family in rows() if family.needed != family.arguments])
def test_network_and_schedule_are_found_by_the_training_steps(family, tmp_path, capsys):
    """What the table says that the family needs is enough."""
    job, denoiser, _ = fit(dataclasses.replace(family, arguments=family.needed), tmp_path, steps=12)
    assert family.says in capsys.readouterr().out
    assert largest_error(family, denoiser, job.eval().own) < 1e-4


@pytest.mark.packages
@pytest.mark.parametrize("word", ["flow", "cosine:data", "flow:data:to_noise", "flow:data:x1000"])
@pytest.mark.parametrize("make", [lambda: torchcfm(""), lambda: meta_flow("CondOTProbPath")], ids=["torchcfm", "Meta"])
def test_a_wrong_word_is_refused_with_the_right_one(make, word, tmp_path):
    family = PackageFamily("wrong", make, {"net": "net", "schedule": word})
    with pytest.raises(ValueError, match="schedule='flow:data' agrees"):
        fit(family, tmp_path)


@pytest.mark.packages
def test_noise_beside_the_path_leaves_the_gap_unmeasured(tmp_path):
    family = next(f for f in PACKAGE_FAMILIES if "sigma=0.1" in f.name)
    _, _, monitor = fit(family, tmp_path)
    assert monitor.verification.state == "not verified"
    assert monitor.verification.no_gap is not None


@pytest.mark.packages
def test_probe_images_in_other_units_than_the_network_sees_are_refused(tmp_path):
    family = next(f for f in PACKAGE_FAMILIES if f.in_unit_interval)
    with pytest.raises(ValueError, match=r"give transform=lambda image: 2 \* image - 1$"):
        fit(family, tmp_path, probe=lambda x: (x + 1) / 2)  # as the job's own loader gives them


def test_rows_need_no_package_and_two_arguments_at_most():
    names = [family.name for family in rows()]
    assert len(set(names)) == len(names) >= 20
    assert all(len(family.arguments) <= 2 for family in rows())
