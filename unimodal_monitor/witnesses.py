"""Witnesses: what the forwards of a check tell besides the probe, with a few more of members and of views."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from unimodal_monitor.data.image_set import ImageSet
from unimodal_monitor.data.probe_set import ProbeSet
from unimodal_monitor.denoisers.memorizer import Memorizer
from unimodal_monitor.forward.distributed import Ranks
from unimodal_monitor.forward.hooks import capture
from unimodal_monitor.forwards import Batch, Forwards, Noising
from unimodal_monitor.signals.gap import DenoisingGap, Gap, Pairs, denoising_error
from unimodal_monitor.signals.invariance import ICR, Contamination
from unimodal_monitor.signals.shift import find_shift
from unimodal_monitor.signals.spread import Spikes, Spikiness
from unimodal_monitor.signals.views import another_view

SHARE = 1 / 12
"""Held-out images that are heard, as a part of those that are probed. Each takes two more forwards, of a member and of
its second view: a sixth more in all, and up to a third more time, for those of the gap run to the end."""
MOST_UNPROBED = 2048
"""Held-out images that are heard where there is no probe to share the forwards with."""
FEWEST = 8
"""Images of a role, under which its signals are left out."""
IMAGES_PER_DIRECTION = 4
"""Of the ICR: the more, the surer are its errors, and the less of wide features is looked at."""
SECOND_VIEW = 10**9
"""Number of the noise of the first image's second view: no image has it."""


