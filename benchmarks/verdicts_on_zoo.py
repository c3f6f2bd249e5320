"""Verdicts and alarm states on networks whose copies were counted, and which quantity sees the rise best.

    python benchmarks/zoo.py --zoo ZOO --data CIFAR10 --cache CACHE --num-images 5400
    python benchmarks/verdicts_on_zoo.py --zoo ZOO --cache CACHE --correlations benchmarks/zoo_correlations.json

Each probe seed splits the images, which no run has seen, anew: a third to fit the probe, the others to score it.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import numpy as np
from cached import cached_go, cached_probe_set
from former_alarm import LossAlone
from scipy.optimize import curve_fit
from zoo import LAYERS, Checkpoint, first_seen, zoo_runs

from unimodal_monitor import Alarm, AlarmState, Curve, LogisticProbe, PeakFell, RidgeProbe, RiseLost, judge
from unimodal_monitor.alarm.alarm import AlarmMemory
from unimodal_monitor.check import curves_of
from unimodal_monitor.method import measure, plan_check
from unimodal_monitor.stats.max_t import low_end, rises

PROBES = {"ridge": RidgeProbe(), "logistic": LogisticProbe()}
QUANTITIES = {"score": "score", "correct": "accuracy"}
"""Names of the per-image numbers, and of their means in a `Curve`."""
ALARMS = {
    "state": Alarm(rules=(LossAlone(RiseLost()),)),
    "peak_state": Alarm(rules=(LossAlone(PeakFell(), share=1.0),)),
}


def largest_z(curve: Curve, quantity: str) -> float:
    """Largest rise of an interior level over the low-noise end, in standard errors."""
    estimate = getattr(curve, quantity)
    found = rises(curve, estimate, confidence=0.95)
    contrast = np.eye(len(curve.sigmas))[low_end(curve) : -1]
    contrast[:, : low_end(curve)] = -1 / low_end(curve)
    errors = np.sqrt(np.einsum("ij,jk,ik->i", contrast, np.array(estimate.covariance), contrast))
    return float((found.rise[:-1] / errors).max())


def follow(run: list[Checkpoint], cache: Path, probe: str, seed: int, layer: str) -> list[dict]:
    """A check at each checkpoint of a run, without signals."""
    probe_set, sigmas = cached_probe_set(cache, run[0].num_members, seed=seed)
    plan = plan_check(probe_set, PROBES[probe], layers=(layer,), sigmas=sigmas, seed=seed, with_pairs=False)
    memories, rows = dict.fromkeys(ALARMS, AlarmMemory()), []
    for checkpoint in run:
        measured = measure(cached_go(cache / f"{checkpoint.path.stem}.pt", plan), plan)
        (curve,) = curves_of(measured)
        verdict = judge(curve)
        for name, alarm in ALARMS.items():
            memories[name] = alarm.update(memories[name], measured, step=checkpoint.step)[0]
        rows.append({
            "checkpoint": checkpoint, "probe": probe, "seed": seed, "layer": layer, "curve": curve, "verdict": verdict,
            "by_accuracy": judge(curve, quantity="accuracy"), **{name: memories[name].state for name in ALARMS},
            "score": measured.score[layer].numpy(), "correct": measured.correct[layer].numpy().astype(float),
        })  # fmt: skip
    return rows


def print_checks(rows: list[dict]) -> None:
    """Shapes and mean z-values over the probe seeds; everything else is of the first seed."""
    print("\n| members | images seen | copies (%) | probe | rise [limits] (% of height) | peak score | peak accuracy "
          "| z of the score | z of the accuracy | shape by score | by accuracy | state | by the peak alone |\n"
          "|---|---|---|---|---|---|---|---|---|---|---|---|---|")  # fmt: skip

    def key(row: dict) -> tuple:
        return row["checkpoint"].num_members, row["probe"] == "logistic", row["checkpoint"].images_seen

    for _, group in groupby(sorted(rows, key=key), key):
        same = list(group)
        first, verdict, curve = same[0], same[0]["verdict"], same[0]["curve"]
        limits = f"{verdict.rise:+.1%} [{verdict.rise_low:+.1%}, {verdict.rise_high:+.1%}]"
        z = [np.mean([largest_z(row["curve"], quantity) for row in same]) for quantity in QUANTITIES.values()]
        shapes = [count(row[name].shape.value for row in same) for name in ("verdict", "by_accuracy")]
        print(f"| {first['checkpoint'].label} | {first['probe']} | {limits} | {max(curve.score.mean):.3f} "
              f"| {100 * curve.peak_accuracy:.1f} | {z[0]:+.1f} | {z[1]:+.1f} | {' | '.join(shapes)} "
              f"| {first['state'].value} | {first['peak_state'].value} |")  # fmt: skip


def print_leads(runs: list[list[dict]]) -> None:
    """One row for each run, probe and layer; by probe seed."""
    print("\n| members | probe | layer | by the rise alone, by probe seed | by the peak alone | copies over 1 % at |"
          "\n|---|---|---|---|---|---|")  # fmt: skip

    def key(run: list[dict]) -> tuple:
        return run[0]["checkpoint"].num_members, run[0]["probe"], run[0]["layer"].removeprefix("unet.")

    for (members, probe, layer), group in groupby(runs, key):
        same = list(group)
        seen = [
            ", ".join(first_seen(run, lambda row, name=name, state=state: row[name] is state) for run in same)
            for name, state in (
                ("state", AlarmState.MEMORIZING), ("peak_state", AlarmState.MEMORIZING)
            )
        ]  # fmt: skip
        copies = first_seen(same[0], lambda row: row["checkpoint"].copy_fraction > 0.01)
        print(f"| {members} | {probe} | {layer} | {' | '.join(seen)} | {copies} |")


def count(names: Iterable[str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(Counter(names).items()))


def correlations(runs: list[list[dict]], kind: str) -> dict:
    """What the simulation needs: covariance between levels, and how correlations between checks decay."""
    covariance_KK = np.mean([np.cov(run[-1][kind]) for run in runs], axis=0)
    deviation_K = np.sqrt(covariance_KK.diagonal())
    pairs = [(a, b) for run in runs for i, a in enumerate(run) for b in run[i + 1 :] if a["checkpoint"].step > 500]
    distances = [np.log(b["checkpoint"].step / a["checkpoint"].step) for a, b in pairs]
    of_levels, of_rises = zip(*(_correlation(a[kind], b[kind]) for a, b in pairs), strict=True)
    return {
        "height": round(float(np.mean([run[-1][kind][:2].mean() for run in runs])), 3),
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
    parser.add_argument("--seeds", type=int, default=3, help="number of probe seeds")
    parser.add_argument("--correlations", type=Path, help="write what benchmarks/verdict_errors.py simulates with")
    args = parser.parse_args()
    zoo = zoo_runs(args.zoo)
    runs = [
        follow(run, args.cache, probe, seed, LAYERS[-1])
        for run in zoo for probe in PROBES for seed in range(args.seeds)
    ]  # fmt: skip
    print_checks([row for run in runs for row in run])
    print_leads(runs + [follow(run, args.cache, "ridge", 0, layer) for run in zoo for layer in LAYERS[:-1]])
    if args.correlations:
        ridge = [run for run in runs if run[0]["probe"] == "ridge" and run[0]["seed"] == 0]
        sigmas = [round(sigma, 4) for sigma in ridge[0][0]["curve"].sigmas]
        record = {"sigmas": sigmas, **{kind: correlations(ridge, kind) for kind in QUANTITIES}}
        args.correlations.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
