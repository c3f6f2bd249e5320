"""Runs whose true curves are known, with the sampling errors that were measured on real networks."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ZOO = json.loads((Path(__file__).parent / "zoo_correlations.json").read_text())
NUM_CHECKS, HALVES_AT, NEVER = 50, 25, 10_000
BUMP = np.array([0, 0, 0.5, 0.9, 1, 0.5, 0, 0, 0])
FALL = np.array([0, 0, 0, 0.01, 0.04, 0.10, 0.25, 0.45, 0.65])
SEPARATED = np.array([0, 0.01, 0.03, 0.05, 0.08, 0.14, 0.25, 0.45, 0.65])


@dataclass(frozen=True)
class Truth:
    """The true curves of a run."""

    rise_T: np.ndarray  # by check, as a share of the largest rise
    fall_K: tuple[float, ...] = tuple(FALL)  # by level, as a share of the height
    height_T: np.ndarray | None = None  # by check, as a share of the first height
    lost_at: int = NEVER  # first check at which the rise is lost

    def curves(self, height: float, effect: float) -> np.ndarray:
        """(T, K) curves of this height whose rises are enlarged by `effect`."""
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
    """Joint sampling errors of the curves of a run.

    Between levels the covariance is that of the zoo. Between checks the first principal direction over levels (how
    easy an image is) stays correlated for longer than the others (what makes rises).
    """

    def __init__(self, kind: str, num_images: int) -> None:
        self.num_images = num_images
        measured = ZOO[kind]
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
        """(R, P, Q) covariances of means: contrasts `a` at check t with contrasts `b` at checks s (R,)."""
        return sum(
            between[t, s][:, None, None] * ((a_PK @ root) @ (b_QK @ root).T) for root, between in self.parts
        ) / self.num_images  # fmt: skip

    def draw(self, runs: int, generator: np.random.Generator) -> np.ndarray:
        """(R, T, K) errors of the curves of R runs."""
        noise = 0.0
        for root, between in self.parts:
            normal = generator.standard_normal((runs, NUM_CHECKS, root.shape[1]))
            noise = noise + np.linalg.cholesky(between) @ (normal @ root.T)
        return noise / self.num_images**0.5

    def images(self, generator: np.random.Generator) -> np.ndarray:
        """(T, K, M) values of images with mean 0 and exactly the covariance of the model."""
        roots = [np.kron(np.linalg.cholesky(between), root) for root, between in self.parts]
        root = np.concatenate(roots, 1)
        normal = generator.standard_normal((self.num_images, root.shape[1]))
        white = np.linalg.qr(normal - normal.mean(0))[0] * (self.num_images - 1) ** 0.5
        return (white @ root.T).T.reshape(NUM_CHECKS, -1, self.num_images)
