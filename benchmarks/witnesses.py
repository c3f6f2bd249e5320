"""All witnesses on networks whose copies were counted: which leads, which lags.

    python benchmarks/zoo.py --zoo ZOO --data CIFAR10 --cache CACHE
    python benchmarks/witnesses.py --zoo ZOO --data CIFAR10 --cache CACHE --num-images 5400

Members and held-out images pass through every network once more, for the denoising gap, ICR and spikiness; rise, peak
and class SNR come from the cached features. Testimonies are kept in the cache.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from cached import CachedMonitor, cached_monitor
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from torch import Tensor
from zoo import LAYERS, Checkpoint, checkpoints, load_denoiser, read_split, unseen_images

from unimodal_monitor.alarm.alarm import Alarm, AlarmState
from unimodal_monitor.alarm.rules.base import Look
from unimodal_monitor.alarm.rules.cleanliness import CleanlinessFell
from unimodal_monitor.alarm.rules.gap import GapOpened
from unimodal_monitor.alarm.rules.peak import PeakFell
from unimodal_monitor.alarm.rules.rise import RiseLost
from unimodal_monitor.copies.sampler import heun_forwards
from unimodal_monitor.data.image_set import ImageSet
from unimodal_monitor.data.probe_set import ProbeSet
from unimodal_monitor.forward.distributed import Ranks
from unimodal_monitor.forward.hooks import capture, find_layers
from unimodal_monitor.forward.noise import karras_sigmas
from unimodal_monitor.forwards import Forwards, Noising
from unimodal_monitor.measure import hear_all
from unimodal_monitor.signals.class_snr import ClassSNR
from unimodal_monitor.stats.estimate import Curve
from unimodal_monitor.witnesses import Testimony, Witnesses

JUDGED = LAYERS[-1]
NUM_STEPS = 18
"""Of the sampler with which the copies were counted."""


def probe_set_of(run: list[Checkpoint], args: argparse.Namespace) -> ProbeSet:
    """The run's members, and images that it has not seen."""
    order = torch.from_numpy(np.load(args.zoo / "order.npy"))
    train = read_split(args.data, "train")[0]
    unseen, _ = unseen_images(args.zoo, args.data)
    chosen = torch.randperm(len(unseen), generator=torch.Generator().manual_seed(args.seed))[: args.num_images]
    fit, heldout = chosen.split([len(chosen) // 3, len(chosen) - len(chosen) // 3])
    labels = torch.arange(len(unseen)) % 2
    return ProbeSet(
        members=ImageSet(train[order[: run[0].num_members]]),
        heldout=ImageSet(unseen[heldout], labels[: len(heldout)]),
        fit=ImageSet(unseen[fit], labels[: len(fit)]),
    )


def hear(run: list[Checkpoint], args: argparse.Namespace, noising: Noising) -> list[Testimony]:
    """What the witnesses say of every checkpoint of a run."""
    name = f"testimony_{args.grid}x{args.grid}_seed{args.seed}"
    paths = [args.cache / f"{name}_{checkpoint.path.stem}.pt" for checkpoint in run]
    if not all(path.exists() for path in paths):
        probe_set, noising = probe_set_of(run, args), replace(noising, seed=args.seed)
        witnesses = Witnesses(probe_set, torch.arange(len(probe_set.heldout)), noising=noising, layer=JUDGED)
        print(f"<!-- {run[0].num_members} members: {len(witnesses.pairs)} members and as many held-out images, "
              f"{len(witnesses.views)} with two views; shift found: {witnesses.shift} -->", flush=True)  # fmt: skip
        for checkpoint, path in zip(run, paths, strict=True):
            denoiser = load_denoiser(checkpoint)
            layers = find_layers(denoiser.network, [JUDGED])
            pool = patch("unimodal_monitor.forward.hooks.mean_pool", partial(pool_cells, grid=args.grid))
            with pool, torch.no_grad(), capture(layers) as captured:
                forwards = Forwards(denoiser, captured, noising, device=torch.device("cpu"), batch_size=432)
                hear_all(forwards, probe_set.heldout, witnesses.heard, listen=witnesses.hear_heldout, ranks=Ranks())
                torch.save(witnesses.hear(forwards, ranks=Ranks()), path)
    return [torch.load(path, weights_only=False) for path in paths]


def pool_cells(output: Tensor, *, grid: int) -> Tensor:
    """(N, C * grid * grid) means of a layer's (N, C, H, W) output over the cells of a grid; 1 is the monitor's own."""
    return F.adaptive_avg_pool2d(output.float(), grid).flatten(1)


def follow(run: list[Checkpoint], args: argparse.Namespace) -> list[dict]:
    """One run as the default alarm would see it, with a check at each checkpoint, and every witness alone."""
    monitor = cached_monitor(args.cache, run[0], full_every=1)
    label_free = Alarm.without_labels()
    alone = {"rise": RiseLost(), "peak": PeakFell(), "gap": GapOpened(), "icr": CleanlinessFell()}
    rows = []
    for number, (checkpoint, heard) in enumerate(zip(run, hear(run, args, monitor.noising), strict=True), 1):
        monitor.show(args.cache, checkpoint)
        monitor._survey.witnesses = Replay(heard)
        check = monitor.check(checkpoint.step)
        clean_KM = heard.contamination.cleanliness_KN.numpy()
        clean = Curve.without_labels(JUDGED, monitor.noising.sigmas, 0.5, heard.contamination.cleanliness_KN)
        score_KM = check.outcomes[JUDGED].score_KM
        look = Look(number, checkpoint.step, check.curve, score_KM, None, heard.pairs, clean_KM)
        look_clean = Look(number, checkpoint.step, clean, clean_KM, None, heard.pairs, clean_KM)
        holds = {name: rule.look(look, error=0.0005).holds for name, rule in alone.items()}
        spikes = heard.spikiness
        holds["spikiness"] = bool((spikes.auc_K - 0.5).max() > 4 * (spikes.high_K - spikes.low_K).max() / 3.92)
        rows.append({
            "checkpoint": checkpoint, "check": check, "heard": heard, "holds": holds,
            "label_free": label_free.update(look_clean),
            "snr": snr_of(monitor), "shuffled": snr_of(monitor, shuffled=True),
        })  # fmt: skip
    return rows


class Replay:
    """Stands in for `Witnesses` with what was heard before."""

    num_images = 0

    def __init__(self, heard: Testimony) -> None:
        self.testimony = heard
        self.heard = torch.arange(heard.contamination.cleanliness_KN.shape[1])

    def hear_heldout(self, batch: object) -> None:
        """They were heard before."""

    def forget(self) -> None:
        pass

    def hear(self, forwards: object, *, ranks: Ranks) -> Testimony:
        return self.testimony


def snr_of(monitor: CachedMonitor, *, shuffled: bool = False) -> np.ndarray:
    """(K,) class SNR of the images that the probe is fitted on; with shuffled labels, what classes do not explain."""
    features_KND, fit = monitor.features[JUDGED].float(), monitor.probe_set.fit
    order = torch.randperm(len(fit), generator=torch.Generator().manual_seed(0)) if shuffled else slice(None)
    signal = ClassSNR(len(features_KND), features_KND.shape[2], 10)
    signal.update(features_KND[:, fit.indices], fit.labels[order])
    return signal.compute().snr_K.numpy()


def peak_gap(heard: Testimony) -> tuple[float, float, float]:
    gap = heard.gap.normalized
    best = int(gap.low_L.argmax())
    return float(gap.value_L[best]), float(gap.low_L[best]), float(gap.high_L[best])


def free(heard: Testimony) -> int:
    """The probe's own forwards tell it."""
    return 0


def cost_of_gap(heard: Testimony) -> int:
    """Forwards of the members; the held-out images are the probe's own."""
    return heard.gap.members_KN.numel()


def cost_of_icr(heard: Testimony) -> int:
    """Forwards of the second views; the first ones are the probe's own."""
    return heard.contamination.cleanliness_KN.numel()


WITNESSES: dict[str, tuple[str, Callable[[dict], float], Callable[[Testimony], int]]] = {
    "rise": ("rise of the score, % (falls)", lambda r: -r["check"].verdict.rise / r["check"].verdict.height, free),
    "peak": ("peak score (falls)", lambda r: -max(r["check"].curve.score.mean), free),
    "accuracy": ("peak accuracy, % (falls)", lambda r: -max(r["check"].curve.accuracy.mean), free),
    "gap": ("normalized gap", lambda r: peak_gap(r["heard"])[0], cost_of_gap),
    "icr": ("least ICR", lambda r: float(r["heard"].contamination.icr_K.min()), cost_of_icr),
    "spikiness": ("spikiness AUC", lambda r: float(r["heard"].spikiness.auc_K.max()), cost_of_gap),
    "snr": ("peak class SNR (falls)", lambda r: -float(r["snr"].max()), free),
}


def print_table(rows: list[dict]) -> None:
    print("\n| members | images seen | copies (%) | rise (%) | peak score | peak accuracy (%) | normalized gap [95 %] "
          "| least ICR | spikiness AUC | peak class SNR (labels shuffled) | alarm | label-free alarm |"
          "\n|---|---|---|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    for row in rows:
        checkpoint, check, heard = row["checkpoint"], row["check"], row["heard"]
        value, low, high = peak_gap(heard)
        icr = heard.contamination
        best = int(icr.icr_K.argmin())
        print(f"| {checkpoint.num_members} | {checkpoint.images_seen // 1000}k | {100 * checkpoint.copy_fraction:.1f} "
              f"| {100 * check.verdict.rise / check.verdict.height:+.1f} | {max(check.curve.score.mean):.4f} "
              f"| {100 * max(check.curve.accuracy.mean):.1f} | {value:.3f} [{low:.3f}, {high:.3f}] "
              f"| {icr.icr_K[best]:.3f} ± {icr.error_K[best]:.3f} | {heard.spikiness.auc_K.max():.3f} "
              f"| {row['snr'].max():.2f} ({row['shuffled'].max():.2f}) "
              f"| {check.state.value} | {row['label_free'].value} |")  # fmt: skip


def print_summary(runs: list[list[dict]]) -> None:
    print("\n| witness | forwards a check, beyond the probe's | rank correlation with copies, 256 members "
          "| AUROC for copies over 1 %, 256 members | of all runs | first significant, 256 members | 1,024 members "
          "| 49,152 members |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
    trained = [[row for row in run if row["checkpoint"].step > 500] for run in runs]
    for name, (title, read, cost) in WITNESSES.items():
        copies = [row["checkpoint"].copy_fraction for row in trained[0]]
        correlation = spearmanr([read(row) for row in trained[0]], copies).statistic
        areas = [area_of(rows, read) for rows in (trained[0], [row for run in trained for row in run])]
        firsts = [
            first(run, lambda row, name=name: row["holds"][name]) if name in runs[0][0]["holds"] else "no error known"
            for run in runs
        ]
        print(f"| {title} | {cost(runs[-1][0]['heard']):,} | {correlation:+.2f} "
              f"| {areas[0]:.2f} | {areas[1]:.2f} | {' | '.join(firsts)} |")  # fmt: skip


def area_of(rows: list[dict], read: Callable[[dict], float]) -> float:
    """AUROC of a witness for copies over 1 %."""
    return roc_auc_score([row["checkpoint"].copy_fraction > 0.01 for row in rows], [read(row) for row in rows])


def print_alarms(runs: list[list[dict]]) -> None:
    print("\n| alarm | first raised, 256 members | 1,024 members | 49,152 members |\n|---|---|---|---|")
    for title, state_of in {
        "default": lambda row: row["check"].state,
        "without labels": lambda row: row["label_free"],
    }.items():
        firsts = [first(run, lambda row, state_of=state_of: state_of(row) is AlarmState.RAISED) for run in runs]
        print(f"| {title} | {' | '.join(firsts)} |")
    rows = [row for run in runs for row in run]
    num_probed, num_samples = rows[0]["check"].num_forwards, rows[0]["checkpoint"].num_samples
    print(f"\nThe probe's own forwards are {num_probed:,} a check; copies among {num_samples:,} samples take "
          f"{num_samples * heun_forwards(karras_sigmas(NUM_STEPS)):,}.")  # fmt: skip


def first(run: list[dict], holds: Callable[[dict], bool]) -> str:
    """Thousands of images seen at the first checkpoint at which it holds."""
    return next((f"{row['checkpoint'].images_seen // 1000}k" for row in run if holds(row)), "never")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True, help="where benchmarks/zoo.py wrote the features")
    parser.add_argument("--num-images", type=int, help="unseen images that set the witnesses' share (default: all)")
    parser.add_argument("--grid", type=int, default=1, help="wider features, for the ICR alone: means over the "
                        "cells of a grid")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the witnesses' noise and of their held-out images")
    args = parser.parse_args()
    runs = [
        follow(list(run), args) for _, run in groupby(checkpoints(args.zoo), lambda checkpoint: checkpoint.num_members)
    ]
    print_table([row for run in runs for row in run])
    print_summary(runs)
    print_alarms(runs)


if __name__ == "__main__":
    main()
