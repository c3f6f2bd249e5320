"""What every probe promises; a new one joins by one line in PROBES."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from unimodal_monitor.probes.base import LinearClassifier, Probe
from unimodal_monitor.probes.logistic import LogisticProbe
from unimodal_monitor.probes.ridge import RidgeProbe

PROBES = {
    "ridge": RidgeProbe(),
    "ridge, strength chosen": RidgeProbe(strengths=(0.003, 0.03, 0.3)),
    "logistic": LogisticProbe(),
}
K, C = 3, 4


def blobs(num: int, width: int, *, seed: int, distance: float = 2.0) -> tuple[Tensor, Tensor]:
    """(K, num, width) features around one centre for each class, and the (num,) classes."""
    centres = distance * torch.randn(K, C, width, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(num) % C
    return centres[:, labels] + torch.randn(K, num, width, generator=torch.Generator().manual_seed(seed)), labels


def fitted(probe: Probe, layers: Sequence[Tensor], labels: Tensor) -> list[LinearClassifier]:
    collectors = [probe.collector(len(layer), layer.shape[2], C) for layer in layers]
    for collector, layer in zip(collectors, layers, strict=True):
        for rows in torch.arange(len(labels)).split(17):
            collector.update(layer[:, rows], labels[rows])
    return probe.fit(collectors)


@pytest.fixture(params=PROBES)
def probe(request: pytest.FixtureRequest) -> Probe:
    return PROBES[request.param]


def test_separable_classes_are_told_apart(probe):
    """On images that the fit has not seen, at every level, and the score says so."""
    x, y = blobs(200, 10, seed=0)
    new_x, new_y = blobs(100, 10, seed=1)
    (classifier,) = fitted(probe, [x], y)
    scores = classifier.scores(new_x)
    score = probe.score(scores, new_y, classifier.prior_C)
    assert scores.shape == (K, 100, C)
    assert score.shape == (K, 100)
    assert ((scores.argmax(2) == new_y).double().mean(1) > 0.9).all()
    assert (score.mean(1) > 0.3).all()


def test_features_without_classes_score_like_the_prior(probe):
    """No gain on unseen images of noise, and accuracy near chance."""
    x, y = blobs(400, 10, seed=0, distance=0.0)
    new_x, new_y = blobs(400, 10, seed=1, distance=0.0)
    (classifier,) = fitted(probe, [x], y)
    scores = classifier.scores(new_x)
    assert (probe.score(scores, new_y, classifier.prior_C).mean(1) < 0.02).all()
    assert ((scores.argmax(2) == new_y).double().mean(1) < 0.4).all()


def test_the_classifier_does_not_depend_on_the_order_of_the_images(probe):
    """Any permutation of the fit images, and so any batching, leaves it as it is."""
    x, y = blobs(101, 10, seed=0)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(2))
    (first,), (second,) = fitted(probe, [x], y), fitted(probe, [x[:, order]], y[order])
    torch.testing.assert_close(first.weight_KDC, second.weight_KDC, rtol=0, atol=1e-6)
    torch.testing.assert_close(first.bias_KC, second.bias_KC, rtol=0, atol=1e-6)


@pytest.mark.parametrize("num", [1, 3, 50])
def test_always_answering_the_prior_scores_zero(probe, num):
    """For scores that are probabilities and for those that are their logarithms, in batches of any size."""
    prior = torch.tensor([0.01, 0.19, 0.3, 0.5], dtype=torch.float64)
    answer = prior.log() if isinstance(probe, LogisticProbe) else prior
    labels = torch.arange(num) % C
    score = probe.score(answer.expand(K, num, C), labels, prior)
    torch.testing.assert_close(score, torch.zeros(K, num, dtype=torch.float64))


def test_the_score_of_an_image_does_not_depend_on_its_batch(probe):
    """A rare class in a small batch included."""
    x, y = blobs(60, 5, seed=0)
    y = torch.where(torch.arange(60) == 0, 3, y % 3)
    (classifier,) = fitted(probe, [x], y)
    scores = classifier.scores(x)
    whole = probe.score(scores, y, classifier.prior_C)
    single = [probe.score(scores[:, row : row + 1], y[row : row + 1], classifier.prior_C) for row in range(60)]
    torch.testing.assert_close(torch.cat(single, 1), whole)


def test_the_prior_is_that_of_the_fit_images(probe):
    """Frequencies of the classes, an absent one at zero."""
    x, _ = blobs(8, 5, seed=0)
    (classifier,) = fitted(probe, [x], torch.tensor([0, 0, 0, 0, 1, 1, 3, 3]))
    torch.testing.assert_close(classifier.prior_C.double(), torch.tensor([0.5, 0.25, 0.0, 0.25], dtype=torch.float64))


def test_a_class_that_the_fit_lacks_scores_finite(probe):
    """Its held-out images are predicted wrong, which is no reason for an infinity."""
    x, y = blobs(60, 5, seed=0)
    (classifier,) = fitted(probe, [x], y % 3)
    assert probe.score(classifier.scores(x), torch.full((60,), 3), classifier.prior_C).isfinite().all()


@pytest.mark.parametrize("constant", [0.0, 1.0, -3e4])
def test_a_constant_feature_changes_nothing(probe, constant):
    """A dead channel, as after a ReLU, has no weight and leaves the others alone."""
    x, y = blobs(100, 6, seed=0)
    with_constant = torch.cat([x, torch.full((K, 100, 1), constant)], 2)
    (alone,), (other,) = fitted(probe, [x], y), fitted(probe, [with_constant], y)
    expected, found = alone.scores(x), other.scores(with_constant)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)


def test_features_that_are_all_constant_answer_the_prior(probe):
    """A dead layer is worth nothing and breaks nothing."""
    _, y = blobs(100, 6, seed=0)
    x = torch.full((K, 100, 6), 2.0)
    (classifier,) = fitted(probe, [x], y)
    score = probe.score(classifier.scores(x), y, classifier.prior_C)
    torch.testing.assert_close(score, torch.zeros_like(score), rtol=0, atol=1e-3)


def test_fewer_images_than_features_are_no_trouble(probe):
    """The penalty decides where the images do not."""
    x, y = blobs(20, 64, seed=0)
    (classifier,) = fitted(probe, [x], y)
    assert classifier.weight_KDC.isfinite().all()
    assert probe.score(classifier.scores(x), y, classifier.prior_C).isfinite().all()


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_the_unit_of_the_features_does_not_matter(probe, unit):
    """Features are standardised: networks differ in scale by far."""
    x, y = blobs(100, 6, seed=0)
    (first,), (second,) = fitted(probe, [x], y), fitted(probe, [unit * x], y)
    torch.testing.assert_close(first.scores(x), second.scores(unit * x), rtol=0, atol=2e-3)


def test_levels_and_layers_are_solved_as_if_alone(probe):
    """Layers of different widths in one fit, and each level of them."""
    layers, (_, y) = [blobs(100, width, seed=width)[0] for width in (3, 12, 7)], blobs(100, 3, seed=0)
    together = fitted(probe, layers, y)
    for x, found in zip(layers, together, strict=True):
        assert found.weight_KDC.shape == (K, x.shape[2], C)
        for level in range(K):
            (alone,) = fitted(probe, [x[level : level + 1]], y)
            torch.testing.assert_close(found.scores(x)[level], alone.scores(x[level : level + 1])[0], rtol=0, atol=1e-3)
