"""The figure of an audit: its pairs, captions and refusals."""

import numpy as np
import pytest
import torch

from unimodal_monitor.copies.draw import audit_samples
from unimodal_monitor.report.plot_copies import plot_copies


def images(num: int, shape: tuple[int, ...] = (3, 6, 6), *, seed: int = 0) -> torch.Tensor:
    return torch.rand(num, *shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


TRAINING = images(30)
SAMPLES = torch.cat([images(10, seed=1), TRAINING[4:5].flip(-1), TRAINING[9:10]])
AUDIT = audit_samples(SAMPLES, TRAINING)


def picture(axes) -> np.ndarray:
    (shown,) = axes.get_images()
    return np.asarray(shown.get_array())


def test_the_closest_pairs_are_shown_with_their_ratio(tmp_path):
    """Sample over training image, which is mirrored where its mirror image was the match."""
    figure = plot_copies(AUDIT, SAMPLES, TRAINING, num_pairs=5)
    figure.savefig(tmp_path / "copies.png", dpi=60)
    upper, lower = figure.axes[:5], figure.axes[5:]
    assert [axes.get_title() for axes in upper] == [f"{pair.ratio:.2f}" for pair in AUDIT.pairs[:5]]
    assert {axes.get_xlabel() for axes in lower[:2]} == {"no. 4\nmirrored", "no. 9"}
    for above, below in zip(upper[:2], lower[:2], strict=True):
        np.testing.assert_allclose(picture(above), picture(below))
    assert AUDIT.sentence() in figure.get_suptitle()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.5, 0.5), (40.0, 300.0)])
def test_any_units_are_scaled_for_display(channels, scale, shift):
    """[-1, 1] and [0, 1] as they are, others over the training images' own range; grey as grey."""
    training = images(20, (channels, 4, 4)) * scale + shift
    samples = training[:3].clone()
    shown = picture(plot_copies(audit_samples(samples, training), samples, training).axes[0])
    assert shown.shape == (4, 4, 3)
    assert 0 <= shown.min() < 0.2
    assert 0.8 < shown.max() <= 1
    if scale <= 1:
        np.testing.assert_allclose(shown[..., 0], (training[0, 0] - shift) / scale / 2 + 0.5, atol=1e-6)


def test_no_more_pairs_are_shown_than_there_are():
    """Of three samples, three."""
    few = SAMPLES[:3]
    assert len(plot_copies(audit_samples(few, TRAINING), few, TRAINING).axes) == 2 * 3


@pytest.mark.parametrize(
    ("samples", "training", "num_pairs", "message"),
    [
        (torch.zeros(12, 5), torch.zeros(30, 5), 8, r"samples are \(12, 5\)"),
        (SAMPLES, images(30, (4, 6, 6)), 8, "C of 1 or 3"),
        (SAMPLES[:4], TRAINING, 8, "4 samples"),
        (SAMPLES, TRAINING[:5], 8, "5 training images"),
        (SAMPLES, TRAINING, 0, "nothing to show"),
    ],
)
def test_what_cannot_be_shown_is_refused(samples, training, num_pairs, message):
    """Vectors, latents, images of another audit, and no pairs at all."""
    with pytest.raises(ValueError, match=message):
        plot_copies(AUDIT, samples, training, num_pairs=num_pairs)
