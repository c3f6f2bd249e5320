"""All signals on networks whose copies were counted: which leads, which lags.

    python benchmarks/zoo.py --zoo ZOO --data CIFAR10 --cache CACHE --num-images 5400
    python benchmarks/signals_on_zoo.py --zoo ZOO --cache CACHE

The probe takes the cached features; members, their held-out partners and second views pass through every network.
What was measured is kept in CACHE.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from cached import cached_go, cached_probe_set
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from torch import Tensor
from zoo import LAYERS, Checkpoint, first_seen, load_denoiser, zoo_runs

from unimodal_monitor import Alarm, AlarmState, GapOpened, PeakFell, RidgeProbe, RiseLost, judge
from unimodal_monitor.alarm.alarm import AlarmMemory
from unimodal_monitor.check import curves_of
from unimodal_monitor.copies.sampler import heun_forwards
from unimodal_monitor.forward.hooks import capture
from unimodal_monitor.forward.layers import find_layers
from unimodal_monitor.forward.noise import karras_sigmas
from unimodal_monitor.method import Plan, forward, measure, plan_check
from unimodal_monitor.signals import DEFAULT_SIGNALS, Estimate, Measured
from unimodal_monitor.signals.invariance import invariance_values
from unimodal_monitor.signals.spread import spread_auc

JUDGED = LAYERS[-1]
NUM_STEPS = 18
"""Steps of the sampler with which the copies were counted."""
ALPHA = 0.0005
"""Type-I error of each test at one check: that of an alarm at 5 % with 50 planned checks."""
ALARMS = {"alarm": Alarm()}
RULES = {
    "rise": RiseLost(),
    "peak": PeakFell(),
    "normalized_gap": GapOpened(0.1),
    "invariance": PeakFell("invariance", min_fall=0.005),
}


@torch.no_grad()
def measure_checkpoint(checkpoint: Checkpoint, plan: Plan, args: argparse.Namespace) -> Measured:
    """One check; with a grid, the invariance is that of wider features, means over the cells of the grid."""
    denoiser = load_denoiser(checkpoint)
    layers = find_layers(denoiser.network, JUDGED)
    num_levels, cells = len(plan.sigmas), []

    def keep_cells(module: object, inputs: object, output: Tensor) -> None:
        pooled = F.adaptive_avg_pool2d(output.float(), args.grid).flatten(1)
        cells.append(pooled.view(num_levels, len(pooled) // num_levels, -1))

    layers[JUDGED].register_forward_hook(keep_cells)
    with capture(layers) as captured:
        forwards = partial(forward, denoiser, captured, sigmas=plan.sigmas, seed=args.seed, batch_size=432)
        measured = measure(cached_go(args.cache / f"{checkpoint.path.stem}.pt", plan, forwards), plan)
    if args.grid == 1:
        return measured
    cells_KND, num_views = torch.cat(cells, 1), len(plan.passes["views"].images)  # paired, members, views
    values_KN, num_features, num_directions = invariance_values(cells_KND[:, :num_views], cells_KND[:, -num_views:])
    return replace(measured, invariance=values_KN, num_features=num_features, num_directions=num_directions)


def follow(run: list[Checkpoint], args: argparse.Namespace) -> list[dict]:
    """A check at each checkpoint of a run: what both alarms make of it, and every signal by itself."""
    probe_set, sigmas = cached_probe_set(args.cache, run[0].num_members, seed=args.seed)
    plan = plan_check(probe_set, RidgeProbe(), layers=(JUDGED,), sigmas=sigmas, seed=args.seed)
    num_views = len(plan.passes["views"].images)
    print(f"{run[0].num_members} members: {plan.num_pairs} pairs, {num_views} images in two views, shift: {plan.shift}")
    memories, references, rows = dict.fromkeys(ALARMS, AlarmMemory()), dict.fromkeys(RULES), []
    for number, checkpoint in enumerate(run, 1):
        path = args.cache / f"measured_{args.grid}_{args.seed}_{checkpoint.path.name}.pt"
        if not path.exists():
            torch.save(measure_checkpoint(checkpoint, plan, args), path)
        measured = torch.load(path, weights_only=False)
        (curve,) = curves_of(measured)
        verdict, significant = judge(curve), {}
        for name, alarm in ALARMS.items():
            memories[name] = alarm.update(memories[name], measured, step=checkpoint.step)[0]
        for name, rule in RULES.items():
            found = rule.test(measured, references[name], number=number, step=checkpoint.step, alpha=ALPHA)
            references[name], significant[name] = found.reference, found.triggered
        spread = spread_auc(measured, confidence=1 - 2 * ALPHA / len(sigmas))
        significant["spread_auc"] = spread.headline.low > 0.5
        rows.append({
            "checkpoint": checkpoint, "measured": measured, "curve": curve, "verdict": verdict,
            "signals": {estimate.name: estimate for estimate in (signal(measured) for signal in DEFAULT_SIGNALS)},
            "significant": significant, **{name: memory.state for name, memory in memories.items()},
        })  # fmt: skip
    return rows


def value_of(name: str) -> Callable[[dict], float]:
    """The headline of a signal; of the invariance its negative, which rises as a network memorizes."""
    sign = -1 if name == "invariance" else 1
    return lambda row: sign * row["signals"][name].headline.value


QUANTITIES: dict[str, tuple[str, Callable[[dict], float], str | None]] = {
    "rise": ("rise of the score (falls)", lambda row: -row["verdict"].rise, None),
    "peak": ("peak score (falls)", lambda row: -max(row["curve"].score.mean), None),
    "accuracy": ("peak accuracy (falls)", lambda row: -row["curve"].peak_accuracy, None),
    "normalized_gap": ("normalized gap", value_of("normalized_gap"), "members_error"),
    "invariance": ("invariance (falls)", value_of("invariance"), "invariance"),
    "spread_auc": ("activation spread, AUC", value_of("spread_auc"), "members_spread"),
}
"""Title, value, and which numbers took forwards beyond the probe's: one each."""


