"""Type-I error and power of the features' losses, each as an alarm alone, over simulated runs, beside naive rules.

Runs are of 50 checks.

    python benchmarks/verdict_errors.py --runs 500
    python benchmarks/verdict_errors.py --runs 10000 --num-images 7000

Curves are drawn with the covariance between levels and the correlation between checks of `zoo_correlations.json`,
which `verdicts_on_zoo.py` measured image by image on real networks. The rules are implemented here once more, on
moments, for all runs at once. The first runs of each truth are repeated with the real `Alarm`, on images whose sample
moments are exactly those of the simulation; it must be raised at the same checks.
"""

import argparse
import time

import numpy as np
import torch
from former_alarm import LossAlone
from scipy.stats import binomtest
from scipy.stats import t as student
from simulated_runs import NEVER, NUM_CHECKS, ZOO, Errors, Truth, truths

from unimodal_monitor import Alarm, AlarmState, Curve, PeakFell, RiseLost, judge
from unimodal_monitor.alarm.alarm import AlarmMemory, share_of_check
from unimodal_monitor.signals import Measured
from unimodal_monitor.stats.max_t import NUM_DRAWS

SIGMAS = torch.tensor(ZOO["sigmas"], dtype=torch.float64)
NUM_LOW, PATIENCE, SIGNIFICANCE = 2, 2, 0.05
PEAK = PeakFell()
"""The fall of the peak by itself, with half of the error; the default alarm asks for an open gap as well."""


def contrasts(num_levels: int) -> tuple[np.ndarray, np.ndarray]:
    """(K, K) levels themselves, and (K - 3, K) interior levels minus the mean of the low-noise end."""
    levels = np.eye(num_levels)
    rises = levels[NUM_LOW:-1].copy()
    rises[:, :NUM_LOW] = -1 / NUM_LOW
    return levels, rises


class References:
    """The reference of every run, and the paired test of a later check against it."""

    def __init__(self, errors: Errors, contrast_PK: np.ndarray, mark: float, runs: int) -> None:
        self.errors, self.contrast, self.mark = errors, contrast_PK, mark
        self.limit, self.mean = np.full(runs, -np.inf), np.zeros(runs)
        self.check, self.level = np.zeros(runs, int), np.zeros(runs, int)

    def is_below(self, t: int, mean_RP: np.ndarray, error: float) -> np.ndarray:
        if t == 0:
            return np.zeros(len(mean_RP), bool)
        runs = np.arange(len(mean_RP))
        cross_RP = self.errors.covariance(t, self.check, self.contrast, self.contrast)[runs, :, self.level]
        here = np.diagonal(self.errors.covariance(t, np.array([t]), self.contrast, self.contrast)[0])
        there = np.array([
            np.diagonal(self.errors.covariance(s, np.array([s]), self.contrast, self.contrast)[0])
            for s in range(t)
        ])[self.check, self.level]  # fmt: skip
        variance_RP = here + (self.mark**2 * there)[:, None] - 2 * self.mark * cross_RP
        critical = student.isf(error / (mean_RP.shape[1] * t), self.errors.num_images - 1)
        upper_RP = mean_RP - (self.mark * self.mean)[:, None] + critical * np.sqrt(variance_RP)
        return (upper_RP < 0).all(1) & np.isfinite(self.limit)

    def keep(self, t: int, mean_RP: np.ndarray, limit_RP: np.ndarray) -> np.ndarray:
        runs, best = np.arange(len(mean_RP)), limit_RP.argmax(1)
        limit = limit_RP[runs, best]
        reaches = limit > 0
        better = reaches & (limit > self.limit)
        self.limit = np.where(better, limit, self.limit)
        self.mean = np.where(better, mean_RP[runs, best], self.mean)
        self.check = np.where(better, t, self.check)
        self.level = np.where(better, best, self.level)
        return reaches


def lower_limits(curve_RK: np.ndarray, contrast_PK: np.ndarray, errors: Errors, t: int, error: float) -> np.ndarray:
    spread = np.sqrt(np.diagonal(errors.covariance(t, np.array([t]), contrast_PK, contrast_PK)[0]))
    return curve_RK @ contrast_PK.T - student.isf(error, errors.num_images - 1) * spread


