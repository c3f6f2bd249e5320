"""Features of real images with unequal scales: scikit-learn's digits through a random convolution."""

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from unimodal_monitor.probes.base import Probe

SIGMAS = (0.05, 0.5, 1.5)
NUM_FIT = 600


@cache
def digit_features() -> tuple[Tensor, Tensor]:
    """(3, 1797, 64) features at three noise levels, and the (1797,) digits; the first NUM_FIT are to fit on."""
    generator = torch.Generator().manual_seed(0)
    digits = load_digits()
    images = torch.from_numpy(digits.images).float().unsqueeze(1) / 8 - 1
    convolution = nn.Conv2d(1, 16, 3, padding=1)
    convolution.weight.data = torch.randn(16, 1, 3, 3, generator=generator) * torch.logspace(-1, 1, 16).view(
        16, 1, 1, 1
    )
    convolution.bias.data = torch.randn(16, generator=generator)
    noise = torch.randn(images.shape, generator=generator)
    with torch.no_grad():
        maps = [convolution(images + sigma * noise).relu() for sigma in SIGMAS]
    return torch.stack([nn.functional.avg_pool2d(m, 4).flatten(1) for m in maps]), torch.from_numpy(digits.target)


def standardised(level: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Features of a level to fit on and to score, standardised by scikit-learn."""
    x = digit_features()[0][level].double().numpy()
    scaler = StandardScaler().fit(x[:NUM_FIT])
    return scaler.transform(x[:NUM_FIT]), scaler.transform(x[NUM_FIT:])


def digit_scores(probe: Probe) -> tuple[Tensor, Tensor]:
    """(3, M, 10) scores and the (3, M) score of the digits that the probe is not fitted on."""
    x, y = digit_features()
    collector = probe.collector(*x.shape[::2], 10)
    for rows in torch.arange(NUM_FIT).split(100):
        collector.update(x[:, rows], y[rows])
    classifier = probe.fit(collector)
    scores = classifier.scores(x[:, NUM_FIT:])
    return scores, probe.score(scores, y[NUM_FIT:], classifier.prior_C)
