"""The logistic probe against scikit-learn on features of real images."""

import math

import numpy as np
import pytest
import torch
from real_features import NUM_FIT, digit_features, digit_scores, standardised
from sklearn.linear_model import LogisticRegression

from unimodal_monitor.probes.logistic import LogisticProbe


@pytest.mark.parametrize("C", [0.1, 0.003, 1.0])
def test_scores_and_accuracy_are_those_of_scikit_learn(C):
    """On standardised features: centred logits to 0.003, accuracies to 0.2 points."""
    y = digit_features()[1]
    for level, scores in enumerate(digit_scores(LogisticProbe(C))[0].numpy()):
        train, test = standardised(level)
        reference = LogisticRegression(C=C, tol=1e-7, max_iter=3000).fit(train, y[:NUM_FIT])
        expected = reference.decision_function(test)
        centred = scores - scores.mean(1, keepdims=True)
        np.testing.assert_allclose(centred, expected - expected.mean(1, keepdims=True), rtol=1e-3, atol=3e-3)
        assert abs((scores.argmax(1) == y[NUM_FIT:].numpy()).mean() - reference.score(test, y[NUM_FIT:])) < 0.002


def test_score_is_information_over_the_prior_in_bits():
    """Against a loop over images."""
    scores = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    labels, prior = torch.tensor([0, 1, 2, 1, 0]), torch.tensor([0.5, 0.3, 0.2])
    found = LogisticProbe().score(scores, labels, prior)
    for level in range(2):
        for image, label in enumerate(labels.tolist()):
            p = scores[level, image].exp()
            assert found[level, image].item() == pytest.approx(math.log2(p[label] / p.sum() / prior[label]), abs=1e-5)


@pytest.mark.parametrize("C", [0.0, -1.0, float("nan")])
def test_an_inverse_strength_that_is_not_positive_is_refused(C):
    """The error names the value."""
    with pytest.raises(ValueError, match=f"C must be positive, got {C}"):
        LogisticProbe(C)