def print_table(rows: list[dict]) -> None:
    print("\n| members | images seen | copies (%) | rise (%) | peak score | peak accuracy (%) | normalized gap [95 %] "
          "| invariance [95 %] | spread AUC [95 %] | alarm | alarm without labels |"
          "\n|---|---|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    for row in rows:
        curve, signals = row["curve"], row["signals"]
        shown = " | ".join(with_limits(signals[name]) for name in ("normalized_gap", "invariance", "spread_auc"))
        print(f"| {row['checkpoint'].label} | {100 * row['verdict'].rise:+.1f} | {max(curve.score.mean):.4f} "
              f"| {100 * curve.peak_accuracy:.1f} | {shown} "
              f"| {' | '.join(row[name].value for name in ALARMS)} |")  # fmt: skip


def with_limits(estimate: Estimate) -> str:
    _, value, low, high = estimate.headline
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def print_summary(runs: list[list[dict]]) -> None:
    print("\n| quantity | forwards of a check beyond the probe's | rank correlation with copies, 256 members "
          "| AUROC for copies over 1 %, 256 members | all runs | first significant, 256 members | 1,024 members "
          "| 49,152 members |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
    trained = [[row for row in run if row["checkpoint"].step > 500] for run in runs]
    for name, (title, value, numbers) in QUANTITIES.items():
        copies = [row["checkpoint"].copy_fraction for row in trained[0]]
        correlation = spearmanr([value(row) for row in trained[0]], copies).statistic
        areas = [auroc(rows, value) for rows in (trained[0], [row for run in trained for row in run])]
        num_forwards = getattr(runs[-1][0]["measured"], numbers).numel() if numbers else 0
        firsts = [
            first_seen(run, lambda row, name=name: row["significant"][name]) if name != "accuracy" else "no test"
            for run in runs
        ]
        print(f"| {title} | {num_forwards:,} | {correlation:+.2f} | {areas[0]:.2f} | {areas[1]:.2f} "
              f"| {' | '.join(firsts)} |")  # fmt: skip


def auroc(rows: list[dict], value: Callable[[dict], float]) -> float:
    """AUROC of a quantity for copies over 1 %."""
    return roc_auc_score([row["checkpoint"].copy_fraction > 0.01 for row in rows], [value(row) for row in rows])


def print_alarms(runs: list[list[dict]]) -> None:
    print("\n| alarm | first raised, 256 members | 1,024 members | 49,152 members |\n|---|---|---|---|")
    for name in ALARMS:
        firsts = [first_seen(run, lambda row, name=name: row[name] is AlarmState.MEMORIZING) for run in runs]
        print(f"| {name} | {' | '.join(firsts)} |")
    num_samples = runs[0][0]["checkpoint"].num_samples
    num_forwards = num_samples * heun_forwards(karras_sigmas(NUM_STEPS))
    print(f"\nTo count copies among {num_samples:,} samples takes {num_forwards:,} forwards.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True, help="where benchmarks/zoo.py wrote the features")
    parser.add_argument("--grid", type=int, default=1, help="cells a side of wider features, for the invariance alone")
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise and of the split of the unseen images")
    args = parser.parse_args()
    runs = [follow(run, args) for run in zoo_runs(args.zoo)]
    print_table([row for run in runs for row in run])
    print_summary(runs)
    print_alarms(runs)


if __name__ == "__main__":
    main()
