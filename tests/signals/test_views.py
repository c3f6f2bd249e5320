"""Views as pure functions of image, number and seed."""

import pytest
import torch

from unimodal_monitor.signals.views import another_view


def test_a_view_belongs_to_its_image_number_and_seed_alone():
    """Not to the batch, the order or the global generator, and it is not the image."""
    images = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    before = torch.get_rng_state()
    views = another_view(images, seed=1, indices=range(6))
    alone = another_view(images[[4, 2]], seed=1, indices=[4, 2])
    torch.testing.assert_close(alone, views[[4, 2]])
    assert torch.equal(torch.get_rng_state(), before)
    assert (views != images).flatten(1).any(1).all()
    assert not torch.equal(another_view(images, seed=2, indices=range(6)), views)


def test_a_view_is_a_shifted_flipped_and_stretched_image():
    """Undo brightness and contrast by their definition: every pixel is one of the image, near where it was."""
    image = torch.arange(256.0).view(1, 1, 16, 16).expand(40, 1, 16, 16)
    view = another_view(image, seed=0, indices=range(40))
    steps = view[:, 0].diff(dim=2)[:, :, 4:-4].flatten(1)
    contrast = steps.abs().mean(1)
    assert ((contrast >= 0.8) & (contrast <= 1.2)).all()
    assert 5 < int((steps.mean(1) < 0).sum()) < 35
    torch.testing.assert_close(steps.abs(), contrast.unsqueeze(1).expand_as(steps), rtol=1e-3, atol=1e-3)
    assert view.unique(dim=0).shape[0] == 40


@pytest.mark.parametrize("shape", [(3, 7), (3, 4, 5), (3, 1, 1, 2), (3, 1, 9, 10)])
def test_a_view_has_the_shape_of_the_image_and_what_is_no_image_has_none(shape):
    values = torch.randn(shape)
    view = another_view(values, seed=0, indices=range(3))
    assert view.shape == shape
    assert torch.equal(view, values) is (len(shape) != 4)
