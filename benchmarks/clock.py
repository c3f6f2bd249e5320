"""Timing side by side, and the form of a table's row."""

import time
from collections.abc import Callable

import torch
import torch.distributed as dist

Seconds = list[float]
Row = tuple[str, str, str, str, str]
"""What, measured, ratio, target, shapes."""


def side_by_side(*works: Callable[[], object], repeats: int, device: str = "cpu") -> Seconds:
    """Least seconds of each work; all take their turn in every round.

    On one CPU thread the seconds are the processor's, which other processes disturb less; otherwise the wall's.
    """
    alone = device == "cpu" and torch.get_num_threads() == 1 and not dist.is_initialized()
    clock = time.process_time if alone else time.perf_counter
    best = [float("inf")] * len(works)
    for _ in range(repeats):
        for number, work in enumerate(works):
            start = clock()
            work()
            if device == "cuda":
                torch.cuda.synchronize()
            best[number] = min(best[number], clock() - start)
    return best


def ratio_row(what: str, first: float, second: float, target: str, shapes: str) -> Row:
    """A row that compares the seconds of two works."""
    return what, f"{first:.2f} s / {second:.2f} s", f"{first / second:.2f}", target, shapes
