"""Curves, verdicts and checks of known truth, drawn image by image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import norm

from unimodal_monitor.alarm.alarm import AlarmState
from unimodal_monitor.check import Check
from unimodal_monitor.forward.noise import paper_sigmas
from unimodal_monitor.stats.estimate import Curve, Outcomes
from unimodal_monitor.stats.verdict import Shape, Verdict, judge

STD = 0.5
SIGMAS = paper_sigmas(STD)
FALLING = (0.50, 0.50, 0.46, 0.42, 0.36, 0.30, 0.22, 0.14, 0.06)
HUMPED = (0.30, 0.30, 0.31, 0.34, 0.38, 0.39, 0.33, 0.22, 0.10)
RISING = (0.10, 0.10, 0.14, 0.18, 0.22, 0.26, 0.30, 0.34, 0.38)
USELESS = (-0.02, -0.02, -0.02, -0.02, -0.03, -0.03, -0.02, -0.02, -0.02)
CORRELATION, SPREAD = 0.8, 0.3


def simulated_outcomes(mean: Sequence[float], *, num_images: int = 2000, num_draws: int = 1, seed: int = 0) -> Outcomes:
    """Outcomes whose scores have the mean `mean` by level, the deviation SPREAD and the correlation CORRELATION.

    An image is right as often as an accuracy of 0.2 + mean says, on the easy images first.
    """
    generator = np.random.default_rng(seed)
    shared_M = generator.standard_normal(num_images)
    own_KRM = generator.standard_normal((len(mean), num_draws, num_images))
    latent_KRM = CORRELATION**0.5 * shared_M + (1 - CORRELATION) ** 0.5 * own_KRM
    mean_K11 = np.array(mean)[:, None, None]
    correct_KRM = torch.from_numpy(latent_KRM > norm.ppf(0.8 - mean_K11))
    score_KRM = torch.from_numpy(mean_K11 + SPREAD * latent_KRM).float()
    return Outcomes(correct_KRM, score_KRM, "Brier gain")


def simulated_curve(mean: Sequence[float], *, layer: str = "mid_block", num_images: int = 2000, seed: int = 0) -> Curve:
    return Curve.from_outcomes(layer, SIGMAS, STD, simulated_outcomes(mean, num_images=num_images, seed=seed))


def simulated_check(
    step: int, mean: Sequence[float] = HUMPED, *, state: AlarmState = AlarmState.ARMED, layers: int = 2
) -> Check:
    names = [f"up_blocks.{layer}" for layer in range(layers)]
    outcomes = {name: simulated_outcomes(mean, num_images=300, seed=seed) for seed, name in enumerate(names)}
    curves = tuple(Curve.from_outcomes(name, SIGMAS, STD, outcome) for name, outcome in outcomes.items())
    verdict = judge(curves[-1])
    return Check(
        step=step,
        curves=curves,
        verdict=verdict,
        state=state,
        evidence=f"evidence of step {step}",
        weights="ema",
        seconds=1.5,
        outcomes=outcomes,
    )


def simulated_testimony(*, gap: float = 0.3, icr: float = 0.4, auc: float = 0.6) -> dict[str, Any]:
    """What witnesses say that were shown as many images as the others: best at level 3, by 0.1 less at any other.

    Limits lie 0.05 and 0.07 from the values; the gap is normalized at levels 2 to 5.
    """
    distance_K = [0.0 if level == 3 else 0.1 for level in range(len(SIGMAS))]
    value_L = [gap - distance_K[level] for level in range(2, 6)]
    normalized = {"levels_L": [2, 3, 4, 5], "value_L": value_L, "confidence": 0.95}
    normalized |= {"low_L": [value - 0.05 for value in value_L], "high_L": [value + 0.07 for value in value_L]}
    auc_K = [auc - distance for distance in distance_K]
    limits = {"low_K": [value - 0.05 for value in auc_K], "high_K": [value + 0.07 for value in auc_K]}
    return {
        "gap": {"gap_K": [0.01 * gap - 0.01 * distance for distance in distance_K], "normalized": normalized},
        "contamination": {"icr_K": [icr + distance for distance in distance_K], "error_K": [0.02] * len(SIGMAS)},
        "spikiness": {"auc_K": auc_K, **limits},
        "missing": {},
    }


def made_verdict(shape: Shape, rise: float, *, error: float = 0.01) -> Verdict:
    return Verdict(
        shape=shape,
        quantity="Brier gain",
        rise=rise,
        rise_low=rise - error,
        rise_high=rise + error,
        peak_sigma=0.14,
        height=0.3,
        p_value=0.5,
        reason="made by hand",
    )
