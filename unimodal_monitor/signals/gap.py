"""DenoisingGap: how much better the network denoises what it trains on than what it never sees."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unimodal_monitor.signals.base import Signal, as_lists
from unimodal_monitor.signals.pairing import common_columns, paired_error, resampled_means

SURE_Z = 4.0
"""Standard errors by which the memorizer must beat the held-out error before anything is divided by the lead."""


@dataclass(frozen=True, eq=False)
class NormalizedGap:
    """The gap as a fraction of the memorizer's: 0 treats both sets alike, 1 is the memorizer.

    Args:
        levels_L: (L,) numbers of the levels at which the memorizer surely leads; the fraction of others is left out.
        value_L: (L,).
        low_L: (L,) lower end of the bootstrap interval.
        high_L: (L,) upper end.
        confidence: of the interval at each level.
    """

    levels_L: Tensor
    value_L: Tensor
    low_L: Tensor
    high_L: Tensor
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        """Primitives only."""
        return as_lists(vars(self))


@dataclass(frozen=True, eq=False)
class Gap:
    """Denoising errors of both sets and their difference.

    Args:
        heldout_K: (K,) mean squared error of the held-out images, in squared data units.
        members_K: (K,) of the members.
        gap_K: (K,) `heldout_K - members_K`.
        error_K: (K,) standard error of the gap.
        normalized: as a fraction of the memorizer's gap; None if its errors were not given.
        heldout_KN: (K, N) errors by held-out image, in the order of their numbers.
        members_KN: (K, N) errors by member, likewise; the number of images may differ.
    """

    heldout_K: Tensor
    members_K: Tensor
    gap_K: Tensor
    error_K: Tensor
    normalized: NormalizedGap | None
    heldout_KN: Tensor
    members_KN: Tensor

    def to_dict(self) -> dict[str, Any]:
        """Primitives only, without the figures of single images."""
        record = {name: value for name, value in vars(self).items() if not name.endswith("_KN")}
        return as_lists({**record, "normalized": self.normalized and self.normalized.to_dict()})


@dataclass(frozen=True, eq=False)
class Pairs:
    """Denoising errors of held-out images and of members that share their noise.

    Args:
        heldout_KN: (K, N) mean squared errors, in squared data units.
        members_KN: (K, N) of the members.
        memorizer_KN: (K, N) of the closed-form memorizer on the same noised members: the floor of `members_KN`.
    """

    heldout_KN: Tensor
    members_KN: Tensor
    memorizer_KN: Tensor


class DenoisingGap(Signal):
    """Denoising error of held-out images less that of members, level by level.

    Image i of the members and image i of the held-out share their noise, so errors are paired by number.

    Args:
        num_levels: K.
        memorizer_error_KN: (K, N) denoising errors of the closed-form memorizer on the same noised members, in the
            order of their numbers; None leaves the normalized gap out.
        confidence: of the intervals of the normalized gap.
        seed: of the bootstrap.
    """

    def __init__(
        self,
        num_levels: int,
        *,
        memorizer_error_KN: Tensor | None = None,
        confidence: float = 0.95,
        seed: int = 0,
    ) -> None:
        super().__init__(num_levels, roles=("members", "heldout"))
        self.memorizer_error_KN = memorizer_error_KN
        self.confidence = confidence
        self.seed = seed

    def update(self, error_KN: Tensor, indices_N: Tensor, *, is_member: bool) -> None:
        """Add images of one role.

        Args:
            error_KN: (K, N) as of `denoising_error`.
            indices_N: (N,) numbers of the images within their role.
            is_member: whether the network trains on them.
        """
        self._keep("members" if is_member else "heldout", error_KN, indices_N)

    def compute(self) -> Gap:
        """The gap of all images so far.

        Raises:
            FloatingPointError: if an error is not finite.
            ValueError: if a role has fewer than two images, or the memorizer's errors are of other members.
        """
        heldout_KNW, heldout_numbers = self._kept("heldout")
        members_KNW, member_numbers = self._kept("members")
        heldout_KN, members_KN = heldout_KNW.squeeze(2), members_KNW.squeeze(2)
        heldout_K, members_K = heldout_KN.mean(1), members_KN.mean(1)
        pairs = common_columns(heldout_numbers, member_numbers)
        return Gap(
            heldout_K=heldout_K,
            members_K=members_K,
            gap_K=heldout_K - members_K,
            error_K=paired_error(heldout_KN, members_KN, pairs=pairs),
            normalized=self._normalized(heldout_KN, members_KN, pairs),
            heldout_KN=heldout_KN,
            members_KN=members_KN,
        )

    def _normalized(self, heldout_KN: Tensor, members_KN: Tensor, pairs: tuple[Tensor, Tensor]) -> NormalizedGap | None:
        if self.memorizer_error_KN is None:
            return None
        memorizer_KN = self.memorizer_error_KN.detach().cpu().double()
        if memorizer_KN.shape != members_KN.shape:
            raise ValueError(
                f"memorizer_error_KN must be {tuple(members_KN.shape)}, a figure for each level and member, "
                f"got {tuple(memorizer_KN.shape)}"
            )
        lead_K = heldout_KN.mean(1) - memorizer_KN.mean(1)
        gap_K = heldout_KN.mean(1) - members_KN.mean(1)
        generator = torch.Generator().manual_seed(self.seed)
        both_KN = torch.cat([members_KN, memorizer_KN])
        heldout_KB, both_KB = resampled_means(heldout_KN, both_KN, pairs=pairs, generator=generator)
        member_KB, memorizer_KB = both_KB.chunk(2)
        lead_KB = heldout_KB - memorizer_KB
        is_sure = lead_K > SURE_Z * paired_error(heldout_KN, memorizer_KN, pairs=pairs)
        levels_L = (is_sure & (lead_KB > 0).all(1)).nonzero()[:, 0]
        ratio_LB = (heldout_KB - member_KB)[levels_L] / lead_KB[levels_L]
        tails = (1 - self.confidence) / 2, (1 + self.confidence) / 2
        low_L, high_L = torch.tensor(np.quantile(ratio_LB.numpy(), tails, axis=1))
        return NormalizedGap(levels_L, gap_K[levels_L] / lead_K[levels_L], low_L, high_L, self.confidence)


def denoising_error(denoised: Tensor, clean: Tensor) -> Tensor:
    """(K, N) mean squared error per value of an image, of (K, N, ...) denoised against (N, ...) clean images."""
    return (denoised.float() - clean.float()).square().flatten(2).mean(2, dtype=torch.float64)
