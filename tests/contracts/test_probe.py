"""What every probe promises; a new one joins by one line in PROBES."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from unimodal_monitor.probes.base import Classifier, Probe
from unimodal_monitor.probes.logistic import LogisticProbe
from unimodal_monitor.probes.ridge import RidgeProbe
from unimodal_monitor.probes.sklearn_probe import SklearnProbe

PROBES = {
    "ridge": RidgeProbe(),
    "logistic": LogisticProbe(),
    "scikit-learn": SklearnProbe(LogisticRegression(C=0.1, tol=1e-9, max_iter=1000)),
    "neighbours": SklearnProbe(KNeighborsClassifier(7)),
    "no probabilities": SklearnProbe(RidgeClassifier(10.0)),
}
K, C = 3, 4


def blobs(num: int, width: int, *, seed: int, distance: float = 2.0) -> tuple[Tensor, Tensor]:
    """(K, num, width) features around one centre for each class, and the (num,) classes."""
    centres = distance * torch.randn(K, C, width, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(num) % C
    return centres[:, labels] + torch.randn(K, num, width, generator=torch.Generator().manual_seed(seed)), labels


def fitted(probe: Probe, features: Tensor, labels: Tensor) -> Classifier:
    collector = probe.collector(len(features), features.shape[2], C)
    for rows in torch.arange(len(labels)).split(17):
        collector.update(features[:, rows], labels[rows])
    return probe.fit(collector)


def close(first: Tensor, second: Tensor, atol: float = 1e-6) -> None:
    torch.testing.assert_close(first, second, rtol=0, atol=atol)


@pytest.fixture(params=PROBES)
def probe(request: pytest.FixtureRequest) -> Probe:
    return PROBES[request.param]


def test_separable_classes_are_told_apart(probe):
    """On images that the fit has not seen, at every level, by predictions and by score."""
    (x, y), (new_x, new_y) = blobs(200, 10, seed=0), blobs(100, 10, seed=1)
    classifier = fitted(probe, x, y)
    scores = classifier.scores(new_x)
    score = probe.score(scores, new_y, classifier.prior_C)
    assert scores.shape == (K, 100, C)
    assert score.shape == (K, 100)
    assert scores.dtype == score.dtype == torch.float64
    assert ((scores.argmax(2) == new_y).double().mean(1) > 0.9).all()
    assert (score.mean(1) > 0.3).all()


def test_features_without_classes_score_no_better_than_the_prior(probe):
    """No gain on unseen images of noise, and accuracy near chance."""
    (x, y), (new_x, new_y) = blobs(400, 10, seed=0, distance=0.0), blobs(400, 10, seed=1, distance=0.0)
    classifier = fitted(probe, x, y)
    scores = classifier.scores(new_x)
    assert (probe.score(scores, new_y, classifier.prior_C).mean(1) < 0.02).all()
    assert ((scores.argmax(2) == new_y).double().mean(1) < 0.4).all()


def test_scores_do_not_depend_on_the_order_of_the_fit_images(probe):
    """Nor, therefore, on their batches and ranks."""
    x, y = blobs(101, 10, seed=0)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(2))
    first, second = fitted(probe, x, y), fitted(probe, x[:, order], y[order])
    close(first.scores(x), second.scores(x), atol=1e-5)


def test_large_means_and_autocast_change_no_score(probe):
    """Channel means of 1000 with a spread near 1, every step under bfloat16 autocast.

    The features are multiples of 1/1024, so that float32 represents both sets exactly.
    """
    x, y = blobs(100, 8, seed=0, distance=0.5)
    x = (1024 * x).round() / 1024
    expected = fitted(probe, x, y).scores(x)
    with torch.autocast("cpu", torch.bfloat16):
        classifier = fitted(probe, x + 1000, y)
        found = classifier.scores(x + 1000)
        score = probe.score(found, y, classifier.prior_C)
    close(found, expected)
    close(score, probe.score(expected, y, classifier.prior_C))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_probe_is_fitted_where_gradients_are_off(probe, mode):
    """As in a check, and in Lightning's validation."""
    x, y = blobs(60, 5, seed=0)
    expected = fitted(probe, x, y).scores(x)
    with mode():
        close(fitted(probe, x, y).scores(x), expected)


