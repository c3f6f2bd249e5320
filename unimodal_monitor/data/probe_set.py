"""ProbeSet: the images of all checks of a run, in three roles."""

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from itertools import combinations
from typing import Any

import torch
from torch import nn

from unimodal_monitor.data.datasets import balanced_rows, draw
from unimodal_monitor.data.image_set import ImageSet
from unimodal_monitor.data.items import LABEL_KEYS, Transform
from unimodal_monitor.forward.isolation import evaluating, private_rng

MAX_DUPLICATES = 0.1  # share of the drawn held-out images; FER2013 has 5 %


@dataclass(frozen=True, eq=False)
class ProbeSet:
    """The images of a check; they stay the same for the whole run.

    The classes of the fit and held-out images are numbered anew from 0, without gaps, in the order of their labels.

    Args:
        members: Images that the model trains on.
        heldout: Images that the model never sees; the probe is scored on them.
        fit: Labelled images on which the probe is fitted; from `from_datasets` they are a part of the held-out
            images, which is not scored, or the members, as in the paper.

    Raises:
        ValueError: If shapes differ, a labelled role has a single class or fewer than two images per class, or an
            image has two roles.

    >>> members, heldout, fit = (ImageSet(torch.randn(8, 3, 4, 4), torch.arange(8) % 2) for _ in range(3))
    >>> ProbeSet(members, heldout, fit).num_classes
    2
    """

    members: ImageSet
    heldout: ImageSet
    fit: ImageSet

    def __post_init__(self) -> None:
        roles = {"members": self.members, "fit": self.fit, "heldout": self.heldout}
        shapes = {name: tuple(role.images.shape[1:]) for name, role in roles.items()}
        if len(set(shapes.values())) > 1:
            raise ValueError(f"the roles have images of different shapes: {shapes}")
        self._number_classes()
        if self.fit is self.members:
            del roles["fit"]
        _check_disjoint(roles)

    @property
    def num_classes(self) -> int:
        """Number of classes among the fit and held-out images; a ValueError where either have no labels."""
        if self.fit.labels is None or self.heldout.labels is None:
            raise ValueError(
                "the probe needs labels: the fit and held-out images must be (image, label) pairs "
                f"or dicts with one of {', '.join(LABEL_KEYS)}"
            )
        return int(torch.cat([self.fit.labels, self.heldout.labels]).max()) + 1

    @property
    def is_unlabelled(self) -> bool:
        """Whether there are no labels to fit a probe to."""
        return self.fit.labels is None and self.heldout.labels is None

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all images and labels: checks of other images do not compare."""
        state = blake2b(digest_size=8)
        for role in (self.members, self.fit, self.heldout):
            for values in (role.images, role.labels):
                if values is not None:
                    state.update(values.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        return state.hexdigest()

    @property
    def std(self) -> float:
        """Standard deviation of all pixels of the members, in model units."""
        return float(self.members.images.std())

    @classmethod
    def from_datasets(
        cls,
        members: Any,
        heldout: Any,
        *,
        num_members: int | None = None,
        num_heldout: int | None = None,
        fit: str = "heldout",
        num_fit: int | None = None,
        transform: Callable[..., Any] | None = None,
        module: nn.Module | None = None,
        seed: int = 0,
    ) -> "ProbeSet":
        """Draw class-balanced subsets of two datasets; held-out images with a duplicate are left out, with a warning.

        Args:
            members: What the model trains on: a dataset of tuples or dicts, a DataLoader of one, a stream of items,
                (images, labels) tensors, or a tensor of images. Captions count as no labels.
            heldout: The same for images that the model never sees.
            num_members: Number of members to draw; None for all.
            num_heldout: Number of held-out images to draw, for fitting and scoring together; None for all.
            fit: "heldout" fits the probe on `num_fit` of the held-out images and scores it on the others;
                "members" fits it on the members and scores it on all held-out images (the paper's protocol).
            num_fit: Number of held-out images to fit on; None for a third of them. Without labels there are none.
            transform: Function from what a dataset yields as image to a tensor in model space; one of two arguments,
                `(images, module)`, gets batches (N, ...) of them, and gives as many.
            module: Second argument of such a transform; it is called in eval mode and without gradients.
            seed: Seed of the draws, and of a dataset's own random augmentation.

        Raises:
            ValueError: If a dataset is too small, an item cannot be understood, or as for `ProbeSet`.

        >>> images, labels = torch.randn(90, 3, 4, 4), torch.arange(90) % 3
        >>> probe_set = ProbeSet.from_datasets(members=(images[:30], labels[:30]), heldout=(images[30:], labels[30:]))
        >>> len(probe_set.members), len(probe_set.fit), len(probe_set.heldout)
        (30, 20, 40)
        """
        if fit not in ("heldout", "members"):
            raise ValueError(f"fit must be 'heldout' or 'members', got {fit!r}")
        change = None if transform is None else Transform(transform, module)
        with private_rng(seed), nullcontext() if module is None else evaluating(module):
            drawn_members = draw(members, num_members, transform=change, seed=seed, role="members")
            drawn = draw(heldout, num_heldout, transform=change, seed=seed, role="heldout")
        drawn = _without_duplicates(drawn, drawn_members)
        if fit == "members":
            return cls(members=drawn_members, heldout=drawn, fit=drawn_members)
        if drawn.labels is None and num_fit is not None:
            raise ValueError(f"num_fit = {num_fit}, but the held-out images have no labels to fit on")
        if drawn.labels is None:
            unlabelled = replace(drawn_members, labels=None)
            return cls(members=unlabelled, heldout=drawn, fit=unlabelled)
        fitted, scored = _split(drawn, num_fit, seed=seed + 1)
        return cls(members=drawn_members, heldout=scored, fit=fitted)

    def _number_classes(self) -> None:
        """Number the classes from 0 without gaps, and check that there are enough of them and of their images."""
        if self.fit.labels is None or self.heldout.labels is None:
            return
        ids = torch.cat([self.heldout.labels, self.fit.labels])
        classes, numbers = torch.unique(ids, return_inverse=True)
        of_heldout, of_fit = numbers.split([len(self.heldout), len(self.fit)])
        for name, labels in (("heldout", of_heldout), ("fit", of_fit)):
            num, least = len(labels), 2 * len(classes)
            if num < least:
                raise ValueError(
                    f"{name!r} needs at least {least} images for {len(classes)} classes, got {num}; "
                    "ten or more of each class are better"
                )
            if bool((labels == labels[0]).all()):
                which = int(classes[labels[0]])
                raise ValueError(f"all {num} images of {name!r} are of class {which}; a probe needs two classes")
        fit = replace(self.fit, labels=of_fit)
        if self.fit is self.members:
            object.__setattr__(self, "members", fit)
        object.__setattr__(self, "fit", fit)
        object.__setattr__(self, "heldout", replace(self.heldout, labels=of_heldout))


def _split(drawn: ImageSet, num_fit: int | None, *, seed: int) -> tuple[ImageSet, ImageSet]:
    """A class-balanced part that fits the probe, a third by default, and the rest, which is scored."""
    num = len(drawn)
    num_fit = num // 3 if num_fit is None else num_fit
    if not 0 < num_fit < num:
        raise ValueError(f"num_fit must be from 1 to {num - 1} of {num} held-out images, got {num_fit}")
    is_fit = torch.zeros(num, dtype=torch.bool)
    is_fit[torch.from_numpy(balanced_rows(drawn.labels, num, num_fit, seed=seed))] = True
    return drawn.take(is_fit), drawn.take(~is_fit)


def _without_duplicates(heldout: ImageSet, members: ImageSet) -> ImageSet:
    """The held-out images that are neither members nor the same as an earlier one, as real datasets have some."""
    seen, rows = set(members.digests), []
    for row, digest in enumerate(heldout.digests):
        if digest not in seen:
            rows.append(row)
            seen.add(digest)
    num_left_out, num = len(heldout) - len(rows), len(heldout)
    if not num_left_out:
        return heldout
    found = f"{num_left_out} of {num} held-out images are members, too, or are there twice"
    if num_left_out > MAX_DUPLICATES * num:
        raise ValueError(f"heldout: {found}; give heldout= images that the model never sees")
    warnings.warn(f"unimodal_monitor: {found}; they are left out", stacklevel=3)
    return heldout.take(torch.tensor(rows))


def _check_disjoint(roles: dict[str, ImageSet]) -> None:
    for name, other in combinations(roles, 2):
        where = {digest: row for row, digest in enumerate(roles[name].digests)}
        shared = [(where[digest], row) for row, digest in enumerate(roles[other].digests) if digest in where]
        if shared:
            raise ValueError(
                f"{len(shared)} images are both in {name!r} and in {other!r} "
                f"(numbers {shared[0][0]} and {shared[0][1]} are the first); a role must not share images, "
                "and 'fit' is drawn from the held-out ones"
            )
