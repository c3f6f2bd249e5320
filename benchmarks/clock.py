"""Works timed side by side, and rows of a table."""

import time
from collections.abc import Callable

import torch
import torch.distributed as dist

Seconds = list[float]
Row = tuple[str, str, str, str, str]


def side_by_side(*works: Callable[[], object], repeats: int, device: str = "cpu") -> Seconds:
    """Best seconds of each, one after the other in every round.

    On one thread they are the processor's, so that others on the machine count less; otherwise those on the wall.
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
