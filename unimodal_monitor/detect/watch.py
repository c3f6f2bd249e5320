"""Whether a denoiser is what the job trains: confirmed, settled otherwise, or refused on its own training steps."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn

from unimodal_monitor.denoisers.base import Denoiser
from unimodal_monitor.denoisers.network import NetworkDenoiser
from unimodal_monitor.detect.conditions import ConditionsSeen
from unimodal_monitor.detect.convention import Convention, Fit, is_squared_loss
from unimodal_monitor.detect.record import Recorder, Row
from unimodal_monitor.detect.schedule import distinct_adapters, find_schedules
from unimodal_monitor.detect.space import compare_space
from unimodal_monitor.detect.verification import Verification

FITS, FITS_HALF = 5e-3, 5e-2  # largest error of a convention that agrees, in float32 and in half precision
SAME, SAME_HALF = 3e-5, 2e-2  # errors up to which two conventions agree equally well
LEAST_HALF = 0.1  # levels below it are lost in the rounding of half precision
CONFLICT = 0.3  # error from which a convention contradicts the steps
SAME_SIGN = 1e-3  # difference of that fraction up to which two conventions agree equally well
TOO_SMALL = "the network's outputs are still too near zero to tell the size of its target"
SIGNS, SURE_SIGNS = 0.95, 0.999  # fraction of gradients with the sign of output minus target, in other losses
MIN_COMPARED = 12  # images seen, to compare the probe images with them
FIRST_PAUSE = 4  # steps until the outputs are looked at again, if they are near zero; doubled each time
MAX_WAITS = 8  # steps before the optimizer's first that are not recorded
WORDS = (
    *("flow", "flow:data", "flow:to_data", "flow:data:to_noise", "flow:epsilon", "flow:x0", "flow:data:x0"),
    *("flow:data:epsilon", "flow:data:epsilon:x1000", "flow:epsilon:x1000", "cosine:data:x0"),
    *("flow:x1000", "flow:data:x1000", "flow:to_data:x1000", "flow:data:to_noise:x1000", "flow:v"),
    *("cosine", "cosine:v", "cosine:epsilon", "cosine:x0", "cosine:data", "cosine:data:v", "cosine:data:epsilon"),
    *("vpsde", "vpsde:x1", "vpsde:x1000", "vpsde:v", "vpsde:x0", "vpsde:score", "subvp", "subvp:x1", "subvp:score"),
    *("ve", "ve:log", "ve:epsilon", "ve:log:epsilon", "ve:x0", "ve:log:x0", "edm:inner"),
)
NO_FIT = Fit(1.0, 1.0, 0.0)  # of no convention at all


class Watch:
    """Records training steps until they tell whether `denoiser` is right; then `verification` is not None.

    Args:
        owner: Module around the network, in which other schedules are searched.
        denoiser: What the monitor would measure; None to find the schedule of `network` alone.
        network: Network that is recorded; None for the denoiser's.
        images: (N, C, ...) members of the probe set, compared with the images seen.
        given: "schedule" or "denoiser" where the user gave one: it is not replaced, but refused.
        callbacks: Of the trainer, searched for averages that are not read.
    """

    def __init__(
        self,
        owner: nn.Module,
        denoiser: Denoiser | None,
        *,
        network: nn.Module | None = None,
        images: Tensor | None = None,
        given: str | None = None,
        callbacks: Sequence[object] = (),
    ) -> None:
        self.owner, self.denoiser, self.images, self.given, self.callbacks = owner, denoiser, images, given, callbacks
        self.network: nn.Module = network if denoiser is None else denoiser.network  # type: ignore[assignment]
        conditions = ConditionsSeen(self.network, getattr(denoiser, "condition", None) or {})
        self.recorder = Recorder(owner, self.network, conditions)
        self.verification: Verification | None = None
        self._versions, self._num_waits = self._versions_now(), 0
        self._pause, self._next_pause = 0, FIRST_PAUSE
        reason = self.recorder.obstacle
        if not isinstance(denoiser, NetworkDenoiser | None):
            reason = "it calls its network in a way of its own"
        if reason is not None:
            self.verification = self._not_verified(reason)

    def recording(self, batch: object) -> AbstractContextManager[None]:
        """Record the training step in the block, once the optimizer has made its first."""
        has_moved = self._versions != self._versions_now() or self._num_waits >= MAX_WAITS
        self._num_waits += 1
        if self._pause:
            self._pause -= 1
            return nullcontext()
        if has_moved:
            return self.recorder.recording(batch)
        return self.recorder.looking() if self._num_waits == 1 else nullcontext()

    def settle(self, *, is_last: bool = False) -> Verification | None:
        """The verification, once enough was seen; with `is_last` in any case."""
        if self.verification is None and (self.recorder.is_done or is_last):
            try:
                found = self._verify()
            except Exception as error:  # the training goes on
                found = self._not_verified(f"the training steps could not be read: {type(error).__name__}: {error}")
            if found.reason == TOO_SMALL and not is_last:  # as of a last layer that starts at zero, in a warm-up
                self.recorder.restart()
                self._pause = self._next_pause
                self._next_pause *= 2
                return None
            self.verification = self._with_the_rest(found)
        return self.verification

    def _with_the_rest(self, found: Verification) -> Verification:
        """What was found of the schedule, unless other networks, the images or the conditions speak against it."""
        agrees = found.state in ("confirmed", "settled")
        if self.denoiser is None and found.state == "not verified" and found.word is None:
            return _refused(f"no noise schedule was found, and the training steps do not tell it: {found.reason}")
        if found.state == "settled" and self.given is not None:
            return Verification("refused", f"schedule: {found.reason}; give that, or denoiser=")
        if agrees and (difference := self._difference_of_images(found.word)):
            return Verification("refused", f"transform: {difference}")
        is_asked = self.given != "denoiser" and self.denoiser is not None and self.recorder.is_done
        if is_asked and found.state != "refused" and (difference := self.recorder.conditions.difference()):
            return Verification("refused", f"condition: {difference}")
        if agrees and self.recorder.others:
            others, name = " and ".join(sorted(self.recorder.others)), type(self.network).__name__
            return self._not_verified(f"some training steps call {others} in place of {name}", found.word)
        return found

    def _difference_of_images(self, word: str | None) -> str | None:
        """How the probe images differ from those that the network is trained on."""
        if self.images is None or len(self.recorder.shapes) != 1:  # of several shapes any may be probed
            return None
        denoiser = cast(NetworkDenoiser, self.denoiser) if word is None else self._named[word]
        seen, rows = Convention(denoiser, self.recorder.inner).clean(
            self.recorder.rows, most=1.0 if self.recorder.is_half else math.inf
        )
        if len(seen) < MIN_COMPARED:
            return None
        is_known = all(row.image is not None and row.is_joint for row in rows)
        image = torch.stack([cast(Tensor, row.image) for row in rows]) if is_known else None
        return compare_space(self.images, seen, shape=next(iter(self.recorder.shapes)), image=image)

    def _versions_now(self) -> list[int]:
        """They change when an optimizer writes into a parameter."""
        return [parameter._version for parameter in self.network.parameters() if parameter.requires_grad]

    def _not_verified(self, reason: str, word: str | None = None) -> Verification:
        return Verification("not verified", reason, word, is_given=self.given == "denoiser")

    def _verify(self) -> Verification:
        rows, num, name = self.recorder.rows, self.recorder.num_steps, type(self.denoiser).__name__
        if self.recorder.failure:
            return self._not_verified(f"the training steps could not be read: {self.recorder.failure}")
        if not self.recorder.is_done or len(rows) < 2:
            if num == 0 and self.recorder.num_blocks >= 3:
                network = type(self.network).__name__
                return self._not_verified(f"{network} was not called with images, times and gradients")
            return self._not_verified(f"too few training steps could be read: {num}")
        steps, tolerance = f"on {num} training steps", FITS_HALF if self.recorder.is_half else FITS
        same = SAME_HALF if self.recorder.is_half else SAME
        least = LEAST_HALF if self.recorder.is_half else 0.0
        calls = [[row for row in rows if row.call == call] for call in sorted({row.call for row in rows})]
        fits = [self._fits(rows, least) for rows in calls]
        number = min(range(len(calls)), key=lambda i: _rank(fits[i], tolerance))
        rows, (guess, others) = calls[number], fits[number]
        self.recorder.rows = rows
        best = min([guess, *others.values()], key=lambda fit: fit.error)
        if guess.error <= tolerance and guess.error <= max(3 * best.error, same):
            return self._if_seen(Verification("confirmed", steps), least)
        if best.error <= tolerance:
            fitting = [word for word, fit in others.items() if fit.error <= max(3 * best.error, same)]
            found = _settled(fitting, guess, steps, name)
            return self._if_seen(found, least, word=min(others, key=lambda word: others[word].error))
        if is_squared_loss(rows):
            is_wrong = guess.error >= CONFLICT or (guess.input <= FITS and guess.target >= FITS_HALF)
            is_sure = all(row.is_joint for row in rows)
            if is_wrong and is_sure:
                return _refused(f"{_difference(guess, steps, name)}; no named schedule agrees with them")
            why = "too little to call it wrong" if is_sure else "the step changes its images or its noise"
            return self._not_verified(f"{_difference(guess, steps, name)}; {why}")
        known = {word: fit for word, fit in [("", guess), *others.items()] if fit.input <= 10 * FITS}
        most = max([fit.sign for fit in known.values()], default=0.0)
        if most >= SIGNS:
            known = {word: fit for word, fit in known.items() if fit.sign >= most - max(3 * (1 - most), SAME_SIGN)}
            nearest = max(3 * min(fit.input for fit in known.values()), same)
            known = {word: fit for word, fit in known.items() if fit.input <= nearest}
            if "" in known:
                found = Verification("confirmed", f"{steps} by the signs of the loss's gradient")
            else:
                found = _settled(list(known), guess, steps, name)
            if most < SURE_SIGNS:  # the best that is known, such as beside a second loss, or as wrong by a part
                word = next(iter(known)) if self.denoiser is None and len(known) == 1 else None
                return self._not_verified(f"the signs of the loss's gradient agree in {most:.1%} of values only", word)
            return self._if_seen(found, least, word=next(iter(known)), by_sign=True)
        return self._not_verified("the loss is no squared error of a known target, or the noise is not seen")

    def _fits(self, rows: Sequence[Row], least: float) -> tuple[Fit, dict[str, Fit]]:
        """How well the denoiser, and each named convention, agrees with the rows of one call of each step."""
        inner, given = self.recorder.inner, cast(NetworkDenoiser, self.denoiser)
        guess = NO_FIT if self.denoiser is None else Convention(given, inner).fit(rows, least=least)
        named = {} if inner else self._named
        return guess, {word: Convention(denoiser).fit(rows, least=least) for word, denoiser in named.items()}

    def _if_seen(self, found: Verification, least: float, *, word: str = "", by_sign: bool = False) -> Verification:
        """What was found, unless the outputs are so near zero that a target of another size would agree as well."""
        denoiser = self._named[word] if word else cast(NetworkDenoiser, self.denoiser)
        convention = Convention(denoiser, self.recorder.inner)
        is_seen = convention.sees_size(self.recorder.rows, least=least, by_sign=by_sign)
        return found if is_seen else self._not_verified(TOO_SMALL)

    @cached_property
    def _named(self) -> dict[str, NetworkDenoiser]:
        """Every named convention, and the job's own schedules with each prediction and scale of time."""
        network, words = self.network, list(WORDS)
        for path, schedule in find_schedules(self.owner, network).items():
            if (alphas := getattr(schedule, "alphas_cumprod", None)) is not None:
                path = "alphas_cumprod" if schedule is self.owner else path
                num = len(torch.as_tensor(alphas))
                factors = dict.fromkeys(("", f":x{1000 / num:g}" if num != 1000 else "", f":x{1 / num:g}"))
                words += [f"{path}:{kind}{factor}" for kind in ("epsilon", "v", "x0") for factor in factors]
        stds = {getattr(module, "sigma_data", None) for module in self.owner.modules()} - {None, 0.5}
        words += [f"edm:inner:std{std:g}" for std in stds if isinstance(std, float | int)]
        named = {}
        for word, adapter in distinct_adapters(self.owner, network, words):
            with suppress(ValueError):  # such as a schedule without usable levels
                named[word] = cast(NetworkDenoiser, adapter(network, weights=None, condition=None))
        return named


