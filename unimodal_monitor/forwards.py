"""Forwards: images through the network at all levels, batch by batch, and nothing in between that waits."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from unimodal_monitor.data.image_set import ImageSet
from unimodal_monitor.denoisers.base import Denoiser
from unimodal_monitor.forward.hooks import Capture, FiniteCheck
from unimodal_monitor.forward.noise import unit_noise


@dataclass(frozen=True)
class Noising:
    """How images are noised, the same at every check.

    Args:
        sigmas: (K,) levels, ascending, in data units.
        num_draws: R, independent noises for each image.
        seed: of the noise.
        noised_input: False shows the network clean images and only tells it the level.
    """

    sigmas: Tensor
    num_draws: int = 1
    seed: int = 0
    noised_input: bool = True

    def once(self) -> "Noising":
        """The same with a single draw."""
        return replace(self, num_draws=1)

    def at(self, levels: Sequence[int]) -> "Noising":
        """The same at some of the levels, by index."""
        return replace(self, sigmas=self.sigmas[list(levels)])

    def all_levels(self, clean: Tensor, rows: Sequence[int], draw: int) -> tuple[Tensor, Tensor]:
        """The batch at all levels, (K * B, ...), with one noise for all of them, and its (K * B,) sigmas."""
        sigmas = self.sigmas.to(clean)
        noised = clean.expand(len(sigmas), *clean.shape)
        if self.noised_input:
            noise = unit_noise(rows, clean.shape[1:], draw=draw, seed=self.seed).to(clean)
            noised = torch.addcmul(noised, sigmas.view(-1, *[1] * clean.ndim), noise)
        return noised.flatten(0, 1), sigmas.repeat_interleave(len(clean))


@dataclass(frozen=True, eq=False)
class Batch:
    """What one forward gave.

    Args:
        features: (K, B, D) by layer.
        labels_B: classes, on the network's device; -1 where the images have none.
        numbers: (B,) of the images' noise: their rows within their role, where nothing else was asked for.
        draw: which of the noises.
        clean: (B, ...) the images, on the network's device.
        denoised: (K, B, ...) the network's estimates of them; (K, B, 0) where the forward ended early.
        spread: (K, B) standard deviation of all that a layer puts out, by layer; empty where the forward ended early.
    """

    features: dict[str, Tensor]
    labels_B: Tensor
    numbers: Tensor
    draw: int
    clean: Tensor
    denoised: Tensor
    spread: dict[str, Tensor] = field(default_factory=dict)


class Forwards:
    """Runs images through the network; a GPU is never waited for until the end.

    Args:
        denoiser: of the network in training, in eval mode.
        captured: the hooks on its layers.
        noising: levels and noise.
        device: of the network.
        batch_size: inputs in one forward, all levels together.
        progress: called with the number of images done since its last call.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        captured: Capture,
        noising: Noising,
        *,
        device: torch.device,
        batch_size: int,
        progress: Callable[[int], None] = lambda num_images: None,
    ) -> None:
        self.denoiser = denoiser
        self.captured = captured
        self.noising = noising
        self.device = device
        self.batch_size = batch_size
        self.progress = progress

    def with_noising(self, noising: Noising) -> "Forwards":
        """The same at other levels or draws."""
        return Forwards(
            self.denoiser,
            self.captured,
            noising,
            device=self.device,
            batch_size=self.batch_size,
            progress=self.progress,
        )

    def batches(
        self, images: ImageSet, rows: Tensor, *, numbers: Tensor | None = None, to_the_end: bool = False
    ) -> Iterator[Batch]:
        """Features of the images of these rows, every draw and level.

        Args:
            images: of one role.
            rows: (N,) which of them, in this order; there may be none.
            numbers: (N,) which noise each gets; None for that of its row. Equal numbers share their noise.
            to_the_end: run whole forwards, for the denoised images; otherwise they end at the last hooked layer.

        Raises:
            FloatingPointError: after the last batch, if features are not finite.
            ValueError: as `Capture.run`.
        """
        if not len(rows):
            return
        num_levels = len(self.noising.sigmas)
        finite = FiniteCheck()
        size = max(1, self.batch_size // num_levels)
        for part, noise_numbers in zip(
            rows.split(size), (rows if numbers is None else numbers).split(size), strict=True
        ):
            clean = images.images[part].to(self.device, non_blocking=True)
            labels_B = torch.full_like(part, -1) if images.labels is None else images.labels[part]
            labels_B = labels_B.to(self.device, torch.long)
            for draw in range(self.noising.num_draws):
                noised, sigma = self.noising.all_levels(clean, noise_numbers.tolist(), draw)
                flat = self.captured.run(partial(self.denoiser, noised, sigma), to_the_end=to_the_end)
                finite.add(flat)
                features = {layer: feature.view(num_levels, len(part), -1) for layer, feature in flat.items()}
                output = self.captured.output
                denoised = clean.new_zeros(len(noised), 0) if output is None else output
                denoised = denoised.view(num_levels, len(part), *denoised.shape[1:])
                spread = {layer: values.view(num_levels, -1) for layer, values in self.captured.spread.items()}
                yield Batch(features, labels_B, noise_numbers, draw, clean, denoised, spread)
            self.progress(len(part))
        finite.check()
