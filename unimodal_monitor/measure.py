"""The method on one screen: probe images, noise, denoiser, features, probe, outcomes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torchmetrics import Metric

from unimodal_monitor.curve import Outcomes
from unimodal_monitor.data import ProbeSet
from unimodal_monitor.forwards import Forwards
from unimodal_monitor.images import ImageSet
from unimodal_monitor.probes.base import LinearClassifier, Probe
from unimodal_monitor.ranks import Ranks

Classifiers = Mapping[str, LinearClassifier]


@dataclass(frozen=True, eq=False)
class Portion:
    """Which images of a probe set are used.

    Args:
        fit: rows of the fit images.
        heldout: rows of the held-out images.
    """

    fit: Tensor
    heldout: Tensor


@dataclass(frozen=True, eq=False)
class Measurement:
    """What a check has measured.

    Args:
        outcomes: by layer, of all held-out images.
        glance: the same of the portion alone, with probes fitted on the portion alone; empty without a portion.
    """

    outcomes: dict[str, Outcomes]
    glance: dict[str, Outcomes]


def measure(
    forwards: Forwards, probe_set: ProbeSet, probe: Probe, *, ranks: Ranks, portion: Portion | None = None
) -> Measurement:
    """Fit a linear probe for every layer and level on all fit images, and score it on all held-out ones.

    Args:
        forwards: of the network.
        probe_set: with labels.
        probe: to fit.
        ranks: that share the images.
        portion: for which the outcomes are wanted as a glance would have them; it takes no further forwards.

    Raises:
        FloatingPointError: if features are not finite.
        ValueError: if labels are missing, or as `Capture.run`.
    """
    every = torch.arange(len(probe_set.fit))
    parts = [every] if portion is None else [portion.fit, every[~torch.isin(every, portion.fit)]]
    fitted = fit_probes(forwards, probe_set, probe, parts=parts, ranks=ranks)
    rows = torch.arange(len(probe_set.heldout))
    *of_portion, of_all = score_images(forwards, probe_set.heldout, probe, fitted, rows=rows, ranks=ranks)
    if portion is None:
        return Measurement(of_all, {})
    return Measurement(of_all, {layer: outcomes.take(portion.heldout) for layer, outcomes in of_portion[0].items()})


def fit_probes(
    forwards: Forwards, probe_set: ProbeSet, probe: Probe, *, parts: Sequence[Tensor], ranks: Ranks
) -> list[Classifiers]:
    """Classifiers by layer after each part of the fit images, fitted on all the parts so far.

    Args:
        forwards: of the network.
        probe_set: with labels.
        probe: to fit.
        parts: rows of the fit images, each row in one part.
        ranks: that share each part.
    """
    num_classes = probe_set.num_classes
    collectors: dict[str, Metric] = {}
    fitted: list[Classifiers] = []
    for part in parts:
        work = partial(_collect, forwards, probe_set.fit, ranks.share(part), probe, num_classes, collectors)
        ranks.together(work, device=forwards.device)
        with ranks.merged(list(collectors.values())):
            fitted.append(dict(zip(collectors, probe.fit(list(collectors.values())), strict=True)))
    return fitted


def score_images(
    forwards: Forwards, images: ImageSet, probe: Probe, fitted: Sequence[Classifiers], *, rows: Tensor, ranks: Ranks
) -> list[dict[str, Outcomes]]:
    """Outcomes of the images of these rows, in their order, by each of the fitted classifiers and by layer.

    Args:
        forwards: of the network.
        images: the held-out ones.
        probe: that gave the classifiers.
        fitted: classifiers by layer; all of them see the same features.
        rows: (M,) which images.
        ranks: that share the images.
    """
    share = ranks.share(rows)
    scored = ranks.together(lambda: _score(forwards, images, share, probe, fitted), device=forwards.device)
    return [
        {
            layer: Outcomes(ranks.gather(c, len(rows)).cpu(), ranks.gather(s, len(rows)).cpu(), probe.score_name)
            for layer, (c, s) in of_layers.items()
        }
        for of_layers in scored
    ]


def _collect(
    forwards: Forwards,
    images: ImageSet,
    rows: Tensor,
    probe: Probe,
    num_classes: int,
    collectors: dict[str, Metric],
) -> None:
    for batch in forwards.batches(images, rows):
        for layer, features_KBD in batch.features.items():
            if layer not in collectors:
                num_levels, _, width = features_KBD.shape
                collectors[layer] = probe.collector(num_levels, width, num_classes).to(forwards.device)
            collectors[layer].update(features_KBD, batch.labels_B)


def _score(
    forwards: Forwards, images: ImageSet, rows: Tensor, probe: Probe, fitted: Sequence[Classifiers]
) -> list[dict[str, tuple[Tensor, Tensor]]]:
    """(K, R, M) correct and score of each classifier, on the network's device."""
    fitted = [{layer: c.to(forwards.device) for layer, c in classifiers.items()} for classifiers in fitted]
    kept: list[dict[str, list[tuple[Tensor, Tensor]]]] = [{layer: [] for layer in c} for c in fitted]
    for batch in forwards.batches(images, rows):
        for classifiers, parts in zip(fitted, kept, strict=True):
            for layer, classifier in classifiers.items():
                scores_KBC = classifier.scores(batch.features[layer])
                score_KB = probe.score(scores_KBC, batch.labels_B, classifier.prior_C)
                parts[layer].append((scores_KBC.argmax(2) == batch.labels_B, score_KB.float()))
    num_draws = forwards.noising.num_draws
    return [{layer: _by_draw(pairs, num_draws) for layer, pairs in parts.items()} for parts in kept]


def _by_draw(pairs: Sequence[tuple[Tensor, Tensor]], num_draws: int) -> tuple[Tensor, Tensor]:
    """Two (K, R, M) of pairs of (K, B), in which the draws of a batch follow one another."""
    correct, score = (
        torch.stack([torch.cat(parts[draw::num_draws], 1) for draw in range(num_draws)], 1)
        for parts in zip(*pairs, strict=True)
    )
    return correct, score