@pytest.mark.parametrize("num", [1, 3, 50])
def test_always_answering_the_prior_scores_zero(probe, num):
    """For scores that are probabilities and for those that are their logarithms, in batches of any size."""
    prior = torch.tensor([0.01, 0.19, 0.3, 0.5], dtype=torch.float64)
    answer = prior.log() if probe.score_name == "information (bits)" else prior
    labels = torch.arange(num) % C
    close(probe.score(answer.expand(K, num, C), labels, prior), torch.zeros(K, num, dtype=torch.float64))


def test_the_score_of_an_image_does_not_depend_on_its_batch(probe):
    """A rare class in a small batch included."""
    x, y = blobs(60, 5, seed=0)
    y = torch.where(torch.arange(60) < 2, 3, y % 3)
    classifier = fitted(probe, x, y)
    scores = classifier.scores(x)
    whole = probe.score(scores, y, classifier.prior_C)
    single = [probe.score(scores[:, row : row + 1], y[row : row + 1], classifier.prior_C) for row in range(60)]
    close(torch.cat(single, 1), whole)


def test_the_prior_is_that_of_the_fit_images(probe):
    """Frequencies of the classes, zero for an absent one."""
    x, _ = blobs(8, 5, seed=0)
    classifier = fitted(probe, x, torch.tensor([0, 0, 0, 0, 1, 1, 3, 3]))
    close(classifier.prior_C, torch.tensor([0.5, 0.25, 0.0, 0.25], dtype=torch.float64))


def test_a_class_that_the_fit_lacks_scores_finite(probe):
    """Its held-out images are predicted wrong, which is no reason for an infinity; nor are few images."""
    x, y = blobs(60, 64, seed=0)
    classifier = fitted(probe, x, y % 3)
    assert probe.score(classifier.scores(x), torch.full((60,), 3), classifier.prior_C).isfinite().all()


@pytest.mark.parametrize("constant", [0.0, 1.0, -3e4])
def test_constant_features_change_nothing(probe, constant):
    """Dead channels, as after a ReLU, have no weight, whatever their values are."""
    x, y = blobs(100, 6, seed=0)
    dead = constant * torch.randn(50, generator=torch.Generator().manual_seed(3))
    with_dead = torch.cat([x, dead.expand(K, 100, 50)], 2)
    alone, other = fitted(probe, x, y), fitted(probe, with_dead, y)
    close(other.scores(with_dead), alone.scores(x), atol=1e-5)


@pytest.mark.parametrize("name", ["ridge", "logistic", "scikit-learn"])
def test_features_that_are_all_constant_answer_the_prior(name):
    """A dead layer scores zero and breaks nothing."""
    probe = PROBES[name]
    _, y = blobs(100, 6, seed=0)
    x = torch.randn(6, generator=torch.Generator().manual_seed(3)).expand(K, 100, 6)
    classifier = fitted(probe, x, y)
    score = probe.score(classifier.scores(x), y, classifier.prior_C)
    close(score, torch.zeros_like(score), atol=1e-3)


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_the_unit_of_the_features_does_not_matter(probe, unit):
    """Features are standardised: networks differ in scale by far."""
    x, y = blobs(100, 6, seed=0)
    first, second = fitted(probe, x, y), fitted(probe, unit * x, y)
    close(first.scores(x), second.scores(unit * x), atol=1e-4)


@pytest.mark.parametrize("width", [1, 7])
def test_levels_are_solved_as_if_alone(probe, width):
    """One level and one feature included."""
    x, y = blobs(100, width, seed=width)
    scores = fitted(probe, x, y).scores(x)
    for level in range(K):
        alone = x[level : level + 1]
        close(scores[level], fitted(probe, alone, y).scores(alone)[0])
