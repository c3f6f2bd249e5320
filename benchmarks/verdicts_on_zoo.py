"""Verdicts and alarm states on networks whose copies were counted, and which quantity sees the rise best.

    python benchmarks/zoo.py --zoo ZOO --data CIFAR10 --cache CACHE --num-images 5400
    python benchmarks/verdicts_on_zoo.py --zoo ZOO --cache CACHE --correlations benchmarks/zoo_correlations.json

Every probe seed splits the images, which no run has seen, anew: a third fit the probe, the others are scored.
"""

import argparse
import json
from collections import defaultdict
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import curve_fit
from torch import Tensor
from zoo import LAYERS, Checkpoint, checkpoints

from unimodal_monitor.alarm.alarm import Alarm, AlarmState
from unimodal_monitor.alarm.rules.base import Look
from unimodal_monitor.alarm.rules.peak import PeakFell
from unimodal_monitor.probes.base import Probe
from unimodal_monitor.probes.logistic import LogisticProbe
from unimodal_monitor.probes.ridge import RidgeProbe
from unimodal_monitor.stats.estimate import Curve, Outcomes
from unimodal_monitor.stats.max_t import low_end, rises
from unimodal_monitor.stats.verdict import judge

ESTIMATES = {"score_KM": "score", "correct_KM": "accuracy"}
PROBES = {"ridge": RidgeProbe(), "logistic": LogisticProbe()}


def outcomes_of(probe: Probe, features_KND: Tensor, labels_N: Tensor, fit: Tensor, scored: Tensor) -> Outcomes:
    collector = probe.collector(*features_KND.shape[::2], int(labels_N.max()) + 1)
    collector.update(features_KND[:, fit].float(), labels_N[fit])
    (classifier,) = probe.fit([collector])
    scores_KNC = classifier.scores(features_KND[:, scored].float())
    score_KN = probe.score(scores_KNC, labels_N[scored], classifier.prior_C)
    correct_KN = scores_KNC.argmax(2) == labels_N[scored]
    return Outcomes(correct_KN.unsqueeze(1), score_KN.float().unsqueeze(1), probe.score_name)


