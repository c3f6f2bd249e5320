"""ProbeSet: the images a check looks at, in three roles."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from unimodal_monitor.data.datasets import LABEL_KEYS, balanced_rows, draw
from unimodal_monitor.data.image_set import ImageSet
from unimodal_monitor.forward.isolation import private_rng


@dataclass(frozen=True, eq=False)
class ProbeSet:
    """The images of a check; they stay the same for the whole run.

    Args:
        members: images that the model trains on.
        heldout: labelled images that it never sees; the probe is scored on them.
        fit: labelled images on which the probe is fitted; by `from_datasets` a part of the held-out
            ones that is not scored, or the members, as in the paper.

    Raises:
        ValueError: if shapes differ, a single class is present, or one image has two roles.
    """

    members: ImageSet
    heldout: ImageSet
    fit: ImageSet

    def __post_init__(self) -> None:
        roles = {"members": self.members, "heldout": self.heldout, "fit": self.fit}
        shapes = {name: tuple(role.images.shape[1:]) for name, role in roles.items()}
        if len(set(shapes.values())) > 1:
            raise ValueError(f"the roles hold images of different shapes: {shapes}")
        for name in ("heldout", "fit"):
            labels = roles[name].labels
            if labels is not None and len(labels.unique()) < 2:
                raise ValueError(
                    f"all {len(labels)} images of {name!r} are of class {int(labels[0])}; "
                    "a probe needs two classes or more"
                )
        _check_disjoint("members", self.members, "heldout", self.heldout)
        _check_disjoint("fit", self.fit, "heldout", self.heldout)
        if self.fit is not self.members:
            _check_disjoint("members", self.members, "fit", self.fit)

    @property
    def num_classes(self) -> int:
        """Number of classes: one more than the highest label.

        Raises:
            ValueError: if the fit or the held-out images have no labels.
        """
        if self.fit.labels is None or self.heldout.labels is None:
            raise ValueError(
                "the probe needs labels: the fit and held-out images must be (image, label) pairs "
                f"or dicts with one of {', '.join(LABEL_KEYS)}"
            )
        return int(torch.cat([self.fit.labels, self.heldout.labels]).max()) + 1

    @property
    def is_unlabelled(self) -> bool:
        """Whether there are no labels to probe with."""
        return self.fit.labels is None and self.heldout.labels is None

    @property
    def has_images(self) -> bool:
        """Whether they are images, (N, C, H, W), which have augmentations; vectors have none that are known."""
        return self.heldout.images.ndim == 4

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
        transform: Callable[[Any], Tensor] | None = None,
        seed: int = 0,
    ) -> "ProbeSet":
        """Draw class-balanced subsets of two datasets.

        Args:
            members: map-style dataset of tuples or dicts, (images, labels) tensors, or a tensor of images:
                what the model trains on.
            heldout: the same for images that it never sees.
            num_members: how many members to draw; None for all.
            num_heldout: how many held-out images to draw, for fitting and scoring together; None for all.
            fit: "heldout" fits the probe on `num_fit` of the held-out images and scores it on the others,
                "members" fits it on the members and scores it on all held-out images (the paper's protocol).
            num_fit: how many held-out images to fit on; None for a third of them, and none where they have no labels.
            transform: from what the dataset yields as image to a tensor in model space.
            seed: of the draws, and of a dataset's own random augmentation.

        Raises:
            ValueError: if a dataset is too small, an item is not understood, or as `ProbeSet`.
        """
        if fit not in ("heldout", "members"):
            raise ValueError(f"fit = {fit!r}; it is 'heldout' or 'members'")
        with private_rng(seed):
            drawn_members = draw(members, num_members, transform=transform, seed=seed, role="members")
            drawn = draw(heldout, num_heldout, transform=transform, seed=seed, role="heldout")
        if fit == "members":
            return cls(members=drawn_members, heldout=drawn, fit=drawn_members)
        if drawn.labels is None and num_fit is not None:
            raise ValueError(f"num_fit = {num_fit}, but the held-out images have no labels to fit on")
        if drawn.labels is None:
            unlabelled = replace(drawn_members, labels=None)
            return cls(members=unlabelled, heldout=drawn, fit=unlabelled)
        num_fit = len(drawn) // 3 if num_fit is None else num_fit
        if not 0 < num_fit < len(drawn):
            raise ValueError(
                f"num_fit = {num_fit} of {len(drawn)} held-out images leaves nothing to fit on or to score"
            )
        rows = torch.from_numpy(balanced_rows(drawn.labels, len(drawn), num_fit, seed=seed + 1))
        scored = torch.ones(len(drawn), dtype=torch.bool)
        scored[rows] = False
        return cls(
            members=drawn_members, heldout=drawn.take(scored.nonzero()[:, 0]), fit=drawn.take(rows.sort().values)
        )


def _check_disjoint(name: str, images: ImageSet, other_name: str, others: ImageSet) -> None:
    where = {pixels: row for row, pixels in enumerate(_bytes(images.images))}
    shared = [(where[pixels], row) for row, pixels in enumerate(_bytes(others.images)) if pixels in where]
    if shared:
        raise ValueError(
            f"{len(shared)} images are both in {name!r} and in {other_name!r} "
            f"(numbers {shared[0][0]} and {shared[0][1]} are the first); a role must not share images"
        )


def _bytes(images: Tensor) -> Iterator[bytes]:
    """The pixels of each image, of any precision: NumPy has no bfloat16."""
    for image in images.detach().cpu().contiguous().view(torch.uint8):
        yield image.numpy().tobytes()