def alarm_checks(curves_RTK: np.ndarray, errors: Errors) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(R,) numbers of the checks at which RiseLost arms, RiseLost raises the alarm, and PEAK does; else NEVER."""
    runs, _, num_levels = curves_RTK.shape
    levels, rises = contrasts(num_levels)
    rule, beyond = RiseLost(), rises.copy()
    beyond[:, :NUM_LOW] *= 1 + rule.min_rise
    falls = levels[NUM_LOW:-1] - levels[-1]
    rise_best = References(errors, rises, rule.lost_fraction, runs)
    peak_best = References(errors, levels, 1 - PEAK.min_fall, runs)
    armed, raised, fell = np.full(runs, NEVER), np.full(runs, NEVER), np.full(runs, NEVER)
    num_lost, num_fell = np.zeros(runs, int), np.zeros(runs, int)
    for t in range(NUM_CHECKS):
        curve_RK = curves_RTK[:, t]
        error = 0.5 * SIGNIFICANCE * share_of_check(t + 1, planned=NUM_CHECKS)
        rise_RP = curve_RK @ rises.T
        num_lost = np.where(rise_best.is_below(t, rise_RP, error / 2), num_lost + 1, 0)
        num_fell = np.where(peak_best.is_below(t, curve_RK, error), num_fell + 1, 0)
        each = error / 2 / len(rises)
        limit_RP = lower_limits(curve_RK, beyond, errors, t, each)
        limit_RP = np.where(lower_limits(curve_RK, falls, errors, t, each) > 0, limit_RP, -np.inf)
        reaches = rise_best.keep(t, rise_RP, limit_RP)
        peak_best.keep(t, curve_RK, lower_limits(curve_RK, levels, errors, t, error / num_levels))
        armed = np.where(reaches, np.minimum(armed, t + 1), armed)
        raised = np.where(num_lost >= PATIENCE, np.minimum(raised, t + 1), raised)
        fell = np.where(num_fell >= PATIENCE, np.minimum(fell, t + 1), fell)
    return armed, raised, fell


def naive_checks(curves_RTK: np.ndarray) -> dict[str, np.ndarray]:
    """(R,) numbers of the checks at which rules without error control trigger, after ten checks of warm-up."""
    peak_RT = curves_RTK.argmax(2)
    moves = np.sign(np.diff(peak_RT, axis=1))
    left, streak = np.zeros(moves.shape, bool), np.zeros(len(moves), int)
    for t in range(moves.shape[1]):
        streak = np.where(moves[:, t] < 0, streak + 1, np.where(moves[:, t] > 0, 0, streak))
        left[:, t] = streak >= 3
    over_RT = curves_RTK[:, :, NUM_LOW:-1].max(2) - curves_RTK[:, :, :NUM_LOW].mean(2)
    window = np.cumsum(np.pad(over_RT, ((0, 0), (5, 0))), 1)
    triggers = {
        "argmax at the low end": peak_RT < NUM_LOW,
        "argmax moved left three times": np.pad(left, ((0, 0), (1, 0))),
        "moving average of 5 rises under half its best": (average := (window[:, 5:] - window[:, :-5]) / 5)
        < 0.5 * np.maximum.accumulate(average, axis=1),
    }
    return {name: _first(triggered) for name, triggered in triggers.items()}


def _first(triggered_RT: np.ndarray, warm_up: int = 10) -> np.ndarray:
    late = triggered_RT[:, warm_up:]
    return np.where(late.any(1), late.argmax(1) + 1 + warm_up, NEVER)


def measured_of(score_KM: np.ndarray) -> Measured:
    """The record of a check at which nothing but these scores was measured."""
    return Measured(SIGMAS, 0.5, ("layer",), "score", {"layer": torch.from_numpy(score_KM)})


def curve_of(measured: Measured) -> Curve:
    return Curve.from_images("layer", SIGMAS, 0.5, score_KN=measured.score["layer"], score_name="score")


def raised_at(alarm: Alarm, scores_TKM: list[np.ndarray]) -> int:
    """Number of the first check of a run at which the alarm is raised."""
    memory = AlarmMemory()
    for number, score_KM in enumerate(scores_TKM, 1):
        memory = alarm.update(memory, measured_of(score_KM), step=number)[0]
        if memory.state is AlarmState.MEMORIZING:
            return number
    return NEVER


def compare(curves_RTK: np.ndarray, errors: Errors, raised: np.ndarray, fell: np.ndarray, generator) -> int:
    """Number of runs compared with the real Alarm; ends the program if that is raised at another check."""
    values_TKM = errors.images(generator)
    for run, curves_TK in enumerate(curves_RTK):
        scores = [values_KM + curve_K[:, None] for values_KM, curve_K in zip(values_TKM, curves_TK, strict=True)]
        found = [
            raised_at(Alarm(rules=(LossAlone(rule),), planned_checks=NUM_CHECKS), scores) for rule in (RiseLost(), PEAK)
        ]
        if found != [raised[run], fell[run]]:
            raise SystemExit(f"run {run}: the real alarms are at {found}, the simulated at {raised[run]}, {fell[run]}")
    return len(curves_RTK)


def milliseconds(num_images: int = 10_000, repeats: int = 20) -> tuple[float, float]:
    """Median time of a verdict, from the scores of every image, and of one update of the default alarm."""
    generator = np.random.default_rng(0)
    measured = measured_of(0.14 + 0.2 * generator.standard_normal((len(SIGMAS), num_images)))
    alarm, memory, seconds = Alarm(), AlarmMemory(), []
    for repeat in range(repeats):
        start = time.perf_counter()
        judge(curve_of(measured))
        middle = time.perf_counter()
        memory = alarm.update(memory, measured, step=repeat + 1)[0]
        seconds.append((middle - start, time.perf_counter() - middle))
    judging, updating = 1000 * np.median(seconds, axis=0)
    return judging, updating


def false_alarms(triggered: np.ndarray, truth: Truth) -> str:
    """Share of the runs with an alarm before the rise is lost, with its exact 95 % interval."""
    num_false, runs = int((triggered < truth.lost_at).sum()), len(triggered)
    low, high = binomtest(num_false, runs).proportion_ci(0.95, "exact")
    return f"{num_false / runs:.4f} [{low:.4f}, {high:.4f}]"


def power(triggered: np.ndarray, truth: Truth) -> str:
    """Share of the runs with an alarm after the loss, and the median delay in checks."""
    seen = triggered[(triggered >= truth.lost_at) & (triggered < NEVER)]
    return f"{len(seen) / len(triggered):.3f}, {np.median(seen) - truth.lost_at:.0f}" if len(seen) else "0.000"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500, help="runs for each truth")
    parser.add_argument("--num-images", type=int, default=2_000, help="scored images")
    parser.add_argument("--compare", type=int, default=5, help="runs of each truth to repeat with the real Alarm")
    parser.add_argument("--rise", type=float, default=0.05, help="largest rise, as a share of the curve's height")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    start, generator = time.perf_counter(), np.random.default_rng(args.seed)
    score, accuracy = Errors("score", args.num_images), Errors("correct", args.num_images)
    size = f"{args.runs:,} runs of {NUM_CHECKS} checks, {args.num_images:,} scored images"
    print(f"{size}, rise {args.rise:.0%} of the height, significance {SIGNIFICANCE}\n")
    print("| truth | armed | RiseLost | peak alone | either | argmax at the low end | argmax moved left three times "
          "| moving average of 5 rises under half its best |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
    num_compared = 0
    for name, truth in truths(args.rise).items():
        curves = truth.curves(ZOO["score"]["height"], 1.0) + score.draw(args.runs, generator)
        armed, raised, fell = alarm_checks(curves, score)
        num_compared += compare(curves[: args.compare], score, raised, fell, generator)
        by_accuracy = truth.curves(ZOO["correct"]["height"], 0.5) + accuracy.draw(args.runs, generator)
        found = [raised, fell, np.minimum(raised, fell), *naive_checks(by_accuracy).values()]
        cells = [f"{np.mean(armed < NEVER):.3f}", *(false_alarms(triggered, truth) for triggered in found)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print(f"| {name}: power, median delay in checks | | {' | '.join(power(each, truth) for each in found)} |")
    judging, updating = milliseconds()
    print(f"\n9 levels, 10,000 images, {NUM_DRAWS:,} draws: {judging:.0f} ms to judge, {updating:.0f} ms for the alarm")
    print(f"the real Alarm agrees in {num_compared} of {num_compared} runs; {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
