"""Ranks: the images of a check shared among processes, and the per-image numbers brought together again."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad
from torchmetrics import Metric

Result = TypeVar("Result")
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Ranks:
    """Which process of how many this one is; with several, all of them make every call, in the same order."""

    rank: int = 0  # number of this process, from 0
    size: int = 1  # number of processes
    device: torch.device = CPU  # of tensors for collectives: the CPU for gloo, a GPU for NCCL

    @classmethod
    def of_this_process(cls, device: torch.device) -> "Ranks":
        """Rank and size in torch.distributed's default group; a single rank where there is no group."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size(), CPU if dist.get_backend() == "gloo" else device)

    def share(self, rows: Tensor) -> Tensor:
        """This rank's part of (N,) rows: every `size`-th. A ValueError on all ranks if one would be left without."""
        if len(rows) < self.size:
            raise ValueError(f"need at least one image for each of {self.size} ranks, got {len(rows)}")
        return rows[self.rank :: self.size]

    def together(self, work: Callable[[], Result]) -> Result:
        """Do this rank's part of the work; if it fails on one rank it fails on all, and none waits for ever.

        Raises:
            RuntimeError: If another rank failed.
        """
        if self.size == 1:
            return work()
        failure, result = None, None
        try:
            result = work()
        except Exception as error:
            failure = error
        if self.any(failure is not None):
            raise failure or RuntimeError("the check failed on another rank")
        return result  # type: ignore[return-value]

    def any(self, claim: bool) -> bool:
        """Whether the claim is true on some rank."""
        if self.size == 1:
            return claim
        count = torch.tensor(int(claim), device=self.device)
        dist.all_reduce(count)
        return bool(count)

    def broadcast(self, value: Result) -> Result:
        """What rank 0 has; small objects only."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, device=self.device)
        return box[0]

    @contextmanager
    def merged(self, metrics: Sequence[Metric]) -> Iterator[None]:
        """Within the block every metric has the state of all ranks; afterwards its own again."""
        with ExitStack() as stack:
            for metric in metrics:
                if self.size > 1:
                    stack.enter_context(metric.sync_context())
                stack.enter_context(_without_own_sync(metric))
            yield

    def gather(self, values: Tensor, num: int) -> Tensor:
        """(K, N, ...) of what every rank has for its `share` of `num` rows, (K, n, ...), in the order of the rows."""
        if self.size == 1:
            return values
        sent = values.to(self.device, torch.uint8 if values.dtype == torch.bool else values.dtype)
        missing = -(-num // self.size) - values.shape[1]
        sent = pad(sent, (0, 0) * (values.ndim - 2) + (0, missing)).contiguous()
        parts = [torch.empty_like(sent) for _ in range(self.size)]
        dist.all_gather(parts, sent)
        return torch.stack(parts, 2).flatten(1, 2)[:, :num].to(values.dtype)


@contextmanager
def _without_own_sync(metric: Metric) -> Iterator[None]:
    """`compute` would otherwise synchronise by itself, a second time or where no other rank calls it."""
    before = metric._to_sync, metric._should_unsync
    metric._to_sync = metric._should_unsync = False
    try:
        yield
    finally:
        metric._to_sync, metric._should_unsync = before
