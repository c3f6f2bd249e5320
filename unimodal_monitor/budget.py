"""Budget: which share of the training's time the checks have taken, and whether another one fits in."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MARGIN = 1.1
"""Times the last look's seconds are set aside for the next one: no two take the same."""
REPORT = "report"
"""What follows a check: figures, files and loggers."""


class Budget:
    """A clock for the checks of one run; what is outside them counts as training.

    Args:
        max_overhead: seconds of checks per second of training, such as 0.01; None for no limit.
        clock: seconds.

    Raises:
        ValueError: if `max_overhead` is not positive.
    """

    def __init__(self, max_overhead: float | None, *, clock: Callable[[], float] = time.perf_counter) -> None:
        if max_overhead is not None and not max_overhead > 0:
            raise ValueError(f"max_overhead = {max_overhead}; it is a share of the training's time, such as 0.01")
        self.max_overhead = max_overhead
        self.clock = clock
        self._start: float | None = None
        self._spent = self._aside = 0.0
        self._last: dict[str, float] = {}

    @contextmanager
    def spending(self, kind: str) -> Iterator[None]:
        """The time within the block is that of a look of this kind, or of a report; the first one starts the clock."""
        start = self.clock()
        self._start = start if self._start is None else self._start
        try:
            yield
        finally:
            self._last[kind] = self.clock() - start
            self._spent += self._last[kind]

    @contextmanager
    def aside(self) -> Iterator[None]:
        """The time within the block counts neither as looks nor as training."""
        start = self.clock()
        try:
            yield
        finally:
            if self._start is not None:
                self._aside += self.clock() - start

    @property
    def overhead(self) -> float | None:
        """Seconds of looks per second of training so far; None before any training."""
        training = self._training()
        return self._spent / training if training > 0 else None

    def allows(self, *kinds: str) -> bool:
        """Whether the share stays within the limit if looks of these kinds follow, each about as long as the last one.

        A kind that was not seen yet is taken for the longest of the others; a report follows where one did before.
        """
        if self.max_overhead is None or not self._last:
            return True
        longest = max((seconds for kind, seconds in self._last.items() if kind != REPORT), default=0.0)
        expected = MARGIN * (sum(self._last.get(kind, longest) for kind in kinds) + self._last.get(REPORT, 0.0))
        return self._spent + expected <= self.max_overhead * self._training()

    def _training(self) -> float:
        return 0.0 if self._start is None else self.clock() - self._start - self._spent - self._aside
