"""The contract of a reporter."""

from collections.abc import Sequence
from typing import Protocol

from unimodal_monitor.check import Check
from unimodal_monitor.glance import Glance


class Reporter(Protocol):
    """Shows or writes what the checks have found."""

    def report(self, history: Sequence[Check]) -> None:
        """Take in the checks so far; the last one is new."""
        ...

    def glance(self, glance: Glance) -> None:
        """Take in a glance."""
        ...
