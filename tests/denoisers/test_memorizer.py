"""The closed-form memorizer against a direct computation."""

import pytest
import torch

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
@pytest.mark.parametrize("num", [40, 2100], ids=["one chunk", "two chunks"])
def test_denoised_images_equal_a_direct_float64_computation(sigma, num):
    """At every level, also between twins of distance sigma; 4,096 images are compared at a time."""
    clean = images(num)
    training = torch.cat([clean, clean + sigma * images(num, seed=1) / 14])
    noised = clean[-8:] + sigma * images(8, seed=2) / 0.5
    sigmas = torch.full((8,), sigma)
    found = Memorizer(training)(noised, sigmas)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, directly(noised, training, sigmas).float(), atol=1e-6, rtol=0)


def test_float64_images_give_float64_results():
    """Each image at its own level; nothing is lost inside."""
    training, noised, sigma = images(30), images(5, seed=1).double(), torch.tensor([0.002, 0.1, 1.0, 3.0, 9.0])
    found = Memorizer(training)(noised, sigma)
    torch.testing.assert_close(found, directly(noised, training, sigma), atol=1e-9, rtol=0)


def test_low_noise_recalls_the_nearest_image_and_high_noise_their_mean():
    """The two ends of the formula."""
    training, noised = images(50), images(10, seed=1)
    nearest = torch.cdist(noised.flatten(1), training.flatten(1)).argmin(1)
    memorizer = Memorizer(training)
    assert torch.equal(memorizer(noised, torch.full((10,), 0.002)), training[nearest])
    far = memorizer(noised, torch.full((10,), 1e4))
    torch.testing.assert_close(far, training.mean(0).expand_as(far), atol=1e-5, rtol=0)


def test_the_recalled_images_can_be_hooked():
    """Under a name, as a monitor hooks a layer; they are not part of a state that is saved."""
    memorizer, seen = Memorizer(images(5)), []
    memorizer.network.get_submodule("recalled").register_forward_hook(lambda *call: seen.append(call[2]))
    denoised = memorizer(images(3, seed=1), torch.ones(3))
    assert torch.equal(seen[0], denoised)
    assert not memorizer.network.state_dict()


NAN, INF = torch.full((2, 3), torch.nan), torch.full((2, 3), torch.inf)


@pytest.mark.parametrize("training", [torch.zeros(0, 3, 4, 4), torch.zeros(5), torch.zeros(5, 0), NAN, INF, NAN.int()])
def test_training_images_without_pixels_or_finite_floats_are_refused(training):
    """Before any work, naming the argument."""
    with pytest.raises(ValueError, match="^images must be"):
        Memorizer(training)


def test_noised_images_of_another_shape_are_refused():
    """Rather than compared by accident."""
    with pytest.raises(ValueError, match=r"noised is of shape \(2, 3, 8, 8\)"):
        Memorizer(images(4))(torch.zeros(2, 3, 8, 8), torch.ones(2))
