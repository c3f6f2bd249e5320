"""Training images that occur more than once, which the 1/3 rule alone misses."""

import torch
from torch import Tensor

from unimodal_monitor.copies.nearest import Distances, NearestImages

THIRD = 1 / 3
NUM_TYPICAL = 256  # training images from which the typical distance is taken


def distinct_distances(samples: Tensor, nearest: NearestImages, distances: Distances) -> Tensor:
    """(N,) distance of each sample to the nearest training image that is no near-duplicate of its nearest one.

    The 1/3 rule compares the distances to the nearest and the second nearest training image. It fails where these two
    show the same picture: an exact copy of an image that occurs twice has the ratio 1. Here near-duplicates of the
    nearest image (`near_duplicates`) are skipped. Where there are none, the result is the second distance itself.
    """
    anchors, anchor_of = torch.unique(nearest.indices[:, 0], return_inverse=True)
    groups = near_duplicates(anchors, distances)
    result = nearest.distances[:, 1].clone()
    numbers = [i for i, anchor in enumerate(anchor_of.tolist()) if len(groups[anchor])]
    for i, row in zip(numbers, distances.rows(samples[numbers]), strict=True):
        row[groups[anchor_of[i]]] = torch.inf
        row[nearest.indices[i, 0]] = torch.inf
        result[i] = row.min()
    return result


def near_duplicates(anchors: Tensor, distances: Distances) -> list[Tensor]:
    """Numbers of the other training images that show the same picture as each of the anchors (A,), mirrored or not.

    Sort the others by their distance r to the anchor. The first j are near-duplicates, for the largest j with

    - r_j < r_(j+1) / 3, as in the 1/3 rule: a continuum of similar images (frames of a film) has no such gap;
    - r_j < 1/3 of the typical distance of a training image to its nearest different one: this spares the images of a
      cluster that is merely far from all others.

    Repeated images are found however often they occur. Crops, shifts and changes of colour are not found, nor altered
    duplicates if most images have one, since theirs is then the typical distance. Images far more alike than the rest
    of the set (a still scene, empty slices of a scan) count as one picture; the plain rule has no such exception.
    """
    limit, training = THIRD * _typical_distance(distances), distances.training
    rows = distances.rows(training[anchors.to(training.device)])
    return [_before_the_gap(row, anchor, limit) for anchor, row in zip(anchors.tolist(), rows, strict=True)]


def _before_the_gap(row: Tensor, anchor: int, limit: float) -> Tensor:
    """Numbers of the images on the near side of the last gap below the limit."""
    row[anchor] = torch.inf
    ascending, order = row.topk(min(int((row < limit).sum()) + 1, len(row) - 1), largest=False)
    gaps = (ascending[:-1] < THIRD * ascending[1:]).nonzero().flatten()
    return order[: int(gaps[-1]) + 1] if len(gaps) else order[:0]


def _typical_distance(distances: Distances) -> float:
    """Median distance of training images to the nearest that is not equal to them; inf where all are equal."""
    training = distances.training
    numbers = torch.linspace(0, len(training) - 1, min(len(training), NUM_TYPICAL)).round().long()
    rows = distances.rows(training[numbers.to(training.device)])
    return float(torch.stack([row.masked_fill(row == 0, torch.inf).min() for row in rows]).median())
