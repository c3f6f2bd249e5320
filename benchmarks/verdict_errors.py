"""Errors of the alarm over whole runs, simulated: 10,000 runs of 50 checks for each truth, beside naive rules.

    python benchmarks/verdict_errors.py [--runs 10000] [--num-images 2000]

Curves are drawn with the covariance between levels and the correlation between checks of `zoo_correlations.json`,
which was measured image by image on real networks (`verdicts_on_zoo.py`). The alarm is written here once more, for
all runs at once; on the first runs of each truth it is compared with the real `Alarm`, which sees images made to have
exactly the moments of the simulated curves, and must be raised at the same checks.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.stats import beta
from scipy.stats import t as student

from unimodal_monitor.alarm.alarm import Alarm, AlarmState
from unimodal_monitor.alarm.rules.base import Look
from unimodal_monitor.alarm.rules.peak import PeakFell
from unimodal_monitor.alarm.rules.rise import RiseLost
from unimodal_monitor.alarm.spending import share_of_check
from unimodal_monitor.stats.estimate import Curve, Estimate, Outcomes
from unimodal_monitor.stats.max_t import NUM_DRAWS
from unimodal_monitor.stats.verdict import judge

MEASURED = json.loads((Path(__file__).parent / "zoo_correlations.json").read_text())
NUM_CHECKS, NUM_LOW, PATIENCE, SIGNIFICANCE, NEVER = 50, 2, 2, 0.05, 10_000
HALVES_AT = 25
BUMP = np.array([0, 0, 0.5, 0.9, 1, 0.5, 0, 0, 0])
FALL = np.array([0, 0, 0, 0.01, 0.04, 0.10, 0.25, 0.45, 0.65])
SEPARATED = np.array([0, 0.01, 0.03, 0.05, 0.08, 0.14, 0.25, 0.45, 0.65])


@dataclass(frozen=True)
class Truth:
    """What the curves of a run are: the rise and the height by check, as fractions; from where the rise is lost."""

    rise_T: np.ndarray
    fall_K: tuple[float, ...] = tuple(FALL)
    height_T: np.ndarray | None = None
    lost_at: int = NEVER

    def curves(self, height: float, effect: float) -> np.ndarray:
        """(T, K)."""
        heights = height * (np.ones(NUM_CHECKS) if self.height_T is None else self.height_T)
        return heights[:, None] * (1 - np.array(self.fall_K) + effect * self.rise_T[:, None] * BUMP)


def truths(rise: float) -> dict[str, Truth]:
    checks = np.arange(1, NUM_CHECKS + 1)
    grown, none = rise * np.clip(checks / 10, 0, 1), np.zeros(NUM_CHECKS)
    halved = np.where(checks < HALVES_AT, 1, 0.5) * grown
    fading = np.clip((30 - checks) / 10, 0, 1) * grown
    return {
        "rise present throughout": Truth(grown),
        "rise falls to exactly half (worst case)": Truth(halved),
        "flat, then falling": Truth(none),
        "well separated": Truth(none, tuple(SEPARATED)),
        "rise fades": Truth(fading, height_T=1 - 0.10 * np.clip((checks - 20) / 20, 0, 1), lost_at=25),
    }


class Errors:
    """Joint errors of the curves of a run: between levels as measured, between checks two correlations.

    The first principal direction over levels (how easy an image is) persists longer than the rest (what makes rises).
    """

    def __init__(self, kind: str, num_images: int) -> None:
        self.num_images = num_images
        measured = MEASURED[kind]
        deviation = np.array(measured["deviation"])
        values, vectors = np.linalg.eigh(np.array(measured["correlation"]) * np.outer(deviation, deviation))
        first = vectors[:, -1:] * values[-1] ** 0.5
        rest = vectors[:, :-1] * np.clip(values[:-1], 0, None) ** 0.5
        self.parts = [(first, self._between(**measured["first"])), (rest, self._between(**measured["rest"]))]

    def _between(self, *, floor: float, scale: float, near: float) -> np.ndarray:
        """(T, T) correlation: near * (floor + (1 - floor) exp(-|log step ratio| / scale)), one on the diagonal."""
        logs = np.log(np.arange(1, NUM_CHECKS + 1))
        correlation = near * (floor + (1 - floor) * np.exp(-np.abs(logs[:, None] - logs) / scale))
        np.fill_diagonal(correlation, 1)
        return correlation

    def covariance(self, t: int, s: np.ndarray, a_PK: np.ndarray, b_QK: np.ndarray) -> np.ndarray:
        """(R, P, Q) covariance of contrasts `a` at check t with contrasts `b` at checks s (R,), of means of images."""
        return sum(
            between[t, s][:, None, None] * ((a_PK @ root) @ (b_QK @ root).T) for root, between in self.parts
        ) / self.num_images  # fmt: skip

    def draw(self, runs: int, generator: np.random.Generator) -> np.ndarray:
        """(R, T, K)."""
        noise = 0.0
        for root, between in self.parts:
            normal = generator.standard_normal((runs, NUM_CHECKS, root.shape[1]))
            noise = noise + np.linalg.cholesky(between) @ (normal @ root.T)
        return noise / self.num_images**0.5

    def images(self, generator: np.random.Generator) -> np.ndarray:
        """(T, K, M) image values of mean 0 whose sample covariance is exactly that of the model."""
        roots = [np.kron(np.linalg.cholesky(between), root) for root, between in self.parts]
        root = np.concatenate(roots, 1)
        normal = generator.standard_normal((self.num_images, root.shape[1]))
        white = np.linalg.qr(normal - normal.mean(0))[0] * (self.num_images - 1) ** 0.5
        return (white @ root.T).T.reshape(NUM_CHECKS, -1, self.num_images)


def contrasts(num_levels: int) -> tuple[np.ndarray, np.ndarray]:
    """(K, K) levels themselves, and (K - 3, K) interior levels minus the pooled low end."""
    levels = np.eye(num_levels)
    rises = levels[NUM_LOW:-1].copy()
    rises[:, :NUM_LOW] = -1 / NUM_LOW
    return levels, rises


class BestSoFar:
    """The best check of every run, and the paired test of a later check against it."""

    def __init__(self, errors: Errors, contrast_PK: np.ndarray, mark: float, runs: int) -> None:
        self.errors, self.contrast, self.mark = errors, contrast_PK, mark
        self.limit, self.mean = np.full(runs, -np.inf), np.zeros(runs)
        self.check, self.level = np.zeros(runs, int), np.zeros(runs, int)

    def is_under(self, t: int, mean_RP: np.ndarray, error: float) -> np.ndarray:
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
    """(R,) checks, from 1, at which RiseLost arms, RiseLost is raised and PeakFell is; NEVER where they are not."""
    runs, _, num_levels = curves_RTK.shape
    levels, rises = contrasts(num_levels)
    rule, beyond = RiseLost(), rises.copy()
    beyond[:, :NUM_LOW] *= 1 + rule.min_rise
    falls = levels[NUM_LOW:-1] - levels[-1]
    rise_best, peak_best = BestSoFar(errors, rises, rule.lost_fraction, runs), BestSoFar(errors, levels, 0.95, runs)
    armed, raised, fell = np.full(runs, NEVER), np.full(runs, NEVER), np.full(runs, NEVER)
    num_lost, num_fell = np.zeros(runs, int), np.zeros(runs, int)
    for t in range(NUM_CHECKS):
        curve_RK = curves_RTK[:, t]
        error = 0.5 * SIGNIFICANCE * share_of_check(t + 1, planned=NUM_CHECKS)
        rise_RP = curve_RK @ rises.T
        num_lost = np.where(rise_best.is_under(t, rise_RP, error / 2), num_lost + 1, 0)
        num_fell = np.where(peak_best.is_under(t, curve_RK, error), num_fell + 1, 0)
        each = error / 2 / len(rises)
        surely = lower_limits(curve_RK, beyond, errors, t, each)
        surely = np.where(lower_limits(curve_RK, falls, errors, t, each) > 0, surely, -np.inf)
        reaches = rise_best.keep(t, rise_RP, surely)
        peak_best.keep(t, curve_RK, lower_limits(curve_RK, levels, errors, t, error / num_levels))
        armed = np.where(reaches, np.minimum(armed, t + 1), armed)
        raised = np.where(num_lost >= PATIENCE, np.minimum(raised, t + 1), raised)
        fell = np.where(num_fell >= PATIENCE, np.minimum(fell, t + 1), fell)
    return armed, raised, fell


def naive_checks(curves_RTK: np.ndarray) -> dict[str, np.ndarray]:
    """(R,) checks at which rules without an error fire, given ten checks of warm-up."""
    peak_RT = curves_RTK.argmax(2)
    moves = np.sign(np.diff(peak_RT, axis=1))
    left, streak = np.zeros(moves.shape, bool), np.zeros(len(moves), int)
    for t in range(moves.shape[1]):
        streak = np.where(moves[:, t] < 0, streak + 1, np.where(moves[:, t] > 0, 0, streak))
        left[:, t] = streak >= 3
    over_RT = curves_RTK[:, :, NUM_LOW:-1].max(2) - curves_RTK[:, :, :NUM_LOW].mean(2)
    window = np.cumsum(np.pad(over_RT, ((0, 0), (5, 0))), 1)
    fires = {
        "argmax at the low end": peak_RT < NUM_LOW,
        "argmax moved left three times": np.pad(left, ((0, 0), (1, 0))),
        "moving average of 5 rises under half its best": (average := (window[:, 5:] - window[:, :-5]) / 5)
        < 0.5 * np.maximum.accumulate(average, axis=1),
    }
    return {name: _first(fired) for name, fired in fires.items()}


def _first(fired_RT: np.ndarray, warm_up: int = 10) -> np.ndarray:
    late = fired_RT[:, warm_up:]
    return np.where(late.any(1), late.argmax(1) + 1 + warm_up, NEVER)


def agreement(curves_RTK: np.ndarray, errors: Errors, raised: np.ndarray, fell: np.ndarray, generator) -> int:
    """Number of runs compared; raises if the real Alarm is raised at another check."""
    values_TKM = errors.images(generator)
    for run, curves_TK in enumerate(curves_RTK):
        alarms = Alarm(watched=()), Alarm(rules=(PeakFell(),), watched=())
        found = [NEVER, NEVER]
        for t in range(NUM_CHECKS):
            score_KM = values_TKM[t] + curves_TK[t][:, None]
            estimate = Estimate("score", tuple(score_KM.mean(1)), ())
            curve = Curve("layer", tuple(MEASURED["sigmas"]), 0.5, errors.num_images, estimate, estimate)
            for which, alarm in enumerate(alarms):
                state = alarm.update(Look(t + 1, t + 1, curve, score_KM))
                if state is AlarmState.RAISED and found[which] == NEVER:
                    found[which] = t + 1
        if found != [raised[run], fell[run]]:
            raise SystemExit(f"run {run}: the real alarms are at {found}, the simulated at {raised[run]}, {fell[run]}")
    return len(curves_RTK)


def milliseconds(num_images: int = 10_000, repeats: int = 20) -> tuple[float, float]:
    """Of one judge call, from the scores of every image to the verdict, and of one look of the alarm."""
    generator = np.random.default_rng(0)
    values_KM = 0.14 + 0.2 * generator.standard_normal((len(MEASURED["sigmas"]), num_images))
    outcomes = Outcomes(torch.from_numpy(values_KM > 0).unsqueeze(1), torch.from_numpy(values_KM).unsqueeze(1), "score")
    alarm, judging, looking = Alarm(), [], []
    for repeat in range(repeats):
        start = time.perf_counter()
        curve = Curve.from_outcomes("layer", torch.tensor(MEASURED["sigmas"]), 0.5, outcomes)
        judge(curve)
        middle = time.perf_counter()
        alarm.update(Look(repeat + 1, repeat + 1, curve, values_KM))
        judging.append(middle - start)
        looking.append(time.perf_counter() - middle)
    return 1000 * float(np.median(judging)), 1000 * float(np.median(looking))


def describe(fired: np.ndarray, truth: Truth) -> str:
    """False alarms with their exact 95 % interval; where the rise is lost also power and delay."""
    runs, num_false = len(fired), int((fired < truth.lost_at).sum())
    low = beta.ppf(0.025, num_false, runs - num_false + 1) if num_false else 0.0
    high = beta.ppf(0.975, num_false + 1, runs - num_false) if num_false < runs else 1.0
    text = f"{num_false / runs:.4f} [{low:.4f}, {high:.4f}]"
    if truth.lost_at == NEVER:
        return f"{text} | |"
    seen = fired[(fired >= truth.lost_at) & (fired < NEVER)]
    delay = f"{np.median(seen) - truth.lost_at:.0f}" if len(seen) else "-"
    return f"{text} | {len(seen) / runs:.3f} | {delay}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--num-images", type=int, default=2_000, help="scored, not counting those that fit the probe")
    parser.add_argument("--compare", type=int, default=5, help="runs of each truth that the real Alarm repeats")
    parser.add_argument("--rise", type=float, default=0.05, help="of the curve's height, where it is present")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    start, generator = time.perf_counter(), np.random.default_rng(args.seed)
    score, accuracy = Errors("score", args.num_images), Errors("correct", args.num_images)
    num_compared = 0
    size = f"{args.runs:,} runs of {NUM_CHECKS} checks, {args.num_images:,} scored images"
    print(f"{size}, rise {args.rise:.0%} of the height, significance {SIGNIFICANCE}\n")
    print("| truth | rule | false alarms per run [95 %] | power | median delay |\n|---|---|---|---|---|")
    for name, truth in truths(args.rise).items():
        curves = truth.curves(MEASURED["score"]["height"], 1.0) + score.draw(args.runs, generator)
        armed, raised, fell = alarm_checks(curves, score)
        num_compared += agreement(curves[: args.compare], score, raised, fell, generator)
        found = {"RiseLost (default)": raised, "PeakFell": fell, "either": np.minimum(raised, fell)}
        by_accuracy = truth.curves(MEASURED["correct"]["height"], 0.5) + accuracy.draw(args.runs, generator)
        for rule, fired in {**found, **naive_checks(by_accuracy)}.items():
            print(f"| {name} | {rule} | {describe(fired, truth)} |")
        print(f"| {name} | (armed in {np.mean(armed < NEVER):.3f} of the runs) | | | |", flush=True)
    judging, looking = milliseconds()
    print(f"\n9 levels, 10,000 images, {NUM_DRAWS:,} draws: {judging:.0f} ms to judge, {looking:.0f} ms for the alarm")
    print(f"the real Alarm agrees in {num_compared} of {num_compared} runs; {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
