"""Both: two rules that raise the alarm together, and neither alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unimodal_monitor.alarm.rules.base import Finding, Forecast, Look, Rule, Terms, check_share


@dataclass
class Both:
    """Speaks where both rules speak; what one of them says alone is told and raises nothing.

    It speaks falsely only if a part that is false speaks. Whether one of them is false or both are, the chance of that
    is at most the error of one, so each may be given the whole.

    Args:
        first: a rule.
        second: another.
        share: of the alarm's significance.
        arms: whether the alarm is armed where both have something to lose; otherwise that is left to other rules.

    Raises:
        ValueError: if an argument is out of range.
    """

    first: Rule
    second: Rule
    share: float = 0.5
    arms: bool = False

    def __post_init__(self) -> None:
        check_share(self.share)

    def look(self, look: Look, *, error: float) -> Finding:
        """See `Rule`."""
        findings = [rule.look(look, error=error) for rule in (self.first, self.second)]
        sentences = [finding.sentence for finding in findings if finding.holds]
        holds = len(sentences) == len(findings)
        said = " and ".join(sentences)
        return Finding(
            holds,
            self.arms and all(finding.is_established for finding in findings),
            self.arms and all(finding.reaches for finding in findings),
            said if holds else "; ".join(finding.sentence for finding in findings),
            "" if holds else said,
        )

    def forecast(self, look: Look, terms: Terms) -> Forecast | None:
        """See `Rule`."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Primitives only."""
        return {"first": self.first.state_dict(), "second": self.second.state_dict()}

    def load_state_dict(self, record: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.first.load_state_dict(record["first"])
        self.second.load_state_dict(record["second"])
