"""PeakFell: the features know less than they did."""

from dataclasses import dataclass

from unimodal_monitor.alarm.rules.base import BestSoFar, Finding, Look, check_share
from unimodal_monitor.stats.paired import lower_limits


@dataclass
class PeakFell(BestSoFar):
    """The peak of the curve has fallen from its best.

    Args:
        min_fall: it counts from this fraction of the best, 0 to 1.
        share: of the alarm's significance.

    Raises:
        ValueError: if an argument is out of range.
    """

    min_fall: float = 0.05
    share: float = 0.5
    what = "peak"

    def __post_init__(self) -> None:
        check_share(self.share)
        if not 0 <= self.min_fall < 1:
            raise ValueError(f"min_fall = {self.min_fall}; it is a fraction of the best peak, 0 to 1")

    def look(self, look: Look, *, error: float) -> Finding:
        """See `Rule`."""
        has_fallen = self._is_under(look.score_KM, 1 - self.min_fall, look.number, error)
        limit_K = lower_limits(look.score_KM, error=error / len(look.score_KM))
        reaches = bool(limit_K.max() > 0)
        if reaches:
            self._keep_best(look, look.score_KM, limit_K, 0)
        return Finding(has_fallen, self.reference is not None, reaches, self._explain(look, has_fallen))

    def _explain(self, look: Look, has_fallen: bool) -> str:
        peak = float(look.score_KM.mean(1).max())
        if self.reference is None:
            return f"the {self.what} is not surely above 0 yet"
        was = f"{self.reference.mean:.3g} (step {self.reference.step})"
        if has_fallen:
            by_more_than = f" by more than {100 * self.min_fall:.3g}%" if self.min_fall else ""
            return f"the {self.what} fell from {was} to {peak:.3g}, surely{by_more_than}"
        return f"the {self.what} stands at {peak / self.reference.mean:.0%} of its best, {was}"
