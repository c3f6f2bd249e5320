"""The mixture of low-rank Gaussians in which the paper explains the hump."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class MoLRG:
    """Classes of zero mean that differ in the subspace they vary in.

    A sample of class k has standard deviation 1 in its own `rank` directions and `delta` in those of the others.
    The subspaces are orthogonal and fill the space, so n = num_classes * rank.

    Args:
        num_classes: K.
        rank: d, dimensions of a class.
        delta: standard deviation in the other classes' directions, 0 to 1.
        seed: of the subspaces.

    Source: Li et al. 2025 (arXiv 2502.05743), assumption 1.
    """

    num_classes: int = 3
    rank: int = 5
    delta: float = 0.3
    seed: int = 0

    @property
    def dim(self) -> int:
        """Dimension of the space, n."""
        return self.num_classes * self.rank

    @property
    def std(self) -> float:
        """Standard deviation of a coordinate."""
        return math.sqrt((1 + (self.num_classes - 1) * self.delta**2) / self.num_classes)

    def basis(self) -> Tensor:
        """(n, n) orthonormal; columns k * d to (k + 1) * d span class k."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.linalg.qr(torch.randn(self.dim, self.dim, generator=generator)).Q

    def sample(self, num: int, *, seed: int) -> tuple[Tensor, Tensor]:
        """(num, n) samples and their (num,) classes."""
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(self.num_classes, (num,), generator=generator)
        coefficients = torch.randn(num, self.num_classes, self.rank, generator=generator) * self.delta
        coefficients[torch.arange(num), labels] /= self.delta
        return coefficients.flatten(1) @ self.basis().T, labels
