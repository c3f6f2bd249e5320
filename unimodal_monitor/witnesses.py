"""Witnesses: what the forwards of a check tell besides the probe, with a few more of members and of views."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from unimodal_monitor.data import ProbeSet
from unimodal_monitor.denoisers.memorizer import Memorizer
from unimodal_monitor.features import capture
from unimodal_monitor.forwards import Batch, Forwards, Noising
from unimodal_monitor.images import ImageSet
from unimodal_monitor.ranks import Ranks
from unimodal_monitor.signals.contamination import ICR, Contamination
from unimodal_monitor.signals.gap import DenoisingGap, Gap, Pairs, denoising_error
from unimodal_monitor.signals.shift import find_shift
from unimodal_monitor.signals.spikiness import Spikes, Spikiness
from unimodal_monitor.signals.views import two_views

MEMBER_SHARE, VIEW_SHARE = 1 / 15, 1 / 20
"""Members and images with two views, as parts of the images that are probed: a sixth more forwards in all, and under a
quarter more time, for those of the gap run to the end of the network."""
MOST_UNPROBED = 4096
"""Members, and images with two views, where there is no probe to share the forwards with."""
FEWEST = 8
"""Images of a role, under which its signals are left out."""
FIRST_VIEW = 10**9
"""Number of the first view's noise: no image has it."""


@dataclass(frozen=True, eq=False)
class Testimony:
    """What the witnesses say at one check, about the judged layer.

    Args:
        gap: denoising errors of held-out images and members; None if left out.
        contamination: from two views of members; None if left out.
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

    Args:
        probe_set: members and held-out images; labels are not looked at.
        heldout: (M,) rows of the held-out images that pass through the whole network.
        noising: levels and noise; one draw of it is used.
        layer: whose features are looked at.
        fewest: images of a role, under which its signals are left out and none of them passes through the network.
    """

    def __init__(
        self, probe_set: ProbeSet, heldout: Tensor, *, noising: Noising, layer: str, fewest: int = FEWEST
    ) -> None:
        probed = 0 if probe_set.is_unlabelled else len(probe_set.fit) + len(probe_set.heldout)
        num_members, num_views = (
            min(len(probe_set.members), int(share * probed) if probed else MOST_UNPROBED)
            for share in (MEMBER_SHARE, VIEW_SHARE)
        )
        self.members, self.layer = probe_set.members, layer
        self.noising = noising.once()
        found = find_shift(probe_set.members.images, probe_set.heldout.images)
        self.shift = None if found is None else found.describe()
        self.missing = {} if self.shift is None else {"trust in the gap": self.shift}
        counts = {"gap": min(num_members, len(heldout)), "contamination": num_views}
        counts["spikiness"] = counts["gap"]
        for name, count in counts.items():
            if count < fewest:
                self.missing[name] = f"{count} images are too few; {fewest} would do"
        self.heldout = heldout[: 0 if "gap" in self.missing else num_members]
        self.num_views = 0 if "contamination" in self.missing else num_views
        self._memorizer_KN: Tensor | None = None
        self.forget()

    @property
    def num_images(self) -> int:
        """Images that `hear` passes through the network, at all levels each, beside the held-out images."""
        return len(self.heldout) + 2 * self.num_views

    def memorizer_errors(self, device: torch.device) -> Tensor:
        """(K, N) errors of the closed-form memorizer of the members on the noised members; computed once."""
        if self._memorizer_KN is None:
            device = torch.device("cpu") if device.type == "mps" else device
            memorizer = Memorizer(self.members.images.to(device))
            with capture({}) as captured:
                forwards = Forwards(memorizer, captured, self.noising, device=device, batch_size=4096)
                rows = torch.arange(len(self.heldout))
                batches = forwards.batches(self.members, rows, numbers=self.heldout, to_the_end=True)
                errors_KN = torch.cat([denoising_error(batch.denoised, batch.clean) for batch in batches], 1)
            self._memorizer_KN = errors_KN.cpu()[:, self.heldout.argsort()]
        return self._memorizer_KN

    def hear_heldout(self, batch: Batch) -> None:
        """Take in held-out images in passing; those that have no member beside them are left out."""
        is_paired = torch.isin(batch.numbers, self.heldout)
        if batch.draw == 0 and is_paired.any():
            self._take(batch, is_paired, is_member=False)

    def hear(self, forwards: Forwards, *, ranks: Ranks) -> Testimony:
        """Pass members and views through the network, and say what all witnesses have seen since the last call.

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
        self._contamination = Contamination(num_levels)
        self._signals: dict[str, Metric] = {
            "gap": self._gap, "spikiness": self._spikiness, "contamination": self._contamination,
        }  # fmt: skip

    def _run(self, forwards: Forwards, ranks: Ranks) -> None:
        if len(self.heldout):
            self._run_members(forwards, ranks.share(torch.arange(len(self.heldout))))
        if self.num_views:
            self._run_views(forwards, ranks.share(torch.arange(self.num_views)))

    def _run_members(self, forwards: Forwards, rows: Tensor) -> None:
        for batch in forwards.batches(self.members, rows, numbers=self.heldout[rows], to_the_end=True):
            self._take(batch, torch.ones_like(batch.numbers, dtype=torch.bool), is_member=True)

    def _run_views(self, forwards: Forwards, rows: Tensor) -> None:
        views = two_views(self.members.images[rows], seed=self.noising.seed, indices=rows.tolist())
        passing = (
            forwards.batches(ImageSet(view), torch.arange(len(rows)), numbers=FIRST_VIEW + 2 * rows + side)
            for side, view in enumerate(views)
        )
        for first, second in zip(*passing, strict=True):
            numbers = (first.numbers - FIRST_VIEW) // 2
            self._contamination.update(first.features[self.layer], second.features[self.layer], numbers)

    def _take(self, batch: Batch, chosen: Tensor, *, is_member: bool) -> None:
        where = chosen.to(batch.clean.device)
        denoised, clean, numbers = batch.denoised[:, where], batch.clean[where], batch.numbers[chosen]
        self._gap.update(denoising_error(denoised, clean), numbers, is_member=is_member)
        self._spikiness.update(batch.features[self.layer][:, where], numbers, is_member=is_member)

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
