"""Budget: at which steps a check is due, and whether another one keeps to its share of the training's time."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ASK_EVERY_N_STEPS = 20  # steps after which the budget is asked again, where no interval was given
MAX_OVERHEAD = 0.01
MARGIN = 1.1  # factor on the last check's seconds to estimate those of the next one


class Budget:
    """Interval of the checks and a clock in seconds: what is outside the checks counts as training; see `Monitor`."""

    def __init__(
        self,
        every_n_train_steps: int | None,
        max_overhead: float | None,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if every_n_train_steps is not None and every_n_train_steps < 1:
            raise ValueError(f"every_n_train_steps = {every_n_train_steps}; must be a number of steps, from 1")
        if max_overhead is not None and not max_overhead > 0:
            raise ValueError(f"max_overhead = {max_overhead}; must be a share of the training's time, such as 0.01")
        self.every_n_train_steps = every_n_train_steps or ASK_EVERY_N_STEPS
        self.max_overhead = MAX_OVERHEAD if max_overhead is None and every_n_train_steps is None else max_overhead
        self.clock = clock
        self.last_step: int | None = None
        self._is_postponed = False
        self._start: float | None = None
        self._spent = self._trained = self._aside = self._check = self._report = 0.0

    def is_due(self, step: int) -> bool:
        """Whether the training has passed another multiple of the interval; a check that is not made stays due.

        True at the first call. A postponed check is asked for again every few steps.
        """
        every = min(self.every_n_train_steps, ASK_EVERY_N_STEPS) if self._is_postponed else self.every_n_train_steps
        if self.last_step is not None and step // every <= self.last_step // every:
            return False
        self.last_step, self._is_postponed = step, True
        return True

    def can_afford(self) -> bool:
        """Whether the share stays within the limit if a check follows that takes about as long as the last one."""
        if self.max_overhead is None or not self._check:
            return True
        expected = MARGIN * (self._check + self._report)
        return self._spent + expected <= self.max_overhead * self._training()

    @contextmanager
    def spending(self, *, is_report: bool = False) -> Iterator[None]:
        """The time within the block belongs to a check, or to its report; the first one starts the clock."""
        start, self._is_postponed = self.clock(), False
        self._start = start if self._start is None else self._start
        self._trained = start - self._start - self._spent - self._aside
        try:
            yield
        finally:
            seconds = self.clock() - start
            self._spent += seconds
            self._check, self._report = (self._check, seconds) if is_report else (seconds, self._report)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """The time within the block counts neither as checks nor as training."""
        start = self.clock()
        try:
            yield
        finally:
            if self._start is not None:
                self._aside += self.clock() - start

    @property
    def overhead(self) -> float | None:
        """Seconds of checks per second of training before the last one; None before any training."""
        return self._spent / self._trained if self._trained > 0 else None

    def _training(self) -> float:
        return 0.0 if self._start is None else self.clock() - self._start - self._spent - self._aside