def split(num_images: int, seed: int) -> tuple[Tensor, Tensor]:
    order = torch.randperm(num_images, generator=torch.Generator().manual_seed(seed))
    return order[: num_images // 3], order[num_images // 3 :]


def largest_z(curve: Curve, quantity: str) -> float:
    """Of the rises at interior levels over the low end, each divided by its standard error."""
    estimate = getattr(curve, quantity)
    found = rises(curve, estimate, confidence=0.95)
    contrast = np.eye(len(curve.sigmas))[low_end(curve) : -1]
    contrast[:, : low_end(curve)] = -1 / low_end(curve)
    errors = np.sqrt(np.einsum("ij,jk,ik->i", contrast, np.array(estimate.covariance), contrast))
    return float((found.rise[:-1] / errors).max())


def follow(run: list[Checkpoint], args: argparse.Namespace, probe_name: str, seed: int, layer: str) -> list[dict]:
    """One run as the monitor would see it, with a check at each checkpoint."""
    images = torch.load(args.cache / "images.pt")
    fit, scored = split(len(images["labels"]), seed)
    alarm, lone_peak, rows = Alarm(), Alarm(rules=(PeakFell(share=1.0),), watched=()), []
    for number, checkpoint in enumerate(run, 1):
        features_KND = torch.load(args.cache / f"{checkpoint.path.stem}.pt")[layer]
        outcomes = outcomes_of(PROBES[probe_name], features_KND, images["labels"], fit, scored)
        curve = Curve.from_outcomes(layer, images["sigmas"], images["std"], outcomes)
        score_KM = outcomes.score_KRM.double().mean(1).numpy()
        look, verdict = Look(number, checkpoint.step, curve, score_KM), judge(curve)
        rows.append({
            "checkpoint": checkpoint, "probe": probe_name, "seed": seed, "layer": layer, "curve": curve,
            "verdict": verdict, "state": alarm.update(look),
            "peak_state": lone_peak.update(look), "by_accuracy": judge(curve, quantity="accuracy"),
            "score_KM": score_KM, "correct_KM": outcomes.correct_KRM.double().mean(1).numpy(),
        })  # fmt: skip
    return rows


def print_power(rows: list[dict]) -> None:
    print("\n| members | images seen | copies (%) | probe | z of the score | z of the accuracy | shape by score "
          "| by accuracy |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
    key = lambda row: (row["checkpoint"].num_members, row["checkpoint"].images_seen, row["probe"])  # noqa: E731
    for (members, seen, probe), group in groupby(sorted(rows, key=key), key):
        same = list(group)
        z = {q: np.mean([largest_z(row["curve"], q) for row in same]) for q in ("score", "accuracy")}
        shapes = [_count(row[name].shape.value for row in same) for name in ("verdict", "by_accuracy")]
        copies = 100 * same[0]["checkpoint"].copy_fraction
        print(f"| {members} | {seen // 1000}k | {copies:.1f} | {probe} | {z['score']:+.1f} | {z['accuracy']:+.1f} "
              f"| {shapes[0]} | {shapes[1]} |")  # fmt: skip


def print_states(rows: list[dict]) -> None:
    print("\n| members | images seen | copies (%) | probe | rise [limits] (% of height) | peak score | peak accuracy "
          "| state | state if the peak alone decided |\n|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    for row in rows:
        v, checkpoint = row["verdict"], row["checkpoint"]
        limits = f"{v.rise / v.height:+.1%} [{v.rise_low / v.height:+.1%}, {v.rise_high / v.height:+.1%}]"
        peak_score, peak_accuracy = max(row["curve"].score.mean), 100 * max(row["curve"].accuracy.mean)
        print(f"| {checkpoint.num_members} | {checkpoint.images_seen // 1000}k | {100 * checkpoint.copy_fraction:.1f} "
              f"| {row['probe']} | {limits} | {peak_score:.3f} | {peak_accuracy:.1f} "
              f"| {row['state'].value} | {row['peak_state'].value} |")  # fmt: skip


def print_leads(runs: list[list[dict]]) -> None:
    print("\n| members | probe | layer | seed | armed at | alarm at | peak fell at | copies over 1 % at |"
          "\n|---|---|---|---|---|---|---|---|")  # fmt: skip
    for run in runs:
        first = run[0]
        armed = _first(run, lambda row: row["state"] is AlarmState.ARMED)
        alarm = _first(run, lambda row: row["state"] is AlarmState.RAISED)
        peak = _first(run, lambda row: row["peak_state"] is AlarmState.RAISED)
        copies = _first(run, lambda row: row["checkpoint"].copy_fraction > 0.01)
        print(f"| {first['checkpoint'].num_members} | {first['probe']} | {first['layer'].removeprefix('unet.')} "
              f"| {first['seed']} | {armed} | {alarm} | {peak} | {copies} |")  # fmt: skip


def _first(run: list[dict], holds) -> str:
    return next((f"{row['checkpoint'].images_seen // 1000}k" for row in run if holds(row)), "never")


def _count(names) -> str:
    counts: dict[str, int] = defaultdict(int)
    for name in names:
        counts[name] += 1
    return ", ".join(f"{name} {number}" for name, number in sorted(counts.items()))


def correlations(runs: list[list[dict]], kind: str) -> dict:
    """What the simulation needs: covariance between levels, and how correlations between checks decay."""
    covariance_KK = np.mean([np.cov(run[-1][kind]) for run in runs], axis=0)
    deviation_K = np.sqrt(covariance_KK.diagonal())
    pairs = [(a, b) for run in runs for i, a in enumerate(run) for b in run[i + 1 :] if a["checkpoint"].step > 500]
    distances = [np.log(b["checkpoint"].step / a["checkpoint"].step) for a, b in pairs]
    of_levels, of_rises = zip(*(_correlation(a[kind], b[kind]) for a, b in pairs), strict=True)
    return {
        "height": round(float(np.mean([run[-1]["curve"].to_dict()[ESTIMATES[kind]]["mean"][:2] for run in runs])), 3),
        "deviation": deviation_K.round(4).tolist(),
        "correlation": (covariance_KK / np.outer(deviation_K, deviation_K)).round(4).tolist(),
        "first": _decay(distances, of_levels),
        "rest": _decay(distances, of_rises),
    }


def _decay(distances: list[float], found: tuple[float, ...]) -> dict[str, float]:
    """Least squares: near * (floor + (1 - floor) * exp(-distance / scale)), distance in log steps."""

    def model(distance, floor, scale, near):
        return near * (floor + (1 - floor) * np.exp(-distance / scale))

    best, _ = curve_fit(model, distances, found, p0=(0.3, 0.7, 0.9), bounds=((0, 0.1, 0.1), (1, 5, 1)))
    return dict(zip(("floor", "scale", "near"), best.round(3).tolist(), strict=True))


def _correlation(a_KM: np.ndarray, b_KM: np.ndarray) -> tuple[float, float]:
    """Between two checks: of the score at a level, and of its rise over the low end; means over levels."""
    level = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(a_KM, b_KM, strict=True)])
    rise = np.mean([
        np.corrcoef(a - a_KM[:2].mean(0), b - b_KM[:2].mean(0))[0, 1]
        for a, b in zip(a_KM[2:-1], b_KM[2:-1], strict=True)
    ])  # fmt: skip
    return float(level), float(rise)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True, help="where benchmarks/zoo.py wrote the features")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--correlations", type=Path, help="write what benchmarks/verdict_errors.py simulates with")
    args = parser.parse_args()
    by_members = [list(run) for _, run in groupby(checkpoints(args.zoo), lambda checkpoint: checkpoint.num_members)]
    judged = LAYERS[-1]
    runs = [
        follow(run, args, probe, seed, judged) for run in by_members for probe in PROBES for seed in range(args.seeds)
    ]
    print_power([row for run in runs for row in run])
    print_states([row for run in runs if run[0]["seed"] == 0 for row in run])
    others = [follow(run, args, "ridge", 0, layer) for run in by_members for layer in LAYERS[:-1]]
    print_leads([*runs, *others])
    if args.correlations:
        ridge = [run for run in runs if run[0]["probe"] == "ridge" and run[0]["seed"] == 0]
        sigmas = [round(sigma, 4) for sigma in ridge[0][0]["curve"].sigmas]
        record = {"sigmas": sigmas, **{kind.removesuffix("_KM"): correlations(ridge, kind) for kind in ESTIMATES}}
        args.correlations.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
