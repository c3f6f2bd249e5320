"""The method on one screen: probe images, noise, denoiser, features, probe, outcomes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce

import torch
from torch import Tensor
from torchmetrics import Metric

from unimodal_monitor.data.image_set import ImageSet
from unimodal_monitor.data.probe_set import ProbeSet
from unimodal_monitor.forward.distributed import Ranks
from unimodal_monitor.forwards import Batch, Forwards
from unimodal_monitor.probes.base import LinearClassifier, Probe
from unimodal_monitor.stats.estimate import Outcomes

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


Hear = Callable[[Batch], None]


@dataclass(frozen=True, eq=False)
class Listener:
    """Takes in held-out images in passing; their forwards run to the end, for the denoised images.

    Args:
        rows: of the held-out images that it wants; where a portion is measured, its beginning.
        hear: called with each of their batches.
    """

    rows: Tensor
    hear: Hear


@dataclass(frozen=True, eq=False)
class Measurement:
    """What a check has measured.

    Args:
        outcomes: by layer, of all held-out images.
        glance: the same of the portion alone, with probes fitted on the portion alone; empty without one.
    """

    outcomes: dict[str, Outcomes]
    glance: dict[str, Outcomes]


NO_ROWS = torch.arange(0)


def measure(
    forwards: Forwards,
    probe_set: ProbeSet,
    probe: Probe,
    *,
    ranks: Ranks,
    portion: Portion | None = None,
    listener: Listener | None = None,
) -> Measurement:
    """Fit a linear probe for every layer and level on all fit images, and score it on all held-out ones.

    Args:
        forwards: of the network.
        probe_set: with labels.
        probe: to fit.
        ranks: that share the images.
        portion: for which the outcomes are wanted as a glance would have them; that takes no further forwards.
        listener: takes in some of the held-out images.

    Raises:
        FloatingPointError: if features are not finite.
        ValueError: if labels are missing, or as `Capture.run`.
    """
    fit_first, glanced = (NO_ROWS, NO_ROWS) if portion is None else (portion.fit, portion.heldout)
    heard, hear = (NO_ROWS, None) if listener is None else (listener.rows, listener.hear)
    fit_parts = [rows for rows in _parts(len(probe_set.fit), fit_first) if len(rows)]
    fitted = fit_probes(forwards, probe_set, probe, parts=fit_parts, ranks=ranks)
    score = partial(score_images, forwards, probe_set.heldout, probe, ranks=ranks)
    parts = _parts(len(probe_set.heldout), heard, glanced)
    of_portion = [score(fitted, rows=parts[0], listen=hear), score(fitted, rows=parts[1])]
    outcomes = _joined([*(found[-1] for found in of_portion), *score(fitted[-1:], rows=parts[2])])
    in_order = torch.cat(parts).argsort()
    return Measurement(
        {layer: found.take(in_order) for layer, found in outcomes.items()},
        {} if portion is None else _joined([found[0] for found in of_portion]),
    )


def _joined(parts: Sequence[Mapping[str, Outcomes]]) -> dict[str, Outcomes]:
    """By layer, those of one part of the images behind those of another."""
    first, *others = parts
    return {layer: reduce(Outcomes.joined, [part[layer] for part in others], first[layer]) for layer in first}


def hear_all(forwards: Forwards, images: ImageSet, rows: Tensor, *, listen: Hear, ranks: Ranks) -> None:
    """Pass the images of these rows through the whole network for the listener alone, as where there are no labels."""

    def work() -> None:
        for batch in forwards.batches(images, ranks.share(rows), to_the_end=True):
            listen(batch)

    ranks.together(work, device=forwards.device)


def _parts(num: int, *firsts: Tensor) -> list[Tensor]:
    """All rows in parts: each of the first ones without what came before it, then the rest. A part may be empty."""
    parts: list[Tensor] = []
    for rows in (*firsts, torch.arange(num)):
        parts.append(rows[~torch.isin(rows, torch.cat([NO_ROWS, *parts]))])
    return parts


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
        share = ranks.share(part, may_be_empty=bool(fitted))
        work = partial(_collect, forwards, probe_set.fit, share, probe, num_classes, collectors)
        ranks.together(work, device=forwards.device)
        with ranks.merged(list(collectors.values())):
            fitted.append(dict(zip(collectors, probe.fit(list(collectors.values())), strict=True)))
    return fitted


def score_images(
    forwards: Forwards,
    images: ImageSet,
    probe: Probe,
    fitted: Sequence[Classifiers],
    *,
    rows: Tensor,
    ranks: Ranks,
    listen: Hear | None = None,
) -> list[dict[str, Outcomes]]:
    """Outcomes of the images of these rows, in their order, by each of the fitted classifiers and by layer.

    Args:
        forwards: of the network.
        images: the held-out ones.
        probe: that gave the classifiers.
        fitted: classifiers by layer; all of them see the same features.
        rows: (M,) which images.
        ranks: that share the images.
        listen: takes in this rank's share of the batches.
    """
    share = ranks.share(rows, may_be_empty=True)
    scored = ranks.together(lambda: _score(forwards, images, share, probe, fitted, listen), device=forwards.device)
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
    forwards: Forwards,
    images: ImageSet,
    rows: Tensor,
    probe: Probe,
    fitted: Sequence[Classifiers],
    listen: Hear | None,
) -> list[dict[str, tuple[Tensor, Tensor]]]:
    """(K, R, M) correct and score of each classifier, on the network's device."""
    fitted = [{layer: c.to(forwards.device) for layer, c in classifiers.items()} for classifiers in fitted]
    nothing = torch.empty(len(forwards.noising.sigmas), 0, device=forwards.device)
    num_draws = forwards.noising.num_draws
    kept = [{layer: num_draws * [(nothing.bool(), nothing)] for layer in c} for c in fitted]
    for batch in forwards.batches(images, rows, to_the_end=listen is not None):
        if listen is not None:
            listen(batch)
        for classifiers, parts in zip(fitted, kept, strict=True):
            for layer, classifier in classifiers.items():
                scores_KBC = classifier.scores(batch.features[layer])
                score_KB = probe.score(scores_KBC, batch.labels_B, classifier.prior_C)
                parts[layer].append((scores_KBC.argmax(2) == batch.labels_B, score_KB.float()))
    return [{layer: _by_draw(pairs, num_draws) for layer, pairs in parts.items()} for parts in kept]


def _by_draw(pairs: Sequence[tuple[Tensor, Tensor]], num_draws: int) -> tuple[Tensor, Tensor]:
    """Two (K, R, M) of pairs of (K, B), in which the draws of a batch follow one another."""
    correct, score = (
        torch.stack([torch.cat(parts[draw::num_draws], 1) for draw in range(num_draws)], 1)
        for parts in zip(*pairs, strict=True)
    )
    return correct, score
