"""Pairing: statistics of two sets of images some of which share their noise."""

import torch
from torch import Tensor

NUM_RESAMPLES = 1000
BLOCK = 1 << 22
"""Random numbers drawn at once by the bootstrap."""


def common_columns(first_numbers: Tensor, second_numbers: Tensor) -> tuple[Tensor, Tensor]:
    """(P,) columns of the numbers that both have, in the first and in the second."""
    return (
        torch.isin(first_numbers, second_numbers).nonzero()[:, 0],
        torch.isin(second_numbers, first_numbers).nonzero()[:, 0],
    )


def paired_error(first_KN: Tensor, second_KN: Tensor, *, pairs: tuple[Tensor, Tensor]) -> Tensor:
    """(K,) standard error of the difference of two means, some of whose images belong together.

    Args:
        first_KN: (K, N).
        second_KN: (K, N), with as many images or not.
        pairs: (P,) columns of the first, and of the second, that share their noise.
    """
    num_first, num_second, num_pairs = first_KN.shape[1], second_KN.shape[1], len(pairs[0])
    variance_K = first_KN.var(1) / num_first + second_KN.var(1) / num_second
    if num_pairs > 1:
        a, b = first_KN[:, pairs[0]], second_KN[:, pairs[1]]
        covariance_K = ((a - a.mean(1, keepdim=True)) * (b - b.mean(1, keepdim=True))).sum(1) / (num_pairs - 1)
        variance_K = variance_K - 2 * covariance_K * num_pairs / (num_first * num_second)
    return variance_K.clamp(min=0).sqrt()


def resampled_means(
    first_KN: Tensor, second_KN: Tensor, *, pairs: tuple[Tensor, Tensor], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """(K, B) bootstrap means of both: pairs are drawn together, the other images of each on their own."""
    sums = []
    rests = [_others(values.shape[1], paired) for values, paired in zip((first_KN, second_KN), pairs, strict=True)]
    together = torch.cat([first_KN[:, pairs[0]], second_KN[:, pairs[1]]])
    paired_sums = _resampled_sums(together, generator).split([len(first_KN), len(second_KN)])
    for values, rest, paired in zip((first_KN, second_KN), rests, paired_sums, strict=True):
        sums.append((paired + _resampled_sums(values[:, rest], generator)) / values.shape[1])
    return sums[0], sums[1]


def _resampled_sums(values_KN: Tensor, generator: torch.Generator) -> Tensor:
    num = values_KN.shape[1]
    if num == 0:
        return values_KN.new_zeros(len(values_KN), NUM_RESAMPLES)
    blocks = []
    for block in torch.arange(NUM_RESAMPLES).split(max(1, BLOCK // num)):
        drawn = torch.randint(num, (len(block), num), generator=generator)
        counts = values_KN.new_zeros(len(block), num)
        blocks.append(values_KN @ counts.scatter_add_(1, drawn, torch.ones_like(counts)).T)
    return torch.cat(blocks, 1)


def _others(num: int, columns: Tensor) -> Tensor:
    is_other = torch.ones(num, dtype=torch.bool)
    is_other[columns] = False
    return is_other.nonzero()[:, 0]
