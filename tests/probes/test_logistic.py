"""The logistic probe against scikit-learn on features of real images."""

import math

import numpy as np
import pytest
import torch
from real_features import NUM_FIT, digit_features
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from unimodal_monitor.probes.base import LinearClassifier
from unimodal_monitor.probes.logistic import Features, LogisticProbe


def fitted(probe: LogisticProbe) -> LinearClassifier:
    x, y = digit_features()
    collector = probe.collector(*x.shape[::2], 10)
    for rows in torch.arange(NUM_FIT).split(100):
        collector.update(x[:, rows], y[rows])
    return probe.fit([collector])[0]


@pytest.mark.parametrize("C", [0.003, 0.1])
def test_weights_and_accuracy_are_those_of_scikit_learn(C):
    """On standardised features: coefficients and centred intercepts to 1e-3, accuracies to 0.2 points."""
    x, y = digit_features()
    classifier = fitted(LogisticProbe(C, tolerance=1e-7))
    predicted = classifier.scores(x[:, NUM_FIT:]).argmax(2)
    for level in range(len(x)):
        scaler = StandardScaler().fit(x[level, :NUM_FIT].double())
        train, test = scaler.transform(x[level, :NUM_FIT].double()), scaler.transform(x[level, NUM_FIT:].double())
        reference = LogisticRegression(C=C, tol=1e-7, max_iter=3000).fit(train, y[:NUM_FIT])
        weight = classifier.weight_KDC[level].numpy()
        bias = classifier.bias_KC[level].numpy() + scaler.mean_ @ weight
        np.testing.assert_allclose((weight * scaler.scale_[:, None]).T, reference.coef_, atol=1e-3)
        centred = reference.intercept_ - reference.intercept_.mean()
        np.testing.assert_allclose(bias - bias.mean(), centred, atol=1e-3)
        accuracy = (predicted[level] == y[NUM_FIT:]).double().mean()
        assert abs(accuracy - reference.score(test, y[NUM_FIT:])) < 0.002


def test_a_few_tens_of_steps_suffice():
    """What the rotation to the bound of the curvature is for."""
    steps = fitted(LogisticProbe()).info["steps"]
    assert steps.shape == (3,)
    assert steps.max() < 80


def test_score_is_information_over_the_prior_in_bits():
    """Against a loop over images."""
    scores = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    labels, prior = torch.tensor([0, 1, 2, 1, 0]), torch.tensor([0.5, 0.3, 0.2])
    found = LogisticProbe().score(scores, labels, prior)
    for level in range(2):
        for image, label in enumerate(labels.tolist()):
            p = scores[level, image].exp()
            assert found[level, image].item() == pytest.approx(math.log2(p[label] / p.sum() / prior[label]), abs=1e-5)


def test_features_gathered_from_several_ranks_are_read_as_well():
    """After torchmetrics' synchronisation a list of batches has become one tensor."""
    x, y = torch.randn(3, 8, 5), torch.arange(8) % 2
    collector = Features(2)
    collector.update(x[:, :3], y[:3])
    collector.update(x[:, 3:], y[3:])
    expected = collector.compute()
    collector.reset()
    collector.features, collector.labels = x.transpose(0, 1), y
    collector._update_count = 1
    for found, wanted in zip(collector.compute(), expected, strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("C", [0.0, -1.0, float("nan")])
def test_an_inverse_strength_that_is_not_positive_is_refused(C):
    """The error says what came."""
    with pytest.raises(ValueError, match=f"C must be positive, got {C}"):
        LogisticProbe(C)
