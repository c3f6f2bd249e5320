"""What a job's module does not tell, learned from its first training steps: the network, its call, and the schedule."""

from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

from torch import nn

from unimodal_monitor.denoisers.base import Denoiser
from unimodal_monitor.denoisers.network import NetworkDenoiser
from unimodal_monitor.detect.call import Call, CallError, CallRecorder, is_compiled
from unimodal_monitor.detect.condition import BatchCondition
from unimodal_monitor.detect.conditions import like_the_job
from unimodal_monitor.detect.find import find_network
from unimodal_monitor.detect.watch import Watch
from unimodal_monitor.forward.distributed import Ranks

MAX_LOOKS = 8  # training steps in which a call is looked for: some jobs skip steps
ASKED = ("net:", "schedule:", "condition:", "null_class:")  # how errors begin that ask for what was not found


class Search:
    """Tries that fail for want of something that the first training steps tell.

    Args:
        owner: The job's module.
        net: What the user gave, as are the next two.
        schedule: None if it is to be found.
        condition: None or "batch" if it is to be found.
        ranks: Which of them agree.
    """

    def __init__(self, owner: nn.Module, *, net: Any, schedule: Any, condition: Any, ranks: Ranks) -> None:
        self.owner, self.net, self.schedule, self.ranks = owner, net, schedule, ranks
        self.word: str | None = None  # schedule= that the training steps agree with
        self._given = {"net:": net, "schedule:": schedule, "condition:": None if condition == "batch" else condition}
        self.call: Call | None = None
        self._num_looks = 0
        self.images: Any = None  # probe set, read once for all tries
        self.reason = ""  # what the last try asked for
        self._calls: CallRecorder | None = None
        self._watch: Watch | None = None

    @property
    def found(self) -> dict[str, Any]:
        """Arguments for `find_denoiser` beside those that the user gave."""
        net = self.net if self.net is not None or self.call is None else self.call.path
        return {"net": net, "schedule": self.schedule if self.schedule is not None else self.word}

    def condition(self, given: Any) -> Any:
        """What the user gave, or the conditions of the batch that the search has seen."""
        if given != "batch":
            return given
        if self.call is None:
            raise ValueError("condition: 'batch' takes the conditions of the first training step, and none was seen")
        return BatchCondition(self.call.first())

    def adapt(self, denoiser: Denoiser) -> Denoiser:
        """The denoiser, with one-hot classes in its condition where the job passes such."""
        if isinstance(denoiser, NetworkDenoiser):
            changed = like_the_job(denoiser.condition or {}, self.call)
            denoiser.condition = {**(denoiser.condition or {}), **changed} if changed else denoiser.condition
        return denoiser

    def can_help(self, error: Exception) -> bool:
        """Whether the next training steps may tell what the error asks for; then they are to be recorded."""
        asked = next((start for start in ASKED if str(error).startswith(start)), None)
        is_open = asked is not None and self._given.get(asked) is None
        self._calls = self._watch = None
        self.reason = str(error)
        if asked == "schedule:" and is_open and self.word is None:
            with suppress(ValueError):
                network = find_network(self.owner, net=self.found["net"])[1]
                self._watch = Watch(self.owner, None, network=network)
        elif self.call is None and self._num_looks < MAX_LOOKS and (is_open or isinstance(error, CallError)):
            self._calls = CallRecorder(self.owner)
            self._num_looks = MAX_LOOKS if any(map(is_compiled, self.owner.modules())) else self._num_looks + 1
        return self._watch is not None or self._calls is not None

    def watching(self, batch: object) -> AbstractContextManager[None]:
        """Record the training step in the block."""
        if self._watch is not None:
            return self._watch.recording(batch)
        return nullcontext() if self._calls is None else self._calls.recording()

    def settle(self) -> bool:
        """Whether enough was recorded for another try."""
        if (watch := self._watch) is not None:
            found = self.ranks.broadcast(self.ranks.together(watch.settle))
            if found is not None and found.word is None:
                raise ValueError(f"unimodal_monitor: {self.reason}; {found.reason.removeprefix('schedule: ')}")
            self.word = None if found is None else found.word
            return found is not None
        if self._calls is None:
            return False
        calls, self._calls = self._calls.calls, None
        self.call = self.ranks.together(lambda: self._choose(calls))
        return True

    def _choose(self, calls: list[Call]) -> Call | None:
        if len(calls) > 1 and self.net is None:
            several = "; ".join(map(str, calls))
            raise ValueError(f"unimodal_monitor: net: the training step calls several networks, {several}; name one")
        return calls[0] if calls else None

    def explain(self, error: Exception) -> str:
        """The error with what the training step was seen to call."""
        seen = ""
        if self.call is not None and (isinstance(error, CallError) or str(error).startswith(ASKED)):
            seen = f"; the training step calls {self.call}"
        elif self.call is None and self._num_looks:
            seen = "; the training step called no network with images and times; a compiled one is not seen: give net="
        return f"unimodal_monitor: {str(error).removeprefix('unimodal_monitor: ')}{seen}"
