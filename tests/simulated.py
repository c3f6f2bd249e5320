"""Scores, curves and verdicts of known truth, drawn image by image."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor

from unimodal_monitor.forward.noise import paper_sigmas
from unimodal_monitor.signals import Measured
from unimodal_monitor.stats.estimate import Curve
from unimodal_monitor.stats.verdict import Shape, Verdict

STD = 0.5
SIGMAS = paper_sigmas(STD)
FALLING = (0.50, 0.50, 0.46, 0.42, 0.36, 0.30, 0.22, 0.14, 0.06)
HUMPED = (0.30, 0.30, 0.31, 0.34, 0.38, 0.39, 0.33, 0.22, 0.10)
RISING = (0.10, 0.10, 0.14, 0.18, 0.22, 0.26, 0.30, 0.34, 0.38)
FLAT = (0.30, 0.30, 0.30, 0.30, 0.30, 0.30, 0.25, 0.20, 0.10)
LOWER, SLIGHTLY_LOWER = (tuple(share * value for value in HUMPED) for share in (0.8, 0.97))
USELESS = (-0.02, -0.02, -0.02, -0.02, -0.03, -0.03, -0.02, -0.02, -0.02)
CORRELATION, SPREAD = 0.8, 0.3


def simulated_scores(mean: Sequence[float], *, num_images: int = 2000, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(K, N) float64 scores with the mean `mean` by level, the deviation SPREAD and the correlation CORRELATION
    between levels, and (K, N) correctness: an image is right as often as an accuracy of 0.2 + mean, easy images first.
    """
    generator = np.random.default_rng(seed)
    shared_N = generator.standard_normal(num_images)
    own_KN = generator.standard_normal((len(mean), num_images))
    latent_KN = CORRELATION**0.5 * shared_N + (1 - CORRELATION) ** 0.5 * own_KN
    mean_K1 = np.array(mean)[:, None]
    return torch.from_numpy(mean_K1 + SPREAD * latent_KN), torch.from_numpy(latent_KN > norm.ppf(0.8 - mean_K1))


def simulated_curve(mean: Sequence[float], *, layer: str = "mid_block", num_images: int = 2000, seed: int = 0) -> Curve:
    score_KN, correct_KN = simulated_scores(mean, num_images=num_images, seed=seed)
    return Curve.from_images(layer, SIGMAS, STD, score_KN=score_KN, score_name="Brier gain", correct_KN=correct_KN)


def made_verdict(shape: Shape, rise: float, *, error: float = 0.03) -> Verdict:
    """A verdict with a rise of a share `rise` of the height at low noise."""
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


def simulated_check(
    mean: Sequence[float] | None = HUMPED,
    *,
    gap: float | Sequence[float] | None = None,
    invariance: Sequence[float] | None = None,
    num_images: int = 2000,
    num_pairs: int = 130,
    seed: int = 0,
) -> Measured:
    """A check with scores of the mean `mean` by level, a denoising gap of `gap` times the memorizer's, and an
    invariance of the mean `invariance`; None was not measured. Errors are skewed, and partners share their noise.
    """
    score_KN, correct_KN = simulated_scores(HUMPED if mean is None else mean, num_images=num_images, seed=seed)
    errors: dict[str, Tensor] = {}
    if gap is not None:
        noise_KP, member_KP, heldout_KP = np.random.default_rng(seed).gamma(4.0, 0.25, (3, len(SIGMAS), num_pairs))
        memorizer_KP, gap_K1 = noise_KP + member_KP, np.broadcast_to(gap, len(SIGMAS))[:, None]
        arrays = noise_KP + heldout_KP + 1, memorizer_KP + 1 - gap_K1, memorizer_KP
        names = "heldout_error", "members_error", "memorizer_error"
        errors = {name: torch.from_numpy(array) for name, array in zip(names, arrays, strict=True)}
    return Measured(
        SIGMAS, STD, ("mid_block",), "Brier gain",
        score={} if mean is None else {"mid_block": score_KN},
        correct={} if mean is None else {"mid_block": correct_KN},
        invariance=None if invariance is None else simulated_scores(invariance, num_images=num_images, seed=seed)[0],
        **errors,
    )  # fmt: skip
