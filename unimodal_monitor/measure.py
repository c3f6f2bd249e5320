"""The method on one screen: probe images, noise, denoiser, features, probe, outcomes."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from unimodal_monitor.curve import Outcomes
from unimodal_monitor.data import ProbeSet
from unimodal_monitor.denoisers.base import Denoiser
from unimodal_monitor.features import Capture, capture, check_finite
from unimodal_monitor.images import ImageSet
from unimodal_monitor.noise import unit_noise
from unimodal_monitor.probes.base import Probe


@dataclass(frozen=True)
class Protocol:
    """What is measured, the same at every check.

    Args:
        sigmas: (K,) levels, ascending, in data units.
        probe: that is fitted for every layer and level.
        num_draws: R, independent noises for each image.
        seed: of the noise.
        batch_size: inputs in one forward, all levels together.
        noised_input: False shows the network clean images and only tells it the level.
    """

    sigmas: Tensor
    probe: Probe
    num_draws: int
    seed: int
    batch_size: int
    noised_input: bool = True


def measure(
    denoiser: Denoiser,
    layers: Mapping[str, nn.Module],
    probe_set: ProbeSet,
    protocol: Protocol,
    *,
    device: torch.device,
    progress: Callable[[int], None] = lambda num_images: None,
) -> dict[str, Outcomes]:
    """Fit a linear probe for every layer and level, and score it on the held-out images.

    Args:
        denoiser: of the network in training, in eval mode.
        layers: of the denoiser's network, by name.
        probe_set: with labels.
        protocol: what to measure.
        device: of the network.
        progress: called with the number of images done since its last call.

    Returns:
        the outcomes by layer.

    Raises:
        FloatingPointError: if features are not finite.
        ValueError: as `Capture.run`.
    """
    num_classes = probe_set.num_classes
    with capture(layers) as captured:
        collectors = {}
        for features_KND, labels_N, _ in _batches(denoiser, captured, probe_set.fit, protocol, device):
            for layer, feature in features_KND.items():
                if layer not in collectors:
                    width = feature.shape[2]
                    collectors[layer] = protocol.probe.collector(len(feature), width, num_classes).to(device)
                collectors[layer].update(feature, labels_N)
            progress(len(labels_N))
        classifiers = dict(zip(collectors, protocol.probe.fit(list(collectors.values())), strict=True))
        outcomes = {layer: _empty_outcomes(protocol, len(probe_set.heldout)) for layer in layers}
        for features_KND, labels_N, (draw, rows) in _batches(denoiser, captured, probe_set.heldout, protocol, device):
            for layer, feature in features_KND.items():
                scores_KNC = classifiers[layer].scores(feature)
                score_KN = protocol.probe.score(scores_KNC, labels_N, classifiers[layer].prior_C)
                outcomes[layer].correct_KRM[:, draw, rows] = (scores_KNC.argmax(2) == labels_N).cpu()
                outcomes[layer].score_KRM[:, draw, rows] = score_KN.cpu()
            progress(len(labels_N))
    return outcomes


def _batches(
    denoiser: Denoiser, captured: Capture, images: ImageSet, protocol: Protocol, device: torch.device
) -> Iterator[tuple[dict[str, Tensor], Tensor, tuple[int, slice]]]:
    """Features of all levels, batch by batch: {layer: (K, B, D)}, labels (B,), and which draw and rows they are."""
    if images.labels is None:
        raise ValueError("the probe needs labels")
    num_levels = len(protocol.sigmas)
    size = max(1, protocol.batch_size // num_levels)
    for start in range(0, len(images), size):
        rows = slice(start, min(start + size, len(images)))
        clean = images.images[rows].to(device)
        labels = images.labels[rows].to(device, torch.long)
        for draw in range(protocol.num_draws):
            noised, sigma = all_levels(clean, rows, draw, protocol)
            features = captured.run(partial(denoiser, noised, sigma))
            check_finite(features)
            yield {layer: f.view(num_levels, len(clean), -1) for layer, f in features.items()}, labels, (draw, rows)


def all_levels(clean: Tensor, rows: slice, draw: int, protocol: Protocol) -> tuple[Tensor, Tensor]:
    """The batch at all levels, (K * B, ...), with one noise for all of them, and its (K * B,) sigmas."""
    sigmas = protocol.sigmas.to(clean)
    noised = clean.expand(len(sigmas), *clean.shape)
    if protocol.noised_input:
        noise = unit_noise(range(rows.start, rows.stop), clean.shape[1:], draw=draw, seed=protocol.seed)
        noised = noised + sigmas.view(-1, *[1] * clean.ndim) * noise.to(clean)
    return noised.flatten(0, 1), sigmas.repeat_interleave(len(clean))


def _empty_outcomes(protocol: Protocol, num_images: int) -> Outcomes:
    shape = (len(protocol.sigmas), protocol.num_draws, num_images)
    return Outcomes(torch.zeros(shape, dtype=torch.bool), torch.zeros(shape), protocol.probe.score_name)
