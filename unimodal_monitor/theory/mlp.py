"""A small denoiser of vectors, for the demo, examples and tests."""

from torch import Tensor, nn
from torch.nn.functional import silu


class Block(nn.Module):
    """One residual step of the denoiser; its output is what the probe reads."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        """(N, width) of (N, width)."""
        step: Tensor = self.down(silu(self.up(self.norm(hidden + embedding))))
        return hidden + step


class MLPDenoiser(nn.Module):
    """A residual MLP behind EDM's preconditioning: `net(noised, sigma) -> denoised`."""

    def __init__(self, dim: int, data_std: float, *, width: int = 32, depth: int = 4) -> None:
        super().__init__()
        self.data_std = data_std
        self.enter = nn.Linear(dim, width)
        self.embed = nn.Sequential(nn.Linear(1, 32), nn.SiLU(), nn.Linear(32, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.leave = nn.Linear(width, dim)
        nn.init.zeros_(self.leave.weight)

    def forward(self, noised: Tensor, sigma: Tensor) -> Tensor:
        """Denoise (N, dim) at (N,) sigma."""
        sigma, std = sigma.view(-1, 1), self.data_std
        total = (sigma**2 + std**2).sqrt()
        hidden, embedding = self.enter(noised / total), self.embed(sigma.log() / 4)
        for block in self.blocks:
            hidden = block(hidden, embedding)
        residual: Tensor = self.leave(silu(hidden))
        return (std / total) ** 2 * noised + sigma * std / total * residual
