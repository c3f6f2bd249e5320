"""Classifiers of scikit-learn as probes, against themselves by hand."""

import numpy as np
import pytest
import torch
from real_features import NUM_FIT, digit_features, digit_scores, standardised
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures

from unimodal_monitor.probes.logistic import LogisticProbe
from unimodal_monitor.probes.ridge import RidgeProbe
from unimodal_monitor.probes.sklearn_probe import SklearnProbe, as_probe


def test_predictions_are_those_of_the_estimator():
    """Fitted by hand at each level on standardised features; the user's own estimator stays unfitted."""
    y = digit_features()[1].numpy()
    for estimator in (LogisticRegression(C=0.1), KNeighborsClassifier(), RidgeClassifier()):
        scores, _ = digit_scores(SklearnProbe(estimator))
        assert not hasattr(estimator, "classes_")
        for level in range(3):
            train, test = standardised(level)
            expected = estimator.__class__(**estimator.get_params()).fit(train, y[:NUM_FIT]).predict(test)
            assert (scores[level].argmax(1).numpy() == expected).mean() > 0.998


def test_scikit_learns_logistic_regression_scores_as_the_logistic_probe():
    """The same model by two solvers: bits agree where the least probability is far."""
    ours, theirs = (digit_scores(as_probe(probe))[1] for probe in (LogisticProbe(), LogisticRegression(C=0.1)))
    is_far = ours > -4
    assert is_far.double().mean() > 0.95
    torch.testing.assert_close(theirs[is_far], ours[is_far], rtol=0, atol=0.05)


def test_a_probability_of_zero_scores_the_least_share_of_the_prior():
    """One neighbour is right or wrong: near log2(1 / prior) bits, or about log2(0.01)."""
    scores, score = digit_scores(SklearnProbe(KNeighborsClassifier(1)))
    is_right = scores.argmax(2) == digit_features()[1][NUM_FIT:]
    assert is_right.any()
    assert not is_right.all()
    assert ((score - np.log2(10)).abs() < 0.3)[is_right].all()
    assert ((score - np.log2(0.01)).abs() < 0.02)[~is_right].all()


def test_without_probabilities_the_score_is_the_brier_gain_of_the_predictions():
    """A right prediction gains the Brier score of the prior, a wrong one two less."""
    scores, score = digit_scores(SklearnProbe(RidgeClassifier()))
    y = digit_features()[1]
    prior = torch.bincount(y[:NUM_FIT], minlength=10).double() / NUM_FIT
    of_prior = (prior - torch.eye(10)[y[NUM_FIT:]]).square().sum(1)
    torch.testing.assert_close(score, of_prior - 2.0 * (scores.argmax(2) != y[NUM_FIT:]))


def test_the_probe_that_a_user_means():
    """None, a probe of the package, a probe of the user's own, a classifier, a pipeline that ends in one."""

    class Own(RidgeProbe):
        pass

    own = Own()
    assert isinstance(as_probe(None), RidgeProbe)
    assert as_probe(own) is own
    for estimator in (KNeighborsClassifier(), make_pipeline(PolynomialFeatures(), LogisticRegression())):
        assert as_probe(estimator).score_name == "information (bits)"
    assert as_probe(RidgeClassifier()).score_name == RidgeProbe.score_name


@pytest.mark.parametrize("wrong", ["ridge", 0.3, Ridge(), LogisticRegression, RidgeProbe, torch.nn.Linear(2, 2)])
def test_what_is_no_probe_is_refused(wrong):
    """A regressor, a class in place of an instance, a name."""
    with pytest.raises(ValueError, match="a classifier of scikit-learn such as LogisticRegression"):
        as_probe(wrong)
