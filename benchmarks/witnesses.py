"""All witnesses on networks whose copies were counted: which leads, which lags.

    python benchmarks/zoo.py --zoo ZOO --data CIFAR10 --cache CACHE
    python benchmarks/witnesses.py --zoo ZOO --data CIFAR10 --cache CACHE --num-images 5400

Members and held-out images pass through every network once more, for the denoising gap, ICR and spikiness; rise, peak
and class SNR come from the cached features. Testimonies are kept in the cache.
"""

import argparse
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from cached import cached_monitor
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from zoo import LAYERS, Checkpoint, checkpoints, load_denoiser, read_split, unseen_images

from unimodal_monitor.alarm import Alarm
from unimodal_monitor.curve import Curve
from unimodal_monitor.data import ProbeSet
from unimodal_monitor.features import capture, find_layers
from unimodal_monitor.forwards import Forwards, Noising
from unimodal_monitor.images import ImageSet
from unimodal_monitor.measure import hear_all
from unimodal_monitor.ranks import Ranks
from unimodal_monitor.rules.base import Look
from unimodal_monitor.rules.gap import GapOpened
from unimodal_monitor.rules.peak import PeakFell
from unimodal_monitor.rules.rise import RiseLost
from unimodal_monitor.signals.class_snr import ClassSNR
from unimodal_monitor.witnesses import Testimony, Witnesses

JUDGED = LAYERS[-1]


