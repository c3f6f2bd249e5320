"""The ridge probe against scikit-learn and against brute force, on features of real images."""

import numpy as np
import pytest
import torch
from real_features import NUM_FIT, digit_features
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.preprocessing import StandardScaler

from unimodal_monitor.probes.base import LinearClassifier, standardising_scale
from unimodal_monitor.probes.ridge import RidgeProbe

STRENGTHS = (1e-5, 1e-3, 0.03, 0.3, 3.0)


def fitted(probe: RidgeProbe, num: int = NUM_FIT) -> LinearClassifier:
    x, y = digit_features()
    collector = probe.collector(*x.shape[::2], 10)
    for rows in torch.arange(num).split(100):
        collector.update(x[:, rows], y[rows])
    return probe.fit([collector])[0]


def standardised(level: int, num: int = NUM_FIT) -> tuple[np.ndarray, np.ndarray]:
    x = digit_features()[0][level].double().numpy()
    scaler = StandardScaler().fit(x[:num])
    return scaler.transform(x[:num]), scaler.transform(x[num:])


@pytest.mark.parametrize("strength", STRENGTHS)
def test_scores_are_those_of_scikit_learn(strength):
    """`Ridge(alpha=N * strength)` on one-hot labels and standardised features."""
    x, y = digit_features()
    scores = fitted(RidgeProbe((strength,))).scores(x[:, NUM_FIT:].double())
    for level in range(len(x)):
        train, test = standardised(level)
        reference = Ridge(alpha=NUM_FIT * strength).fit(train, np.eye(10)[y[:NUM_FIT]])
        np.testing.assert_allclose(scores[level], reference.predict(test), atol=1e-6)


def test_predictions_are_those_of_scikit_learns_classifier():
    """`RidgeClassifier` codes its labels as -1 and 1, which halves no margin: nearly all predictions agree."""
    x, y = digit_features()
    predicted = fitted(RidgeProbe([0.03])).scores(x[:, NUM_FIT:]).argmax(2).numpy()
    truth = y[NUM_FIT:].numpy()
    for level in range(len(x)):
        train, test = standardised(level)
        reference = RidgeClassifier(alpha=NUM_FIT * 0.03).fit(train, y[:NUM_FIT]).predict(test)
        assert (predicted[level] == reference).mean() > 0.998
        assert abs((predicted[level] == truth).mean() - (reference == truth).mean()) < 0.002


def gcv(x: np.ndarray, y: np.ndarray, strength: float) -> float:
    """Generalized cross-validation with the hat matrix written out, the intercept a column without penalty."""
    count = len(x)
    design = np.hstack([np.ones((count, 1)), x])
    penalty = count * strength * np.diag([0.0, *np.ones(x.shape[1])])
    hat = design @ np.linalg.solve(design.T @ design + penalty, design.T)
    return np.square(y - hat @ y).sum() / (1 - np.trace(hat) / count) ** 2


@pytest.mark.parametrize("num", [100, NUM_FIT])
def test_the_strength_of_least_gcv_is_chosen_level_by_level(num):
    """Against a loop over strengths with explicit hat matrices, so fine that a degree of freedom shows."""
    x, y = digit_features()
    strengths = np.geomspace(1e-3, 1.0, 60).tolist()
    chosen = fitted(RidgeProbe(strengths), num).info["strength"]
    labels = np.eye(10)[y[:num]]
    for level in range(len(x)):
        train = standardised(level, num)[0]
        expected = min(strengths, key=lambda strength: gcv(train, labels, strength))
        assert chosen[level] == pytest.approx(expected)


def test_levels_choose_their_own_strength():
    """Otherwise the test before this one could not fail: noisier features ask for more."""
    chosen = fitted(RidgeProbe((1e-3, 0.01, 0.1, 1.0)), 150).info["strength"]
    assert len(set(chosen.tolist())) > 1


def test_a_chosen_strength_gives_the_same_classifier_as_that_strength_alone():
    """The choice changes nothing but the strength."""
    several = fitted(RidgeProbe(STRENGTHS))
    for level, strength in enumerate(several.info["strength"].tolist()):
        alone = fitted(RidgeProbe((strength,)))
        torch.testing.assert_close(several.weight_KDC[level], alone.weight_KDC[level])
        torch.testing.assert_close(several.bias_KC[level], alone.bias_KC[level])


def test_scores_of_an_image_sum_to_one():
    """The intercept is free, so they estimate probabilities."""
    x, _ = digit_features()
    sums = fitted(RidgeProbe()).scores(x.double()).sum(2)
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


@pytest.mark.parametrize("strengths", [(), (0.0,), (0.1, -1.0)])
def test_strengths_that_are_not_positive_are_refused(strengths):
    """Without a penalty the problem may have no answer."""
    with pytest.raises(ValueError, match="strengths must be positive"):
        RidgeProbe(strengths)


def test_scale_standardises_and_leaves_out_constants():
    """The reciprocal standard deviation, and zero where a feature does not vary but by rounding."""
    scale = standardising_scale(torch.tensor([[400.0, 100.0, 0.0, -1e-9, 1e-12]], dtype=torch.float64), 100)
    torch.testing.assert_close(scale, torch.tensor([[0.5, 1.0, 0.0, 0.0, 0.0]], dtype=torch.float64))
