"""The search against a loop over all pairs."""

import numpy as np
import pytest
import torch

from unimodal_monitor.copies.nearest import nearest_training_images


def images(num: int, shape: tuple[int, ...], *, seed: int) -> torch.Tensor:
    return torch.randn(num, *shape, generator=torch.Generator().manual_seed(seed))


def in_a_loop(samples, training, *, flips):
    """[(distance, number, is_flipped)] of all training images, nearest first, for each sample."""
    found = []
    for sample in samples.double().numpy():
        row = []
        for number, image in enumerate(training.double().numpy()):
            straight = np.sqrt(((sample - image) ** 2).sum())
            across = np.sqrt(((sample - image[..., ::-1]) ** 2).sum()) if flips else np.inf
            row.append((min(straight, across), number, across < straight))
        found.append(sorted(row))
    return found


@pytest.mark.parametrize("chunk_size", [None, 1, 4, 100])
@pytest.mark.parametrize("flips", [True, False])
def test_the_two_nearest_are_those_of_a_loop(flips, chunk_size):
    """Whatever is compared at a time."""
    samples, training = images(9, (2, 3, 4), seed=0), images(23, (2, 3, 4), seed=1)
    nearest = nearest_training_images(samples, training, flips=flips, chunk_size=chunk_size)
    expected = np.array([row[:2] for row in in_a_loop(samples, training, flips=flips)])
    np.testing.assert_allclose(nearest.distances, expected[..., 0])
    np.testing.assert_array_equal(nearest.indices, expected[..., 1])
    np.testing.assert_array_equal(nearest.is_flipped, expected[..., 2])
    assert nearest.is_flipped.any() == flips


@pytest.mark.parametrize("shape", [(5,), (3, 5)])
def test_what_has_no_width_has_no_mirror_image(shape):
    """Vectors and sequences."""
    training = images(10, shape, seed=0)
    nearest = nearest_training_images(training.flip(-1), training)
    assert not nearest.is_flipped.any()
    assert (nearest.distances > 0.1).all()


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_near_exact_copies_keep_their_distance(scale):
    """Far below what a product of float32 norms resolves, and zero for an equal image."""
    training = images(6, (3, 8, 8), seed=0) * scale + 10
    samples = training.double()
    samples[1:, 0, 0, 0] += 1e-7 * torch.arange(1, 6)
    nearest = nearest_training_images(samples, training.double())
    np.testing.assert_allclose(nearest.distances[:, 0], 1e-7 * np.arange(6), rtol=1e-6)
    assert nearest.indices[:, 0].tolist() == list(range(6))


def test_a_large_offset_of_the_units_does_no_harm():
    """Norms would be a million times the distances."""
    samples, training = images(9, (2, 3, 4), seed=0).double(), images(23, (2, 3, 4), seed=1).double()
    plain, shifted = (nearest_training_images(samples + shift, training + shift) for shift in (0.0, 1e6))
    assert torch.equal(plain.indices, shifted.indices)
    torch.testing.assert_close(plain.distances, shifted.distances)


def test_the_precision_of_the_training_loop_does_not_matter():
    """Autocast would compare in eight bits."""
    samples, training = images(9, (2, 3, 4), seed=0), images(23, (2, 3, 4), seed=1)
    plain = nearest_training_images(samples, training)
    with torch.autocast("cpu", torch.bfloat16):
        cast = nearest_training_images(samples, training)
    assert torch.equal(plain.distances, cast.distances)


def test_a_mirror_image_is_no_second_image():
    """The second nearest is a different training image, also where both sides of the first are near."""
    training = images(6, (1, 4, 4), seed=0)
    training[2] = (training[2] + training[2].flip(-1)) / 2
    nearest = nearest_training_images(training[2:3], training)
    assert nearest.indices[0, 0] == 2
    assert nearest.indices[0, 1] != 2


@pytest.mark.parametrize(("num", "shape"), [(1, (4,)), (5, (3,))])
def test_what_cannot_be_compared_is_refused(num, shape):
    """One training image has no second, and shapes must agree."""
    with pytest.raises(ValueError, match="one shape and two training images"):
        nearest_training_images(images(3, (4,), seed=0), images(num, shape, seed=1))