def _rank(fits: tuple[Fit, dict[str, Fit]], tolerance: float) -> tuple[bool, float]:
    """Lowest for the call of each step that some convention explains best: others may be a regularizer's."""
    known = [fit for fit in (fits[0], *fits[1].values()) if fit.input <= 10 * FITS]
    is_explained = min([1.0, *(fit.error for fit in known)]) <= tolerance
    return not is_explained, 0.0 if is_explained else -max([0.0, *(fit.sign for fit in known)])


def _refused(reason: str) -> Verification:
    return Verification("refused", f"schedule: {reason}; give schedule= or denoiser=")


def _settled(words: list[str], guess: Fit, steps: str, name: str) -> Verification:
    difference = _difference(guess, steps, name)
    if len(words) == 1:
        return Verification("settled", f"{difference}; schedule={words[0]!r} agrees with them", words[0])
    return _refused(f"{difference}; these agree equally well: {', '.join(words)}")


def _difference(guess: Fit, steps: str, name: str) -> str:
    if guess is NO_FIT:
        return f"no noise schedule was found, and the network was watched {steps}"
    parts = [f"the network's inputs differ by {guess.input:.0%}"] * (guess.input > FITS)
    parts += [f"the loss's target differs by {guess.target:.0%}"] * (guess.target > FITS)
    return f"{name} disagrees with what was seen {steps}: {', '.join(parts) or 'the signs of the gradient'}"