def probe_set_of(run: list[Checkpoint], args: argparse.Namespace) -> ProbeSet:
    """The run's members, and images that it has not seen."""
    order = torch.from_numpy(np.load(args.zoo / "order.npy"))
    train = read_split(args.data, "train")[0]
    unseen, _ = unseen_images(args.zoo, args.data)
    chosen = torch.randperm(len(unseen), generator=torch.Generator().manual_seed(0))[: args.num_images]
    fit, heldout = chosen.split([len(chosen) // 3, len(chosen) - len(chosen) // 3])
    labels = torch.arange(len(unseen)) % 2
    return ProbeSet(
        members=ImageSet(train[order[: run[0].num_members]]),
        heldout=ImageSet(unseen[heldout], labels[: len(heldout)]),
        fit=ImageSet(unseen[fit], labels[: len(fit)]),
    )


def hear(run: list[Checkpoint], args: argparse.Namespace, noising: Noising) -> list[Testimony]:
    """What the witnesses say of every checkpoint of a run."""
    paths = [args.cache / f"testimony_{checkpoint.path.stem}.pt" for checkpoint in run]
    if not all(path.exists() for path in paths):
        probe_set = probe_set_of(run, args)
        witnesses = Witnesses(probe_set, torch.arange(len(probe_set.heldout)), noising=noising, layer=JUDGED)
        print(f"<!-- {run[0].num_members} members: {len(witnesses.heldout)} members and as many held-out images, "
              f"{witnesses.num_views} with two views; shift found: {witnesses.shift} -->", flush=True)  # fmt: skip
        for checkpoint, path in zip(run, paths, strict=True):
            denoiser = load_denoiser(checkpoint)
            layers = find_layers(denoiser.network, [JUDGED])
            with torch.no_grad(), capture(layers) as captured:
                forwards = Forwards(denoiser, captured, noising, device=torch.device("cpu"), batch_size=432)
                hear_all(forwards, probe_set.heldout, witnesses.heldout, listen=witnesses.hear_heldout, ranks=Ranks())
                torch.save(witnesses.hear(forwards, ranks=Ranks()), path)
    return [torch.load(path, weights_only=False) for path in paths]


def follow(run: list[Checkpoint], args: argparse.Namespace) -> list[dict]:
    """One run as the default alarm would see it, with a check at each checkpoint, and every witness alone."""
    monitor = cached_monitor(args.cache, run[0], full_every=1)
    label_free = Alarm(rules=(RiseLost(),))
    alone = {"rise": RiseLost(), "peak": PeakFell(), "gap": GapOpened(), "icr": PeakFell(min_fall=0.0)}
    rows = []
    for number, (checkpoint, heard) in enumerate(zip(run, hear(run, args, monitor.noising), strict=True), 1):
        monitor.show(args.cache, checkpoint)
        monitor._witnesses = Replay(heard)
        check = monitor.check(checkpoint.step)
        clean_KM = heard.contamination.cleanliness_KN.numpy()
        clean = Curve.without_labels(JUDGED, monitor.noising.sigmas, 0.5, heard.contamination.cleanliness_KN)
        score_KM = check.outcomes[JUDGED].score_KM
        look = Look(number, checkpoint.step, check.curve, score_KM, None, heard.pairs)
        look_clean = Look(number, checkpoint.step, clean, clean_KM)
        holds = {
            name: rule.look(look_clean if name == "icr" else look, error=0.0005).holds for name, rule in alone.items()
        }
        spikes = heard.spikiness
        holds["spikiness"] = bool((spikes.auc_K - 0.5).max() > 4 * (spikes.high_K - spikes.low_K).max() / 3.92)
        rows.append({
            "checkpoint": checkpoint, "check": check, "heard": heard, "holds": holds,
            "label_free": label_free.update(look_clean), "snr": snr_of(monitor, checkpoint, args),
        })  # fmt: skip
    return rows


class Replay:
    """Stands in for `Witnesses` with what was heard before."""

    num_images = 0
    heldout = torch.arange(0)
    hear_heldout = None

    def __init__(self, heard: Testimony) -> None:
        self.heard = heard

    def forget(self) -> None:
        pass

    def hear(self, forwards: object, *, ranks: Ranks) -> Testimony:
        return self.heard


def snr_of(monitor: object, checkpoint: Checkpoint, args: argparse.Namespace) -> np.ndarray:
    features_KND = monitor.features[JUDGED].float()
    fit = monitor.probe_set.fit
    signal = ClassSNR(len(features_KND), features_KND.shape[2], 10)
    signal.update(features_KND[:, fit.indices], fit.labels)
    return signal.compute().snr_K.numpy()


def peak_gap(heard: Testimony) -> tuple[float, float, float]:
    gap = heard.gap.normalized
    best = int(gap.low_L.argmax())
    return float(gap.value_L[best]), float(gap.low_L[best]), float(gap.high_L[best])


WITNESSES: dict[str, tuple[str, Callable[[dict], float]]] = {
    "rise": ("rise of the score, % (falls)", lambda row: -row["check"].verdict.rise / row["check"].verdict.height),
    "peak": ("peak score (falls)", lambda row: -max(row["check"].curve.score.mean)),
    "accuracy": ("peak accuracy, % (falls)", lambda row: -max(row["check"].curve.accuracy.mean)),
    "gap": ("normalized gap", lambda row: peak_gap(row["heard"])[0]),
    "icr": ("least ICR", lambda row: float(row["heard"].contamination.icr_K.min())),
    "spikiness": ("spikiness AUC", lambda row: float(row["heard"].spikiness.auc_K.max())),
    "snr": ("peak class SNR (falls)", lambda row: -float(row["snr"].max())),
}


def print_table(rows: list[dict]) -> None:
    print("\n| members | images seen | copies (%) | rise (%) | peak score | peak accuracy (%) | normalized gap [95 %] "
          "| least ICR | spikiness AUC | peak class SNR | alarm | label-free alarm |"
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
              f"| {row['snr'].max():.2f} | {check.state.value} | {row['label_free'].value} |")  # fmt: skip


def print_summary(runs: list[list[dict]]) -> None:
    print("\n| witness | rank correlation with copies, 256 members | AUROC for copies over 1 %, 256 members "
          "| first significant, 256 members | 1,024 members | 49,152 members |\n|---|---|---|---|---|---|")  # fmt: skip
    for name, (title, read) in WITNESSES.items():
        of_256 = [row for row in runs[0] if row["checkpoint"].step > 500]
        values = [read(row) for row in of_256]
        copies = [row["checkpoint"].copy_fraction for row in of_256]
        correlation = spearmanr(values, copies).statistic
        area = roc_auc_score([fraction > 0.01 for fraction in copies], values)
        firsts = [
            next((f"{r['checkpoint'].images_seen // 1000}k" for r in run if r["holds"].get(name)), "never")
            if name in runs[0][0]["holds"]
            else "no error known"
            for run in runs
        ]
        print(f"| {title} | {correlation:+.2f} | {area:.2f} | {' | '.join(firsts)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True, help="where benchmarks/zoo.py wrote the features")
    parser.add_argument("--num-images", type=int, help="unseen images that set the witnesses' share (default: all)")
    args = parser.parse_args()
    runs = [
        follow(list(run), args) for _, run in groupby(checkpoints(args.zoo), lambda checkpoint: checkpoint.num_members)
    ]
    print_table([row for run in runs for row in run])
    print_summary(runs)


if __name__ == "__main__":
    main()
