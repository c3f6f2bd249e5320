"""The mixture of low-rank Gaussians in which the paper explains the hump."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize


@dataclass(frozen=True)
class MoLRG:
    """Classes that differ in the subspace they vary in and, unless told otherwise, not in their mean.

    A sample of class k has standard deviation 1 in its own `rank` directions, `delta` in the other directions of the
    classes' common span, and 0 in the rest of the space.

    The paper's assumption is `angle_deg=90, mean_distance=0`. It also reports overlapping classes (table 4) and well
    separated ones (table 7); how it made them we do not know. Ours: each two classes have all their principal angles
    equal, and a class mean stands in a direction of its own, outside the common span. The overlapping row of table 4 is
    not reproduced by this below its peak, see `docs/theory.md`.

    Args:
        num_classes: K.
        rank: d, dimensions of a class.
        delta: standard deviation in the other classes' directions, 0 to 1.
        seed: of the subspaces.
        ambient_dim: n; None for the least, K * d, or K * (d + 1) with separated means.
        angle_deg: between any direction of a class and the nearest one of any other, above 0 to 90: orthogonal.
        mean_distance: of each class mean from the origin.

    Raises:
        ValueError: if a number is out of its range or the space is too small.

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
        """Refuse what is no mixture."""
        if self.num_classes < 2 or self.rank < 1:
            raise ValueError(f"num_classes = {self.num_classes}, rank = {self.rank}; at least 2 and 1 are needed")
        if not 0 < self.delta <= 1:
            raise ValueError(f"delta = {self.delta}; a standard deviation above 0, at most 1, would do")
        if not 0 < self.angle_deg <= 90:
            raise ValueError(f"angle_deg = {self.angle_deg}; an angle above 0, at most 90, would do")
        if not 0 <= self.mean_distance < math.inf:
            raise ValueError(f"mean_distance = {self.mean_distance}; 0, or a finite distance, would do")
        if self.dim < self.least_dim:
            raise ValueError(f"ambient_dim = {self.dim}; these classes need at least {self.least_dim} dimensions")

    @property
    def span_dim(self) -> int:
        """Dimension of the classes' common span, K * d."""
        return self.num_classes * self.rank

    @property
    def least_dim(self) -> int:
        """Dimension of the span and of the means' directions."""
        return self.span_dim + (self.num_classes if self.mean_distance else 0)

    @property
    def dim(self) -> int:
        """Dimension of the space, n."""
        return self.least_dim if self.ambient_dim is None else self.ambient_dim

    @property
    def std(self) -> float:
        """Root mean square of a coordinate."""
        energy = self.rank * (1 + (self.num_classes - 1) * self.delta**2) + self.mean_distance**2
        return math.sqrt(energy / self.dim)

    def basis(self) -> Tensor:
        """(n, K * d) orthonormal, of the common span; columns k * d to (k + 1) * d span class k if angles are right."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.linalg.qr(torch.randn(self.dim, self.span_dim, generator=generator)).Q

    def frames(self) -> Tensor:
        """(K, K, K) for each class an orthogonal matrix whose column k is the class's own direction.

        The classes are alike in each of the d groups of K basis vectors (k * d + i for k in the K classes): the
        frame of class k turns the group so that vector k lies in the class and the others at right angles to it.
        """
        cosine, num = math.cos(math.radians(self.angle_deg)) if self.angle_deg < 90 else 0.0, self.num_classes
        eye = torch.eye(num)
        # the symmetric root of the Gram matrix (1 - c) I + c 1 1^T: unit vectors with a cosine of c between each two
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
        """(K, n) class means: zero, or `mean_distance` along directions orthogonal to the span and to each other."""
        if not self.mean_distance:
            return torch.zeros(self.num_classes, self.dim)
        generator, basis = torch.Generator().manual_seed(self.seed + 1), self.basis()
        drawn = torch.randn(self.dim, self.num_classes, generator=generator)
        return self.mean_distance * torch.linalg.qr(drawn - basis @ (basis.T @ drawn)).Q.T

    def sample(self, num: int, *, seed: int) -> tuple[Tensor, Tensor]:
        """(num, n) samples and their (num,) classes."""
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(self.num_classes, (num,), generator=generator)
        coefficients = torch.randn(num, self.num_classes, self.rank, generator=generator) * self.delta
        coefficients[torch.arange(num), labels] /= self.delta
        coefficients = torch.einsum("nij,njd->nid", self.frames()[labels], coefficients)
        return coefficients.flatten(1) @ self.basis().T + self.means()[labels], labels
