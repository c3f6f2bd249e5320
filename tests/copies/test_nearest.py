"""The search against scipy's distances between all pairs."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from unimodal_monitor.copies.nearest import Distances, nearest_training_images


def images(num: int, shape: tuple[int, ...], *, seed: int) -> torch.Tensor:
    return torch.randn(num, *shape, generator=torch.Generator().manual_seed(seed))


def all_distances(samples, training, *, flips):
    """(N, M) distances, and whether the mirror image is nearer."""
    views = (samples, samples.flip(-1)) if flips else (samples,)
    by_view = np.stack([cdist(view.double().flatten(1), training.double().flatten(1)) for view in views])
    return by_view.min(0), by_view.argmin(0) == 1


@pytest.mark.parametrize(
    ("num_samples", "num_training", "flips"),
    [(9, 23, True), (9, 5000, False), (2100, 20, True), pytest.param(45, 200_000, False, marks=pytest.mark.slow)],
)
def test_the_two_nearest_are_those_of_scipy(num_samples, num_training, flips):
    """Also where they are compared part by part."""
    samples, training = images(num_samples, (1, 2, 2), seed=0), images(num_training, (1, 2, 2), seed=1)
    found = nearest_training_images(samples, Distances(training, flips=flips))
    distances, is_flipped = all_distances(samples, training, flips=flips)
    indices = np.argpartition(distances, 1)[:, :2]
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.distances, np.take_along_axis(distances, indices, 1))
    np.testing.assert_array_equal(found.is_flipped, np.take_along_axis(is_flipped, indices, 1))
    assert found.is_flipped.any() == flips


@pytest.mark.parametrize("shape", [(5,), (3, 5)])
def test_vectors_and_sequences_have_no_mirror_image(shape):
    training = images(10, shape, seed=0)
    assert not nearest_training_images(training.flip(-1), Distances(training)).is_flipped.any()


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_near_exact_copies_keep_their_distance(scale):
    """Far below what a product of float32 norms resolves, and zero for an equal image."""
    training = images(6, (3, 8, 8), seed=0) * scale + 10
    samples = training.double()
    samples[1:, 0, 0, 0] += 1e-7 * torch.arange(1, 6)
    nearest = nearest_training_images(samples, Distances(training.double()))
    np.testing.assert_allclose(nearest.distances[:, 0], 1e-7 * np.arange(6), rtol=1e-6)
    assert nearest.indices[:, 0].tolist() == list(range(6))


def test_a_large_offset_of_the_units_or_autocast_changes_nothing():
    """Norms would be a million times the distances, or be computed in eight bits."""
    samples, training = images(9, (2, 3, 4), seed=0).double(), images(23, (2, 3, 4), seed=1).double()
    plain, shifted = (nearest_training_images(samples + shift, Distances(training + shift)) for shift in (0.0, 1e6))
    assert torch.equal(plain.indices, shifted.indices)
    torch.testing.assert_close(plain.distances, shifted.distances)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(nearest_training_images(samples, Distances(training)).distances, plain.distances)


def test_a_mirror_image_is_no_second_image():
    """The second nearest is a different training image, also where both sides of the first are near."""
    training = images(6, (1, 4, 4), seed=0)
    training[2] = (training[2] + training[2].flip(-1)) / 2
    first, second = nearest_training_images(training[2:3], Distances(training)).indices[0].tolist()
    assert first == 2 != second


@pytest.mark.parametrize(("num", "shape"), [(1, (4,)), (5, (3,))])
def test_images_that_cannot_be_compared_are_refused(num, shape):
    """One training image has no second, and shapes must agree."""
    with pytest.raises(ValueError, match="at least two training images of one shape"):
        nearest_training_images(images(3, (4,), seed=0), Distances(images(num, shape, seed=1)))
