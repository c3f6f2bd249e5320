"""The ridge probe against scikit-learn, on features of real images."""

import numpy as np
import pytest
import torch
from real_features import NUM_FIT, digit_features, digit_scores, standardised
from sklearn.linear_model import Ridge

from unimodal_monitor.probes.ridge import RidgeProbe


@pytest.mark.parametrize("strength", [1e-5, 1e-3, 0.03, 0.3, 3.0])
def test_scores_are_those_of_scikit_learn(strength):
    """`Ridge(alpha=N * strength)` on one-hot labels and standardised features."""
    labels = np.eye(10)[digit_features()[1][:NUM_FIT]]
    for level, scores in enumerate(digit_scores(RidgeProbe(strength))[0]):
        train, test = standardised(level)
        reference = Ridge(alpha=NUM_FIT * strength).fit(train, labels)
        np.testing.assert_allclose(scores, reference.predict(test), atol=1e-7)


def test_scores_of_an_image_sum_to_one():
    """The intercept is free, so they estimate probabilities."""
    sums = digit_scores(RidgeProbe())[0].sum(2)
    torch.testing.assert_close(sums, torch.ones_like(sums))


def test_score_is_the_gain_in_brier_score():
    """Against a loop over images."""
    scores = torch.rand(2, 5, 3, generator=torch.Generator().manual_seed(0))
    labels, prior = torch.tensor([0, 1, 2, 1, 0]), torch.tensor([0.5, 0.3, 0.2])
    found = RidgeProbe().score(scores, labels, prior)
    for level in range(2):
        for image, label in enumerate(labels.tolist()):
            truth = torch.eye(3)[label]
            expected = ((prior - truth) ** 2).sum() - ((scores[level, image] - truth) ** 2).sum()
            torch.testing.assert_close(found[level, image], expected)


@pytest.mark.parametrize("strength", [0.0, -1.0, float("nan"), float("inf")])
def test_a_strength_that_is_not_positive_is_refused(strength):
    """Without a penalty the problem may have no answer."""
    with pytest.raises(ValueError, match=f"strength must be positive and finite, got {strength}"):
        RidgeProbe(strength)
