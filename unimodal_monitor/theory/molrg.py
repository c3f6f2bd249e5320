"""The mixture of low-rank Gaussians with which the paper explains unimodal curves."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize


@dataclass(frozen=True)
class MoLRG:
    """Gaussian classes that vary in different subspaces and, by default, have the same mean.

    A sample of class k has standard deviation 1 in the `rank` directions of the class, `delta` in the other directions
    of the classes' common span, and 0 in the rest of the space.

    The paper assumes `angle_deg=90, mean_distance=0`. It also reports overlapping classes (table 4) and separated ones
    (table 7) without their construction. Here all principal angles between two classes are equal, and each class mean
    has a direction of its own outside the common span. This does not reproduce the overlapping row of table 4 below its
    peak, see `docs/theory.md`.

    Args:
        num_classes: Number of classes K, at least 2.
        rank: Dimension d of the subspace of a class.
        delta: Standard deviation in the directions of the other classes, in (0, 1].
        seed: Seed of the subspaces.
        ambient_dim: Dimension n of the space; None for the smallest, K * d, or K * (d + 1) with separated means.
        angle_deg: Principal angle between two classes, in (0, 90]; 90 is orthogonal.
        mean_distance: Distance of each class mean from the origin.

    Raises:
        ValueError: If an argument is out of range or the space is too small.

    Source: Li et al. 2025 (arXiv 2502.05743), assumption 1.
    """

    num_classes: int = 3
    rank: int = 5
    delta: float = 0.3
    seed: int = 0
    ambient_dim: int | None = None
    angle_deg: float = 90.0
    mean_distance: float = 0.0

    def __post_init__(self) -> None:
        if self.num_classes < 2 or self.rank < 1:
            raise ValueError(f"need at least 2 classes of rank 1, got {self.num_classes} of rank {self.rank}")
        if not 0 < self.delta <= 1:
            raise ValueError(f"need a delta in (0, 1], got {self.delta}")
        if not 0 < self.angle_deg <= 90:
            raise ValueError(f"need an angle_deg in (0, 90], got {self.angle_deg}")
        if not 0 <= self.mean_distance < math.inf:
            raise ValueError(f"need a mean_distance in [0, inf), got {self.mean_distance}")
        if self.dim < self.min_dim:
            raise ValueError(f"need an ambient_dim of at least {self.min_dim}, got {self.dim}")

    @property
    def min_dim(self) -> int:
        """Dimension of the span and of the directions of the means."""
        return self.num_classes * (self.rank + bool(self.mean_distance))

    @property
    def dim(self) -> int:
        """Dimension of the space, n."""
        return self.min_dim if self.ambient_dim is None else self.ambient_dim

    @property
    def std(self) -> float:
        """Root mean square of a coordinate."""
        energy = self.rank * (1 + (self.num_classes - 1) * self.delta**2) + self.mean_distance**2
        return math.sqrt(energy / self.dim)

    def basis(self) -> Tensor:
        """(n, K * d) orthonormal basis of the common span; columns k * d to (k + 1) * d span class k if orthogonal."""
        generator = torch.Generator().manual_seed(self.seed)
        return _orthonormal(torch.randn(self.dim, self.num_classes * self.rank, generator=generator))

    def frames(self) -> Tensor:
        """(K, K, K) for each class k an orthogonal matrix whose column k is the direction of the class.

        The d groups of K basis vectors (k * d + i for the K classes) are treated alike: the frame of class k rotates a
        group such that its vector k lies in the class and the others are orthogonal to it.
        """
        cosine, num = math.cos(math.radians(self.angle_deg)) if self.angle_deg < 90 else 0.0, self.num_classes
        eye = torch.eye(num)
        # symmetric root of the Gram matrix (1 - c) I + c 1 1^T of unit vectors with pairwise cosine c
        root = math.sqrt(1 - cosine)
        own = root * eye + (math.sqrt(1 - cosine + num * cosine) - root) / num
        mirrors = normalize(eye - own, dim=1)
        return eye - 2 * torch.einsum("ki,kj->kij", mirrors, mirrors)

    def subspaces(self) -> Tensor:
        """(K, n, d) an orthonormal basis of each class."""
        blocks = self.basis().reshape(self.dim, self.num_classes, self.rank)
        own = self.frames().diagonal(dim1=0, dim2=2)  # (K, K): basis vector of the group, class
        return torch.einsum("njd,jk->knd", blocks, own)

    def means(self) -> Tensor:
        """(K, n) class means: zero, or `mean_distance` times directions orthogonal to the span and to each other."""
        if not self.mean_distance:
            return torch.zeros(self.num_classes, self.dim)
        generator, basis = torch.Generator().manual_seed(self.seed + 1), self.basis()
        drawn = torch.randn(self.dim, self.num_classes, generator=generator)
        return self.mean_distance * _orthonormal(drawn - basis @ (basis.T @ drawn)).T

    def sample(self, num: int, *, seed: int) -> tuple[Tensor, Tensor]:
        """(num, n) samples and their (num,) classes."""
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(self.num_classes, (num,), generator=generator)
        coefficients = torch.randn(num, self.num_classes, self.rank, generator=generator) * self.delta
        coefficients[torch.arange(num), labels] /= self.delta
        coefficients = torch.einsum("nij,njd->nid", self.frames()[labels], coefficients)
        return coefficients.flatten(1) @ self.basis().T + self.means()[labels], labels


def _orthonormal(columns: Tensor) -> Tensor:
    q: Tensor = torch.linalg.qr(columns).Q
    return q
