"""Survey: all that one check measures of a network, by the probe and by the witnesses."""

from collections.abc import Sequence
from dataclasses import dataclass

from unimodal_monitor.alarm.rules.base import Look
from unimodal_monitor.data.probe_set import ProbeSet
from unimodal_monitor.forward.distributed import Ranks
from unimodal_monitor.forwards import Forwards, Noising
from unimodal_monitor.measure import Listener, Measurement, Portion, hear_all, measure
from unimodal_monitor.probes.base import Probe
from unimodal_monitor.stats.estimate import Curve, Outcomes
from unimodal_monitor.witnesses import FEWEST, Testimony, Witnesses


@dataclass(frozen=True, eq=False)
class Observation:
    """What a survey has found.

    Args:
        curves: of every layer, the judged one last; without labels that of the cleanliness alone.
        measured: by the probe; None without labels.
        testimony: of the witnesses; empty where there are none.
    """

    curves: tuple[Curve, ...]
    measured: Measurement | None
    testimony: Testimony

    @property
    def outcomes(self) -> dict[str, Outcomes]:
        """By layer, of all held-out images; empty without labels."""
        return {} if self.measured is None else self.measured.outcomes

    def look(self, number: int, step: int) -> Look:
        """The check as the alarm's rules see it, the `number`-th of the run."""
        curve, icr = self.curves[-1], self.testimony.contamination
        clean_KN = None if icr is None else icr.cleanliness_KN.numpy()
        if self.measured is not None:
            score_KM = self.measured.outcomes[curve.layer].score_KM
            glance_KM = self.measured.glance[curve.layer].score_KM if self.measured.glance else None
        elif clean_KN is not None:
            score_KM, glance_KM = clean_KN, None
        else:
            raise ValueError("neither a probe nor the ICR was measured; there is nothing for a rule to look at")
        return Look(number, step, curve, score_KM, glance_KM, self.testimony.pairs, clean_KN)


class Survey:
    """The same images, layers, levels and noise at every check of a run.

    Args:
        probe_set: images, with labels or without.
        probe: fitted where there are labels.
        layers: names of the hooked layers, the one to judge last.
        noising: levels and noise.
        ranks: that share the images.
        order: the held-out images that witnesses hear are its first ones.
        witnesses: whether they are heard; without labels they are in any case.
        for_glances: measure `order` as a glance would, too.

    Raises:
        ValueError: if there are too few images of a class, or without labels too few held-out ones.
    """

    def __init__(
        self,
        probe_set: ProbeSet,
        probe: Probe,
        *,
        layers: Sequence[str],
        noising: Noising,
        ranks: Ranks,
        order: Portion,
        witnesses: bool,
        for_glances: bool,
    ) -> None:
        _check_sizes(probe_set)
        self.probe_set = probe_set
        self.probe = probe
        self.layers = list(layers)
        self.noising = noising
        self.ranks = ranks
        self.portion = order if for_glances else None
        self.witnesses: Witnesses | None = None
        if witnesses or probe_set.is_unlabelled:
            fewest = max(FEWEST, ranks.size)
            self.witnesses = Witnesses(probe_set, order.heldout, noising=noising, layer=self.layers[-1], fewest=fewest)
            reason = self.witnesses.missing.get("contamination")
            if probe_set.is_unlabelled and reason:
                raise ValueError(f"without labels the curve is that of the held-out images' ICR, and {reason}")

    def run(self, forwards: Forwards) -> Observation:
        """Pass all images through the network.

        Raises:
            FloatingPointError: if features are not finite.
            ValueError: if there are no labels and the ICR cannot be had.
        """
        witnesses, listener, measured = self.witnesses, None, None
        if witnesses is not None:
            witnesses.forget()
        if witnesses is not None and len(witnesses.heard):
            listener = Listener(witnesses.heard, witnesses.hear_heldout)
        if not self.probe_set.is_unlabelled:
            measured = measure(
                forwards, self.probe_set, self.probe, ranks=self.ranks, portion=self.portion, listener=listener
            )
        elif listener is not None:
            once = forwards.with_noising(self.noising.once())
            hear_all(once, self.probe_set.heldout, listener.rows, listen=listener.hear, ranks=self.ranks)
        testimony = Testimony() if witnesses is None else witnesses.hear(forwards, ranks=self.ranks)
        return Observation(self._curves(measured, testimony), measured, testimony)

    @property
    def num_images(self) -> int:
        """Images that pass through the network, at all levels each."""
        return self._num_probed + self._num_heard

    @property
    def num_forwards(self) -> int:
        """Inputs that pass through the network; further draws are for the probe alone."""
        return (self._num_probed * self.noising.num_draws + self._num_heard) * len(self.noising.sigmas)

    @property
    def num_views(self) -> int:
        """Held-out images with two views."""
        return 0 if self.witnesses is None else len(self.witnesses.views)

    @property
    def frame(self) -> list[tuple[str, tuple[float, ...], int]]:
        """Layer, levels and number of images of every curve: what has to agree for two checks to compare."""
        sigmas = tuple(self.noising.sigmas.tolist())
        if self.witnesses is not None and self.probe_set.is_unlabelled:
            return [(self.layers[-1], sigmas, self.num_views)]
        return [(layer, sigmas, len(self.probe_set.heldout)) for layer in self.layers]

    def describe(self) -> str:
        """Layers and images, in half a sentence."""
        *others, judged = (layer for layer, _, _ in self.frame)
        layers = f"layers {', '.join([*others, f'{judged} (judged)'])}"
        if self.witnesses is None or not self.probe_set.is_unlabelled:
            num_fit, num_heldout = len(self.probe_set.fit), len(self.probe_set.heldout)
            return f"{layers}; probe fitted on {num_fit} images and scored on {num_heldout}"
        num_pairs = len(self.witnesses.pairs)
        silent = self.witnesses.missing.get("gap") or self.witnesses.shift
        return (
            f"{layers}; no labels: two views of {self.num_views} held-out images, "
            f"and {num_pairs} members against as many held-out images"
            + (f"; the usual alarm cannot be raised without a gap to trust: {silent}" if silent else "")
        )

    @property
    def _num_probed(self) -> int:
        return 0 if self.probe_set.is_unlabelled else len(self.probe_set.fit) + len(self.probe_set.heldout)

    @property
    def _num_heard(self) -> int:
        """Images that pass for the witnesses alone; held-out images do only where no probe is scored on them."""
        if self.witnesses is None:
            return 0
        return self.witnesses.num_images + (len(self.witnesses.heard) if self.probe_set.is_unlabelled else 0)

    def _curves(self, measured: Measurement | None, testimony: Testimony) -> tuple[Curve, ...]:
        sigmas, std = self.noising.sigmas, self.probe_set.std
        if measured is not None:
            return tuple(Curve.from_outcomes(layer, sigmas, std, measured.outcomes[layer]) for layer in self.layers)
        if testimony.contamination is None:
            raise ValueError(f"without labels the curve is that of the ICR: {testimony.missing['contamination']}")
        return (Curve.without_labels(self.layers[-1], sigmas, std, testimony.contamination.cleanliness_KN),)


def _check_sizes(probe_set: ProbeSet) -> None:
    if probe_set.is_unlabelled:
        return
    for name, images in (("fit", probe_set.fit), ("heldout", probe_set.heldout)):
        if len(images) < 2 * probe_set.num_classes:
            raise ValueError(
                f"{len(images)} images of {name!r} are too few for {probe_set.num_classes} classes; "
                "give ten or more of each class"
            )
