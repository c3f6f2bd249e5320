"""Measured: the per-image numbers of one check, from which every signal is computed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor

from unimodal_monitor.stats.estimate import Estimate


@dataclass(frozen=True, eq=False)
class Measured:
    """Per-image numbers of one check, of the same images and noise at every check; None where not measured.

    M held-out images are scored by the probe. P of them run to the output, each beside a member with the same noise.
    V of them are seen in two views.

    >>> import torch
    >>> Measured(torch.tensor([0.1, 0.2]), 0.5, ("mid_block",), "Brier gain").heldout_error is None
    True
    """

    sigmas: Tensor  # (K,) float64 noise levels, ascending, in data units
    data_std: float
    layers: tuple[str, ...]  # the judged one last
    score_name: str  # with its unit
    score: Mapping[str, Tensor] = field(default_factory=dict)  # (K, M) float64 by layer; empty without labels
    correct: Mapping[str, Tensor] = field(default_factory=dict)  # (K, M) bool by layer
    heldout_error: Tensor | None = None  # (K, P) mean squared denoising error, in squared data units
    members_error: Tensor | None = None  # (K, P)
    memorizer_error: Tensor | None = None  # (K, P) of the closed-form memorizer on the same noised members
    heldout_covariates: Tensor | None = None  # (P, S) image statistics; None for vectors
    members_covariates: Tensor | None = None  # (P, S)
    heldout_spread: Tensor | None = None  # (K, P) standard deviation of all that the judged layer puts out for an image
    members_spread: Tensor | None = None  # (K, P)
    invariance: Tensor | None = None  # (K, V) jackknife pseudo-values of 1 - ICR
    num_features: int = 0  # that vary, behind `invariance`
    num_directions: int = 0  # of the space in which `invariance` was measured
    shift: str | None = None  # sentence: held-out images differ from members, so that the gap cannot be trusted
    missing: Mapping[str, str] = field(default_factory=dict)  # why a signal was not measured, by its name

    @property
    def judged_score(self) -> np.ndarray:
        """(K, M) scores of the judged layer; without labels the invariance.

        Raises:
            ValueError: If neither was measured.
        """
        values_KM = self.score.get(self.layers[-1], self.invariance)
        if values_KM is None:
            raise ValueError(f"without labels the invariance is judged: {self.missing.get('invariance')}")
        return values_KM.numpy()

    @property
    def covariates(self) -> np.ndarray | None:
        """(P, S) image statistics of each member less its partner's."""
        if self.members_covariates is None or self.heldout_covariates is None:
            return None
        return (self.members_covariates - self.heldout_covariates).numpy()

    @property
    def why_no_gap(self) -> str | None:
        """Why members and held-out images cannot be compared; None where they can."""
        if self.members_error is None or self.heldout_error is None:
            return self.missing.get("denoising_gap", "their errors were not measured")
        is_finite = bool(self.members_error.isfinite().all() and self.heldout_error.isfinite().all())
        return None if is_finite else "their errors are not finite"

    def without_errors(self, reason: str | None) -> "Measured":
        """The same without the denoising errors if a reason is given: no gap is then measured."""
        if reason is None:
            return self
        missing = {**self.missing, "normalized_gap": reason, "denoising_gap": reason}
        return replace(self, members_error=None, heldout_error=None, memorizer_error=None, missing=missing)


Signal = Callable[[Measured], Estimate | None]
"""What a signal is: a function of a check's numbers; None where what it needs was not measured."""
