"""The golden record: checks by the code of commit 44b8c8d, which measured the same things in another way."""

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from unimodal_monitor import EDMDenoiser, Monitor, ProbeSet, VPDenoiser
from unimodal_monitor.signals.gap import denoising_gap, normalized_gap
from unimodal_monitor.theory.molrg import MoLRG

sys.path.insert(0, str(Path(__file__).parent / "golden"))
from networks import FOLDER, MLP, MLP_STEPS, UNET_STEPS, digits, trained, unet

RECORD = json.loads((FOLDER / "checks.json").read_text())
ARRAYS = np.load(FOLDER / "arrays.npz")
SAME = {"abs": 1e-6, "rel": 1e-6}
SINGLE = {"abs": 3e-6, "rel": 1e-6}
"""Scores of single images: the record's were computed in single precision."""


def checks_of(net, name, steps, adapter, probe_set, **options):
    trained(net, f"{name}_{steps[0]:05d}.safetensors")
    monitor = Monitor(adapter(net), probe_set, reporters=(), **options)
    for step in steps:
        trained(net, f"{name}_{step:05d}.safetensors")
        yield monitor.check(step), monitor.checker.plan


def vectors():
    data = MoLRG()
    probe_set = ProbeSet.from_datasets(data.sample(300, seed=1), data.sample(4500, seed=2), num_fit=1500)
    return checks_of(MLP(), "mlp", MLP_STEPS, EDMDenoiser, probe_set, layer="blocks.1")


def images(labelled, **options):
    diffusers = pytest.importorskip("diffusers")
    pixels, labels = digits()
    members, heldout = (pixels[:200], labels[:200]), (pixels[200:900], labels[200:900])
    probe_set = ProbeSet.from_datasets(*((members, heldout) if labelled else (members[0], heldout[0])))
    adapter = partial(VPDenoiser, alphas_cumprod=diffusers.DDPMScheduler().alphas_cumprod)
    return checks_of(unet(), "unet", UNET_STEPS, adapter, probe_set, **options)


def assert_same_check(check, plan, wanted, run):
    """Per-image numbers, curves and verdict; rises are shares of the height now."""
    assert check.step == wanted["step"]
    assert check.verdict.shape.value == wanted["verdict"]["shape"]
    for name in ("rise", "rise_low", "rise_high"):
        assert getattr(check.verdict, name) * check.verdict.height == pytest.approx(wanted["verdict"][name], abs=2e-6)
    for curve, other in zip(check.curves, wanted["curves"], strict=True):
        assert curve.score.mean == pytest.approx(other["score"]["mean"], **SAME)
        assert np.array(curve.score.covariance) == pytest.approx(np.array(other["score"]["covariance"]), **SAME)
    assert_same_signals(check, wanted["testimony"])


def assert_same_signals(check, wanted):
    """The normalized gap has Fieller's limits in place of a bootstrap's: half a standard error may lie between."""
    gap, normalized = wanted["gap"], wanted["gap"]["normalized"]
    plain = replace(check.measured, members_covariates=None)  # the record knew no adjustment
    assert denoising_gap(plain).value == pytest.approx(gap["gap_K"], **SAME)
    found = normalized_gap(plain)
    assert [check.curve.sigmas[level] for level in normalized["levels_L"]] == list(found.sigmas)
    assert found.value == pytest.approx(normalized["value_L"], **SAME)
    width = np.array(normalized["high_L"]) - np.array(normalized["low_L"])
    assert (abs(np.array(found.low) - normalized["low_L"]) < 0.2 * width).all()
    assert (abs(np.array(found.high) - normalized["high_L"]) < 0.2 * width).all()
    assert 1 - np.array(check.signal("invariance").value) == pytest.approx(
        np.array(wanted["contamination"]["icr_K"]), **SAME
    )
    for name, key in {"value": "auc_K", "low": "low_K", "high": "high_K"}.items():
        assert getattr(check.signal("spread_auc"), name) == pytest.approx(wanted["spikiness"][key], **SAME)


def assert_same_numbers(check, plan, run):
    """Image by image; pairs and views stood in the order of the held-out images' rows."""
    prefix, measured = f"{run}/{check.step}", check.measured
    for layer, score_KM in measured.score.items():
        assert score_KM[:, :300].numpy() == pytest.approx(ARRAYS[f"{prefix}/score/{layer}"], **SINGLE)
        assert np.array_equal(measured.correct[layer][:, :300].numpy(), ARRAYS[f"{prefix}/correct/{layer}"])
    paired = plan.passes["paired"].noise_ids
    by_row, by_pair = paired.argsort(), paired[: plan.num_pairs].argsort()
    names = {"heldout_error": "heldout_KN", "members_error": "members_KN", "memorizer_error": "memorizer_KN"}
    names |= {"heldout_spread": "heldout_spread_KN", "members_spread": "members_spread_KN"}
    for name, key in names.items():
        assert getattr(measured, name)[:, by_pair].numpy() == pytest.approx(ARRAYS[f"{prefix}/{key}"], **SAME), name
    assert measured.invariance[:, by_row][:, :300].numpy() == pytest.approx(ARRAYS[f"{prefix}/cleanliness_KN"], **SAME)


def wanted_of(run, ranks="one_rank"):
    return [row for row in RECORD[ranks] if row["run"] == run]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "checks"),
    [("vectors", vectors), ("labelled", partial(images, True)), ("unlabelled", partial(images, False))],
)
def test_checks_are_as_the_golden_record_has_them(run, checks):
    """Each image's numbers, and what was made of them, at every check of a run."""
    for (check, plan), wanted in zip(checks(), wanted_of(run), strict=True):
        assert_same_numbers(check, plan, run)
        assert_same_check(check, plan, wanted, run)


def work_of_rank(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    for (check, plan), wanted in zip(images(True, distributed=True), wanted_of("labelled", "two_ranks"), strict=True):
        assert_same_check(check, plan, wanted, "labelled")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_find_what_two_ranks_found(tmp_path):
    """The images of a check shared by two processes."""
    mp.spawn(work_of_rank, args=(str(tmp_path),), nprocs=2)
