"""The figure of an audit: its pairs, captions and refusals."""

import numpy as np
import pytest
import torch

from unimodal_monitor.copies.audit import audit_samples
from unimodal_monitor.report.plot_copies import plot_copies

OTHERS, TRAINING = (torch.rand(40, 3, 6, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1).split([10, 30])
SAMPLES = torch.cat([OTHERS, TRAINING[4:5].flip(-1), TRAINING[9:10]])
AUDIT = audit_samples(SAMPLES, TRAINING)


def picture(axes) -> np.ndarray:
    (shown,) = axes.get_images()
    return np.asarray(shown.get_array())


def test_the_closest_pairs_are_shown_with_their_ratio():
    """Sample over training image, which is mirrored where its mirror image was the match."""
    figure = plot_copies(AUDIT, SAMPLES, TRAINING, num_pairs=5)
    upper, lower = figure.axes[:5], figure.axes[5:]
    assert [axes.get_title() for axes in upper] == [f"{pair.ratio:.2f}" for pair in AUDIT.pairs[:5]]
    assert {axes.get_xlabel() for axes in lower[:2]} == {"no. 4\nmirrored", "no. 9"}
    for above, below in zip(upper[:2], lower[:2], strict=True):
        np.testing.assert_allclose(picture(above), picture(below))
    assert AUDIT.sentence() in figure.get_suptitle()


@pytest.mark.parametrize(("channels", "scale", "shift"), [(3, 1.0, 0.0), (1, 0.5, 0.5), (3, 40.0, 300.0)])
def test_any_units_are_scaled_for_display(channels, scale, shift):
    """[-1, 1] and [0, 1] as they are, others over the training images' own range; grey as grey."""
    training = TRAINING[:, :channels] * scale + shift
    shown = picture(plot_copies(audit_samples(training[:3], training), training[:3], training).axes[0])
    assert shown.shape == (6, 6, 3)
    low, high = (shift - scale, shift + scale) if scale <= 1 else training.aminmax()
    np.testing.assert_allclose(shown[..., 0], (training[0, 0] - low) / (high - low), atol=1e-5)


@pytest.mark.parametrize(
    ("samples", "training", "num_pairs", "message"),
    [
        (SAMPLES.flatten(1), TRAINING.flatten(1), 8, r"\(12, 108\)"),
        (SAMPLES, TRAINING[:, :2], 8, "C of 1 or 3"),
        (SAMPLES[:4], TRAINING, 8, "4 samples"),
        (SAMPLES, TRAINING[:5], 8, "5 training images"),
        (SAMPLES, TRAINING, 0, "0 pairs"),
    ],
)
def test_what_cannot_be_shown_is_refused(samples, training, num_pairs, message):
    """Vectors, latents, images of another audit, and no pairs at all."""
    with pytest.raises(ValueError, match=message):
        plot_copies(AUDIT, samples, training, num_pairs=num_pairs)
