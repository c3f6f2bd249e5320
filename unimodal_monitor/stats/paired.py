"""Student's limits and tests of means over images, paired image by image."""

import warnings

import numpy as np
from scipy.stats import t as student
from scipy.stats import ttest_1samp


def lower_limits(values_KN: np.ndarray, *, error: float) -> np.ndarray:
    """(K,) lower confidence limits of the means over images, each of which fails with probability `error`."""
    return -upper_limits(-values_KN, error=error)


def upper_limits(values_KN: np.ndarray, *, error: float) -> np.ndarray:
    """(K,) upper confidence limits of the means over images, each of which fails with probability `error`."""
    num = values_KN.shape[1]
    return np.asarray(values_KN.mean(1) + student.isf(error, num - 1) * values_KN.std(1, ddof=1) / num**0.5)


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
