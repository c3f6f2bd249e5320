"""Training images that occur more than once, and what they hide from the 1/3 rule."""

import torch
from torch import Tensor

from unimodal_monitor.copies.nearest import Distances, NearestImages

THIRD = 1 / 3
NUM_TYPICAL = 256
"""Training images from which the typical distance is taken."""
NUM_ROWS = 64
"""Images whose distances to all training images are held at once."""


def distinct_distances(samples: Tensor, nearest: NearestImages, distances: Distances) -> Tensor:
    """Distance of each sample to the nearest training image that is no near-duplicate of its nearest one.

    The 1/3 rule compares the nearest training image with the second nearest, and fails where those two are the same
    picture: a perfect copy of an image that occurs twice has the ratio 1. Here near-duplicates of the nearest image,
    see `near_duplicates`, are passed over. Where there are none, this is the second distance itself.

    Args:
        samples: (N, ...).
        nearest: of these samples.
        distances: to the training images.

    Returns:
        (N,) never below `nearest.distances[:, 1]` but for rounding.
    """
    anchors, anchor_of = nearest.indices[:, 0].unique(return_inverse=True)
    groups = near_duplicates(anchors, distances)
    result = nearest.distances[:, 1].clone()
    rows = torch.tensor([i for i, anchor in enumerate(anchor_of.tolist()) if len(groups[anchor])], dtype=torch.long)
    for block in rows.split(NUM_ROWS):
        for row, between in zip(block.tolist(), distances.between(samples[block.to(samples.device)]), strict=True):
            between[groups[anchor_of[row]]] = torch.inf
            between[nearest.indices[row, 0]] = torch.inf
            result[row] = between.min()
    return result


def near_duplicates(anchors: Tensor, distances: Distances) -> list[Tensor]:
    """Other training images that show the same picture as these, mirrored or not.

    Sort the others by their distance r to the anchor. The first j are its near-duplicates, for the largest j with

    - r_j < r_(j+1) / 3: were they samples, the 1/3 rule would call them copies of it, and
    - r_j < a third of the distance that is typical between a training image and its nearest different one.

    The first keeps a continuum of similar images apart, such as the frames of a film, the second a cluster that is
    merely far from all others. Repeated images are found however often they occur. Not found are crops, shifts and
    changes of colour, and altered duplicates where most of the training images have one: they are then the typical
    distance. Images that are far more alike than those of the set usually are (a still scene, empty slices of a scan)
    pass for one picture; the plain rule's count, given beside this one's, is the one without them.

    Args:
        anchors: (A,) numbers of training images.
        distances: to the training images.

    Returns:
        for each anchor the numbers of its near-duplicates, often none.
    """
    limit = THIRD * _typical_distance(distances)
    groups = []
    for block in anchors.split(NUM_ROWS):
        for anchor, between in zip(block.tolist(), _to_all(block, distances), strict=True):
            groups.append(_before_the_gap(between, anchor, limit))
    return groups


def _before_the_gap(between: Tensor, anchor: int, limit: float) -> Tensor:
    """Numbers of the images on the near side of the last gap below the limit."""
    between[anchor] = torch.inf
    near = (between < limit).nonzero().flatten()
    near = near[between[near].argsort()]
    beyond = between[(between >= limit) & between.isfinite()]
    if not len(near) or not len(beyond):
        return near[:0]
    sorted_distances = torch.cat([between[near], beyond.min()[None]])
    gaps = (sorted_distances[:-1] < THIRD * sorted_distances[1:]).nonzero().flatten()
    return near[: int(gaps[-1]) + 1] if len(gaps) else near[:0]


def _typical_distance(distances: Distances) -> float:
    """Median distance of training images to the nearest that is not equal to them; inf where all are equal."""
    count = len(distances.training)
    rows = torch.linspace(0, count - 1, min(count, NUM_TYPICAL)).round().long()
    nearest = []
    for block in rows.split(NUM_ROWS):
        between = _to_all(block, distances)
        nearest.append(between.masked_fill(between == 0, torch.inf).amin(1))
    return float(torch.cat(nearest).median())


def _to_all(rows: Tensor, distances: Distances) -> Tensor:
    """(A, M) distances of these training images to all."""
    return distances.between(distances.training[rows.to(distances.training.device)])
