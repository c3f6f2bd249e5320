"""GapOpened: the network denoises what it trains on better than what it never sees."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unimodal_monitor.alarm.rules.base import Finding, Forecast, Look, Terms, check_share
from unimodal_monitor.stats.paired import lower_limits


@dataclass
class GapOpened:
    """The denoising gap is surely more than a part of the memorizer's.

    At some level (L_heldout - L_members) / (L_heldout - L_memorizer) > `min_gap`, as a difference of means that is
    linear in the errors and so has an ordinary paired t-test: (1 - g) L_heldout + g L_memorizer - L_members > 0.
    It needs no labels and looks at this check alone. What it says is "treats members better"; copies may come much
    later or never.

    Args:
        min_gap: g, 0 (treats both alike) to 1 (is the memorizer).
        share: of the alarm's significance.

    Raises:
        ValueError: if an argument is out of range.
    """

    min_gap: float = 0.1
    share: float = 0.5

    def __post_init__(self) -> None:
        check_share(self.share)
        if not 0 <= self.min_gap < 1:
            raise ValueError(f"min_gap = {self.min_gap}; it is a part of the memorizer's gap, 0 to 1")

    def look(self, look: Look, *, error: float) -> Finding:
        """See `Rule`; what may be lost is that both are treated alike, and a gap that is measured arms."""
        if look.pairs is None:
            return Finding(False, False, False, "the denoising gap was not measured, or cannot be trusted")
        heldout_KN, members_KN, memorizer_KN = (
            errors_KN.numpy() for errors_KN in (look.pairs.heldout_KN, look.pairs.members_KN, look.pairs.memorizer_KN)
        )
        beyond_KN = (1 - self.min_gap) * heldout_KN + self.min_gap * memorizer_KN - members_KN
        limit_K = lower_limits(beyond_KN, error=error / len(beyond_KN))
        lead_K = (heldout_KN - memorizer_KN).mean(1)
        gap_K = (heldout_KN - members_KN).mean(1)
        level = int(limit_K.argmax()) if limit_K.max() > 0 else int(gap_K.argmax())
        share = f"{gap_K[level] / lead_K[level]:.0%}" if lead_K[level] > 0 else "an unknown part"
        where = f"{share} of the memorizer's at sigma {look.curve.sigmas[level]:.3g}"
        if limit_K.max() > 0:
            sentence = f"the denoising gap is {where}, surely more than {self.min_gap:.0%}"
            return Finding(True, True, False, sentence)
        return Finding(False, True, True, f"the denoising gap is {where}")

    def forecast(self, look: Look, terms: Terms) -> Forecast | None:
        """See `Rule`."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Nothing is kept."""
        return {}

    def load_state_dict(self, record: Mapping[str, Any]) -> None:
        """Nothing is kept."""
