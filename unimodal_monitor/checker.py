"""Checker: one network and the images of its checks; forwards that leave no trace, numbers, and copies."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, cast

from torch import Tensor, nn

from unimodal_monitor.copies.audit import Audit, audit_copies
from unimodal_monitor.data.probe_set import ProbeSet
from unimodal_monitor.denoisers.base import Denoiser, as_denoiser, device_of
from unimodal_monitor.denoisers.network import NetworkDenoiser
from unimodal_monitor.detect.call import CallError
from unimodal_monitor.detect.schedule import find_adapter
from unimodal_monitor.detect.space import name_range
from unimodal_monitor.detect.verification import Verification
from unimodal_monitor.detect.watch import Watch
from unimodal_monitor.forward.distributed import Ranks
from unimodal_monitor.forward.hooks import capture
from unimodal_monitor.forward.isolation import leaving_no_trace
from unimodal_monitor.forward.layers import find_layers
from unimodal_monitor.forward.noise import noise_levels
from unimodal_monitor.method import MIN_IMAGES, Go, Pass, forward, measure, plan_check
from unimodal_monitor.probes.sklearn_probe import as_probe
from unimodal_monitor.report.console import progress_bar
from unimodal_monitor.report.startup import startup_line, watching_line
from unimodal_monitor.signals import Measured

SAME = 1e-3  # largest relative difference of two identical calls


class Checker:
    """Measures one network; it keeps nothing of what was measured. The arguments are those of `Monitor`."""

    def __init__(
        self,
        denoiser: Denoiser | Callable[[Tensor, Tensor], Tensor],
        probe_set: ProbeSet,
        *,
        net: nn.Module | None,
        sigmas: Tensor | Sequence[float] | None,
        layer: str | None,
        extra_layers: Sequence[str],
        probe: Any,
        with_pairs: bool,
        batch_size: int,
        seed: int,
        precision: Callable[[], AbstractContextManager[Any]],
        is_shared: bool,
        name: str,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size = {batch_size}; must be a number of inputs, from 1")
        self.denoiser = as_denoiser(denoiser, net=net)
        self.layers, device = find_layers(self.denoiser.network, layer, extra_layers), device_of(self.denoiser.network)
        self.ranks = Ranks.of_this_process(device) if is_shared else Ranks()
        self.batch_size, self.precision, self.name, self._wanted = batch_size, precision, name, sigmas
        plan = partial(plan_check, probe_set, as_probe(probe), layers=tuple(self.layers), seed=seed, device=device)
        self._plan = partial(plan, with_pairs=with_pairs, min_images=max(MIN_IMAGES, self.ranks.size))
        self._std = probe_set.std
        self.use(self.denoiser)
        self.verification, self.settled = Verification(), cast(str | None, None)
        self.watch: Watch | None = None
        self.watch_in(self.denoiser.network, given="denoiser")

    def use(self, denoiser: Denoiser) -> None:
        """Plan the checks of this denoiser of the same network."""
        levels, self.num_unreachable = noise_levels(denoiser, self._std, self._wanted)
        self.denoiser, self.plan = denoiser, self._plan(sigmas=levels)

    def use_schedule(self, word: str, *, owner: nn.Module) -> None:
        """Take another `schedule=`, with the weights and the condition as they are."""
        adapter, old = find_adapter(owner, self.denoiser.network, schedule=word), cast(NetworkDenoiser, self.denoiser)
        self.use(adapter(old.network, weights=old.weights, condition=old.condition))
        self.settled = word

    def watch_in(self, owner: nn.Module, *, given: str | None, callbacks: Sequence[object] = ()) -> None:
        """Hold what is measured against the training steps; see `Watch`."""
        images = self.plan.probe_set.members.images
        self.watch = Watch(owner, self.denoiser, images=images, given=given, callbacks=callbacks)

    def resume_with(self, word: str | None) -> None:
        """Take the `schedule=` that another session's training steps have settled, and watch whether these agree."""
        if word is not None and self.watch is not None and self.watch.given is None:
            self.use_schedule(word, owner=self.watch.owner)
            self.watch_in(self.watch.owner, given=None, callbacks=self.watch.callbacks)

    def recording(self, batch: object) -> AbstractContextManager[None]:
        """Record the training step in the block, until its steps tell whether the denoiser is right."""
        return nullcontext() if self.watch is None else self.watch.recording(batch)

    def settle(self, *, is_last: bool) -> str | None:
        """Once the steps tell, or no more follow: confirm the denoiser, take the right one, or raise; says which.

        Raises:
            ValueError: If the training steps contradict the denoiser; it names what agrees with them, if anything does.
        """
        if (watch := self.watch) is None:
            return None
        found = self.ranks.broadcast(self.ranks.together(lambda: watch.settle(is_last=is_last)))
        if found is None:
            return None
        self.watch, self.verification = None, found
        if found.state == "refused":
            raise ValueError(f"unimodal_monitor: {found.reason}")
        if found.word is not None:
            self.use_schedule(found.word, owner=watch.owner)
            self.rehearse()
        images = name_range(self.plan.probe_set.members.images)
        return watching_line(watch.owner, self.denoiser, found, images=images, callbacks=watch.callbacks)

    def start(self, *, max_overhead: float | None) -> str:
        """Try two equal forwards of a whole batch, and return what a check measures and about what it costs."""
        num, seconds = self.num_unreachable, self.rehearse()
        return startup_line(self.plan, num_unreachable=num, seconds=seconds, max_overhead=max_overhead)

    def rehearse(self) -> float:
        """Two identical forwards of a whole batch; the seconds that a check will take.

        Raises:
            ValueError: If they differ, as those of a network that draws at random in eval mode.
        """
        run = self.plan.passes["paired" if "paired" in self.plan.passes else "heldout"]
        num_images = min(max(2, self.batch_size // len(self.plan.sigmas)), len(run.rows))
        run = replace(run, rows=run.rows[:num_images], labels=None, to_output=False)
        with self._isolated(Ranks(), "trial forward") as go:
            first = self._features(go, run)
            start = time.perf_counter()
            again = self._features(go, run)
            seconds = time.perf_counter() - start
        difference = float((again - first).norm() / first.norm().clamp_min(1e-12))
        if difference > SAME:
            name = type(self.denoiser.network).__name__
            raise ValueError(
                f"unimodal_monitor: net: two identical calls of {name} differ by {difference:.1%}; it draws at random"
                " in eval mode, perhaps drops classes: give condition= or denoiser= without that"
            )
        return seconds * self.plan.num_images / num_images / self.ranks.size

    def measure(self, title: str) -> tuple[Measured, str]:
        """The numbers of a check, and which weights gave them; an error is raised on all ranks alike."""
        ranks = self.ranks
        with ExitStack() as stack:
            go = ranks.together(lambda: stack.enter_context(self._isolated(ranks, title)))
            measured = measure(go, self.plan, ranks)
            return measured, ranks.together(lambda: self.denoiser.weights_used)

    def audit(self, *, num_samples: int, max_seconds: float | None) -> Audit:
        """Copies among samples, drawn on rank 0 while the others wait."""

        def work() -> Audit | None:
            if self.ranks.rank:
                return None
            count = partial(audit_copies, self.denoiser, self.plan.probe_set.members.images, seed=self.plan.seed)
            with self.precision(), self.denoiser.holding_weights():
                return count(num_samples=num_samples, batch_size=min(self.batch_size, 64), max_seconds=max_seconds)

        own = self.ranks.together(work)
        sent = self.ranks.broadcast(own and replace(own, samples=None))
        return own or cast(Audit, sent)

    def _features(self, go: Go, run: Pass) -> Tensor:
        try:
            (batch,) = go(run)
        except Exception as error:
            reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            size = run.images.shape[1:]
            is_last = len(size) == 3 and size[2] <= 4 < min(size[:2])
            hint = "; its channels seem to be last: give transform=lambda image: image.permute(2, 0, 1)" * is_last
            raise CallError(f"unimodal_monitor: {reason}{hint}") from error
        return batch.features[self.plan.layers[-1]].double()

    @contextmanager
    def _isolated(self, ranks: Ranks, title: str) -> Iterator[Go]:
        """Forwards that leave no trace, with hooks on the layers."""
        with (
            progress_bar(f"{self.name} {title}", self.plan.num_images // ranks.size, is_shown=not ranks.rank) as bar,
            leaving_no_trace(self.denoiser.network, seed=self.plan.seed),
            self.denoiser.holding_weights(),
            capture(self.layers) as hooks,
        ):
            yield partial(
                forward, self.denoiser, hooks, sigmas=self.plan.sigmas, seed=self.plan.seed, ranks=ranks,
                batch_size=self.batch_size, precision=self.precision, progress=bar,
            )  # fmt: skip
