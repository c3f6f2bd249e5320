"""Ranks: the images of a check shared among processes, and the sums and outcomes brought together again."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric

Result = TypeVar("Result")


@dataclass(frozen=True)
class Ranks:
    """Which process of how many this one is; with several, all of them make every call, in the same order.

    Args:
        rank: of this process, from 0.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def of_this_process(cls) -> "Ranks":
        """Those of torch.distributed's default group; alone where there is none."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    def share(self, rows: Tensor, *, may_be_empty: bool = False) -> Tensor:
        """This rank's part of (N,) rows: every `size`-th, so that shares differ by one row at most.

        Raises:
            ValueError: on all ranks alike, if one would be left without a row and that may not be.
        """
        if len(rows) < self.size and not may_be_empty:
            raise ValueError(f"{len(rows)} images are too few for {self.size} ranks; give each of them one")
        return rows[self.rank :: self.size]

    def together(self, work: Callable[[], Result], *, device: torch.device) -> Result:
        """Do this rank's part of the work; if it fails on one rank it fails on all, and none waits for ever.

        Raises:
            RuntimeError: if another rank failed.
        """
        if self.size == 1:
            return work()
        failure, result = None, None
        try:
            result = work()
        except Exception as error:
            failure = error
        failures = torch.tensor(int(failure is not None), device=device)
        dist.all_reduce(failures)
        if failure is not None:
            raise failure
        if failures:
            raise RuntimeError("the check failed on another rank")
        return result  # type: ignore[return-value]

    @contextmanager
    def merged(self, metrics: Sequence[Metric]) -> Iterator[None]:
        """Within the block every metric holds the state of all ranks; afterwards its own again."""
        with ExitStack() as stack:
            for metric in metrics:
                if self.size > 1:
                    stack.enter_context(metric.sync_context())
                stack.enter_context(_computing_as_it_is(metric))
            yield

    def gather(self, values: Tensor, num: int) -> Tensor:
        """What every rank has for its `share`, put back in the order of the rows.

        Args:
            values: (..., n) of this rank's n rows.
            num: N, rows of all ranks.

        Returns:
            (..., N) on every rank.
        """
        if self.size == 1:
            return values
        longest = -(-num // self.size)
        padded = torch.nn.functional.pad(values.float(), (0, longest - values.shape[-1])).contiguous()
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        return torch.stack(parts, -1).flatten(-2)[..., :num].to(values.dtype)


@contextmanager
def _computing_as_it_is(metric: Metric) -> Iterator[None]:
    """`compute` would otherwise bring ranks together by itself, again or where nobody else calls it, and undo that."""
    before = metric._to_sync, metric._should_unsync
    metric._to_sync = metric._should_unsync = False
    try:
        yield
    finally:
        metric._to_sync, metric._should_unsync = before
