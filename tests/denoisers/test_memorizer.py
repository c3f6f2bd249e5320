"""The closed-form memorizer against a direct computation."""

import pytest
import torch

from unimodal_monitor.denoisers import Denoiser
from unimodal_monitor.denoisers.memorizer import Memorizer


def images(num: int, *, seed: int = 0) -> torch.Tensor:
    return 0.5 * torch.randn(num, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def directly(noised, training, sigma):
    """The formula word for word in float64, one image at a time."""
    x, y = noised.double(), training.double()
    rows = []
    for image, level in zip(x, sigma.double(), strict=True):
        weights = torch.softmax(-(image - y).flatten(1).square().sum(1) / (2 * level**2), dim=0)
        rows.append((weights.reshape(-1, 1, 1, 1) * y).sum(0))
    return torch.stack(rows)


@pytest.mark.parametrize("sigma", [0.002, 0.02, 0.2, 0.6, 2.0])
@pytest.mark.parametrize("chunk_size", [7, 1000])
def test_denoised_images_equal_a_direct_float64_computation(sigma, chunk_size):
    """At every level and in chunks of any size, between twins of distance sigma too."""
    clean = images(40)
    training = torch.cat([clean, clean + sigma * images(40, seed=1) / 14])
    noised = clean[:20] + sigma * images(20, seed=2) / 0.5
    sigmas = torch.full((20,), sigma)
    found = Memorizer(training, chunk_size=chunk_size)(noised, sigmas)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, directly(noised, training, sigmas).float(), atol=1e-6, rtol=0)


def test_float64_is_answered_in_float64():
    """Nothing is lost inside."""
    training, noised, sigma = images(30), images(5, seed=1).double(), torch.tensor([0.002, 0.1, 1.0, 3.0, 9.0])
    found = Memorizer(training, chunk_size=8)(noised, sigma)
    torch.testing.assert_close(found, directly(noised, training, sigma), atol=1e-9, rtol=0)


def test_float32_distances_would_not_do():
    """The reason for float64: between twins of distance sigma they give other weights."""
    clean, sigma = images(20), 0.002
    training = torch.cat([clean, clean + sigma * images(20, seed=1) / 14])
    noised = clean + sigma * images(20, seed=2) / 0.5
    exact = directly(noised, training, torch.full((20,), sigma))
    x, y = noised.flatten(1), training.flatten(1)
    exponents = (x @ y.T - y.square().sum(1) / 2) / sigma**2
    careless = (exponents.softmax(1) @ y).reshape(noised.shape)
    assert (careless - exact).abs().max() > 1e-4


def test_low_noise_recalls_the_nearest_image_and_high_noise_their_mean():
    """The two ends of the formula."""
    training = images(50)
    noised = images(10, seed=1)
    nearest = torch.cdist(noised.flatten(1), training.flatten(1)).argmin(1)
    memorizer = Memorizer(training)
    assert torch.equal(memorizer(noised, torch.full((10,), 0.002)), training[nearest])
    far = memorizer(noised, torch.full((10,), 1e4))
    torch.testing.assert_close(far, training.mean(0).expand_as(far), atol=1e-5, rtol=0)


def test_each_image_has_its_own_level():
    """A batch of levels answers as the levels alone do."""
    training, noised, sigmas = images(30), images(4, seed=1), torch.tensor([0.01, 0.3, 1.0, 5.0])
    memorizer = Memorizer(training)
    alone = torch.cat([memorizer(noised[i : i + 1], sigmas[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(memorizer(noised, sigmas), alone)


def test_the_recalled_images_can_be_hooked():
    """Under a name, as a monitor hooks a layer."""
    memorizer, seen = Memorizer(images(5)), []
    handle = memorizer.network.get_submodule("recalled").register_forward_hook(lambda *call: seen.append(call[2]))
    denoised = memorizer(images(3, seed=1), torch.ones(3))
    handle.remove()
    assert isinstance(memorizer, Denoiser)
    assert torch.equal(seen[0], denoised)
    assert not memorizer.network.state_dict()


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (torch.zeros(0, 3, 4, 4), "shape"),
        (torch.zeros(5), "shape"),
        (torch.zeros(5, 0), "shape"),
        (torch.full((2, 3), torch.nan), "finite"),
        (torch.full((2, 3), torch.inf), "finite"),
        (torch.zeros(2, 3, dtype=torch.uint8), "finite floats"),
    ],
)
def test_bad_training_images_are_told(training, message):
    """Before any work."""
    with pytest.raises(ValueError, match=message):
        Memorizer(training)


def test_noised_images_of_another_shape_are_told():
    """Rather than compared by accident."""
    with pytest.raises(ValueError, match=r"noised is of shape \(2, 3, 8, 8\)"):
        Memorizer(images(4))(torch.zeros(2, 3, 8, 8), torch.ones(2))
    with pytest.raises(ValueError, match="chunk_size"):
        Memorizer(images(4), chunk_size=0)
