"""Makes the golden record by the code of version 0.0 (commit 44b8c8d and its parents): kept for the reader."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from networks import FOLDER, MLP, MLP_STEPS, UNET_STEPS, digits, trained, unet

from unimodal_monitor import EDMDenoiser, Monitor, Network, ProbeSet, VPDenoiser
from unimodal_monitor.molrg import MoLRG


def run(net: Any, name: str, steps: tuple[int, ...], adapter: Any, probe_set: ProbeSet, **options: Any) -> list[Any]:
    trained(net, f"{name}_{steps[0]:05d}.safetensors")
    monitor, found = Monitor(adapter(Network(net)), probe_set, **options), []
    survey_run, kept = monitor._survey.run, []
    monitor._survey.run = lambda forwards: kept.append(survey_run(forwards)) or kept[-1]
    for step in steps:
        trained(net, f"{name}_{step:05d}.safetensors")
        check, seen = monitor.check(step), None
        seen = kept[-1]
        found.append((check, seen, [vars(f) for f in monitor.alarm._findings]))
    return found


def mlp_probe_set() -> ProbeSet:
    data = MoLRG()
    return ProbeSet.from_datasets(data.sample(300, seed=1), data.sample(4500, seed=2), num_fit=1500)


def digits_probe_set(*, labelled: bool) -> ProbeSet:
    images, labels = digits()
    if not labelled:
        return ProbeSet.from_datasets(images[:200], images[200:900])
    return ProbeSet.from_datasets((images[:200], labels[:200]), (images[200:900], labels[200:900]))


def unet_runs(**options: Any) -> dict[str, list[Any]]:
    import diffusers
    from functools import partial

    adapter = partial(VPDenoiser, alphas_cumprod=diffusers.DDPMScheduler().alphas_cumprod)
    return {
        "labelled": run(unet(), "unet", UNET_STEPS, adapter, digits_probe_set(labelled=True), **options),
        "unlabelled": run(unet(), "unet", UNET_STEPS, adapter, digits_probe_set(labelled=False), **options),
    }


def record(runs: dict[str, list[Any]]) -> tuple[list[Any], dict[str, np.ndarray]]:
    rows, arrays = [], {}
    for name, found in runs.items():
        for check, seen, findings in found:
            row = check.to_dict()
            for key in ("seconds", "overhead", "num_forwards"):
                row.pop(key)
            rows.append({"run": name, "findings": [f["holds"] for f in findings], **row})
            prefix = f"{name}/{check.step}"
            for layer, outcomes in check.outcomes.items():
                arrays[f"{prefix}/score/{layer}"] = outcomes.score_KM[:, :300].astype(np.float32)
                arrays[f"{prefix}/correct/{layer}"] = outcomes.correct_KRM[:, 0].numpy()[:, :300]
            if (pairs := seen.testimony.pairs) is not None:
                for key in ("heldout_KN", "members_KN", "memorizer_KN"):
                    arrays[f"{prefix}/{key}"] = getattr(pairs, key).numpy().astype(np.float32)
            if (icr := seen.testimony.contamination) is not None:
                arrays[f"{prefix}/cleanliness_KN"] = icr.cleanliness_KN.numpy()[:, :300].astype(np.float32)
            if (spikes := seen.testimony.spikiness) is not None:
                arrays[f"{prefix}/members_spread_KN"] = spikes.members_KN.numpy().astype(np.float32)
                arrays[f"{prefix}/heldout_spread_KN"] = spikes.heldout_KN.numpy().astype(np.float32)
    return rows, arrays


def rank(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=number, world_size=2)
    rows, _ = record(unet_runs(sharded=True))
    if number == 0:
        (Path(folder) / "two_ranks.json").write_text(json.dumps(rows))
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    runs = {"vectors": run(MLP(), "mlp", MLP_STEPS, EDMDenoiser, mlp_probe_set(), layers=["blocks.1"]), **unet_runs()}
    rows, arrays = record(runs)
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(rank, args=(folder,), nprocs=2)
        two = json.loads((Path(folder) / "two_ranks.json").read_text())
    (FOLDER / "checks.json").write_text(json.dumps({"one_rank": rows, "two_ranks": two}, indent=None))
    np.savez_compressed(FOLDER / "arrays.npz", **arrays)
    for row in rows:
        print(row["run"], row["step"], row["state"], row["verdict"]["shape"], row["findings"], row["evidence"], file=sys.stderr)
