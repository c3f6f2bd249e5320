"""Student's limits and tests of means over images, paired image by image."""

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student
from scipy.stats import ttest_1samp


def lower_limits(values_KN: np.ndarray, *, error: float) -> np.ndarray:
    """(K,) lower confidence limits of the means over images, each of which fails with probability `error`."""
    return adjusted_means(values_KN).lower(error)


def upper_limits(values_KN: np.ndarray, *, error: float) -> np.ndarray:
    """(K,) upper confidence limits of the means over images, each of which fails with probability `error`."""
    return adjusted_means(values_KN).upper(error)


@dataclass(frozen=True, eq=False)
class AdjustedMeans:
    """Means of K rows over images, as they would be where all covariates are 0; see `adjusted_means`."""

    mean: np.ndarray  # (K,)
    covariance: np.ndarray  # (K, K) of the means
    degrees: int  # of freedom

    def lower(self, error: float) -> np.ndarray:
        """(K,) lower confidence limits, each of which fails with probability `error`."""
        return np.asarray(self.mean - student.isf(error, self.degrees) * self.errors)

    def upper(self, error: float) -> np.ndarray:
        """(K,) upper confidence limits, each of which fails with probability `error`."""
        return np.asarray(self.mean + student.isf(error, self.degrees) * self.errors)

    @property
    def errors(self) -> np.ndarray:
        """(K,) standard errors."""
        return np.asarray(np.sqrt(self.covariance.diagonal().clip(min=0)))


def adjusted_means(values_KN: np.ndarray, covariates_NS: np.ndarray | None = None) -> AdjustedMeans:
    """The means of the rows, adjusted for covariates: the intercept of an ordinary least-squares fit.

    Covariates that vary take part if there are at least twice as many images as covariates; without any, this is the
    plain mean with its standard error.

    >>> values, covariates = np.array([[1.0, 2.0, 3.1, 4.0]]), np.array([[-1.0], [0.0], [1.0], [2.0]])
    >>> round(float(adjusted_means(values, covariates).mean[0]), 2)
    2.02
    """
    num = values_KN.shape[1]
    columns = [np.ones(num)]
    if covariates_NS is not None and num >= 2 * (covariates_NS.shape[1] + 1):
        scales = covariates_NS.std(0)
        columns += [column / scale for column, scale in zip(covariates_NS.T, scales, strict=True) if scale > 1e-12]
    q_NJ, r_JJ = np.linalg.qr(np.stack(columns, 1))
    weights_KJ = np.linalg.lstsq(r_JJ, q_NJ.T @ values_KN.T, rcond=None)[0].T
    residuals_KN = values_KN - weights_KJ @ np.stack(columns)
    degrees = num - len(columns)
    scale = np.linalg.pinv(r_JJ.T @ r_JJ)[0, 0]
    return AdjustedMeans(weights_KJ[:, 0], residuals_KN @ residuals_KN.T / degrees * scale, degrees)


def p_value_all_below(values_KN: np.ndarray, reference_N: np.ndarray) -> float:
    """p-value of "the mean of every row is below the reference's", paired image by image.

    It is the largest of the rows' one-sided p-values. The claim is the conjunction of the rows' claims, so that their
    number needs no correction (intersection-union test, Berger 1982). A row equal to the reference makes it 1.

    >>> p_value_all_below(np.array([[0.1, 0.9, 2.2, 2.8]]), np.array([1.0, 2.0, 3.0, 4.0])) < 0.001
    True
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of differences without variance
        p_values_K = ttest_1samp(values_KN - reference_N, 0, axis=1, alternative="less").pvalue
    return float(np.nan_to_num(p_values_K, nan=1.0).max())