@dataclass(frozen=True, eq=False)
class Testimony:
    """What the witnesses say at one check, about the judged layer.

    Args:
        gap: denoising errors of held-out images and members; None if left out.
        contamination: from two views of held-out images; None if left out.
        spikiness: of members against held-out images; None if left out.
        pairs: what the gap rests on, image by image; None if it was left out, or if the held-out images are of another
            distribution, so that the gap cannot be trusted.
        missing: why a witness was left out, by name.
    """

    gap: Gap | None = None
    contamination: ICR | None = None
    spikiness: Spikes | None = None
    pairs: Pairs | None = None
    missing: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Primitives only, without the figures of single images."""
        said = {"gap": self.gap, "contamination": self.contamination, "spikiness": self.spikiness}
        return {name: None if value is None else value.to_dict() for name, value in said.items()} | {
            "missing": dict(self.missing)
        }


class Witnesses:
    """Hears the witnesses of every check of a run, on the same images with the same noise.

    A held-out image is heard as it passes for the probe. A member passes beside it with the same noise, and the image
    itself once more, augmented and with another noise.

    Args:
        probe_set: members and held-out images; labels are not looked at.
        heldout: (M,) rows of the held-out images that may be heard, the first ones first.
        noising: levels and noise; one draw of it is used.
        layer: whose features are looked at.
        fewest: images of a role, under which its signals are left out and none of them passes through the network.
    """

    def __init__(
        self, probe_set: ProbeSet, heldout: Tensor, *, noising: Noising, layer: str, fewest: int = FEWEST
    ) -> None:
        probed = 0 if probe_set.is_unlabelled else len(probe_set.fit) + len(probe_set.heldout)
        heldout = heldout[: int(SHARE * probed) if probed else MOST_UNPROBED]
        self.members, self.images, self.layer = probe_set.members, probe_set.heldout, layer
        self.noising = noising.once()
        found = find_shift(probe_set.members.images, probe_set.heldout.images)
        self.shift = None if found is None else found.describe()
        self.missing = {} if self.shift is None else {"trust in the gap": self.shift}
        num_pairs = min(len(probe_set.members), len(heldout))
        for name, count in {"gap": num_pairs, "contamination": len(heldout), "spikiness": num_pairs}.items():
            if count < fewest:
                self.missing[name] = f"{count} images are too few; {fewest} would do"
        if not noising.noised_input and not probe_set.has_images:
            self.missing["contamination"] = (
                "what is no image has two views by noise alone, which noised_input=False takes away"
            )
        self.pairs = heldout[: 0 if "gap" in self.missing else num_pairs]
        self.views = heldout[: 0 if "contamination" in self.missing else None]
        self.heard = max(self.pairs, self.views, key=len)
        self._memorizer_KN: Tensor | None = None
        self.forget()

    @property
    def num_images(self) -> int:
        """Images that `hear` passes through the network, at all levels each, beside the held-out images."""
        return len(self.pairs) + len(self.views)

    def memorizer_errors(self, device: torch.device) -> Tensor:
        """(K, N) errors of the closed-form memorizer of the members on the noised members; computed once."""
        if self._memorizer_KN is None:
            device = torch.device("cpu") if device.type == "mps" else device
            memorizer = Memorizer(self.members.images.to(device))
            with capture({}) as captured:
                forwards = Forwards(memorizer, captured, self.noising, device=device, batch_size=4096)
                rows = torch.arange(len(self.pairs))
                batches = forwards.batches(self.members, rows, numbers=self.pairs, to_the_end=True)
                errors_KN = torch.cat([denoising_error(batch.denoised, batch.clean) for batch in batches], 1)
            self._memorizer_KN = errors_KN.cpu()[:, self.pairs.argsort()]
        return self._memorizer_KN

    def hear_heldout(self, batch: Batch) -> None:
        """Take in held-out images in passing, as first views and, where they have a member beside them, for the gap."""
        if batch.draw:
            return
        viewed, paired = (torch.isin(batch.numbers, rows).nonzero()[:, 0] for rows in (self.views, self.pairs))
        if len(viewed):
            features_KBD = batch.features[self.layer][:, viewed.to(batch.clean.device)]
            self._contamination.update(features_KBD, batch.numbers[viewed], is_second=False)
        if len(paired):
            self._take(batch, paired, is_member=False)

    def hear(self, forwards: Forwards, *, ranks: Ranks) -> Testimony:
        """Pass members and second views through the network, and say what all witnesses have seen since the last call.

        Args:
            forwards: with a hook on the layer.
            ranks: that share the images; with several, all make this call.
        """
        forwards = forwards.with_noising(self.noising)
        ranks.together(lambda: self._run(forwards, ranks), device=forwards.device)
        with ranks.merged(list(self._signals.values())):
            testimony = self._compute(forwards.device)
        self.forget()
        return testimony

    def forget(self) -> None:
        """Start anew, as after a check that failed half way: what was heard then is of another network."""
        num_levels = len(self.noising.sigmas)
        self._gap, self._spikiness = DenoisingGap(num_levels), Spikiness(num_levels)
        self._contamination = Contamination(num_levels, images_per_direction=IMAGES_PER_DIRECTION)
        self._signals: dict[str, Metric] = {
            "gap": self._gap, "spikiness": self._spikiness, "contamination": self._contamination,
        }  # fmt: skip

    def _run(self, forwards: Forwards, ranks: Ranks) -> None:
        if len(self.pairs):
            self._run_members(forwards, ranks.share(torch.arange(len(self.pairs))))
        if len(self.views):
            self._run_second_views(forwards, ranks.share(self.views))

    def _run_members(self, forwards: Forwards, rows: Tensor) -> None:
        for batch in forwards.batches(self.members, rows, numbers=self.pairs[rows], to_the_end=True):
            self._take(batch, torch.arange(len(batch.numbers)), is_member=True)

    def _run_second_views(self, forwards: Forwards, rows: Tensor) -> None:
        views = another_view(self.images.images[rows], seed=self.noising.seed, indices=rows.tolist())
        for batch in forwards.batches(ImageSet(views), torch.arange(len(rows)), numbers=SECOND_VIEW + rows):
            self._contamination.update(batch.features[self.layer], batch.numbers - SECOND_VIEW, is_second=True)

    def _take(self, batch: Batch, columns: Tensor, *, is_member: bool) -> None:
        where = columns.to(batch.clean.device)
        denoised, clean, numbers = batch.denoised[:, where], batch.clean[where], batch.numbers[columns]
        self._gap.update(denoising_error(denoised, clean), numbers, is_member=is_member)
        self._spikiness.update(batch.spread[self.layer][:, where], numbers, is_member=is_member)

    def _compute(self, device: torch.device) -> Testimony:
        missing = dict(self.missing)
        gap = self._said("gap", lambda: self._compute_gap(device), missing)
        return Testimony(
            gap=gap,
            pairs=Pairs(gap.heldout_KN, gap.members_KN, self.memorizer_errors(device))
            if gap is not None and self.shift is None
            else None,
            contamination=self._said("contamination", self._contamination.compute, missing),
            spikiness=self._said("spikiness", self._spikiness.compute, missing),
            missing=missing,
        )

    def _compute_gap(self, device: torch.device) -> Gap:
        self._gap.memorizer_error_KN = self.memorizer_errors(device)
        gap: Gap = self._gap.compute()
        return gap

    def _said(self, name: str, compute: Callable[[], Any], missing: dict[str, str]) -> Any:
        """What a signal says; one that cannot is left out with its reason, and takes nothing else with it."""
        if name in missing:
            return None
        try:
            return compute()
        except (ValueError, FloatingPointError) as error:
            missing[name] = str(error)
            return None
