"""L-BFGS for a batch of smooth convex problems that share nothing but their shape."""

from collections.abc import Callable

import torch
from torch import Tensor

MEMORY = 10


def minimise(
    objective: Callable[[Tensor], tuple[Tensor, Tensor]], start: Tensor, *, tolerance: float, max_steps: int
) -> tuple[Tensor, int]:
    """Minimise P problems side by side.

    Args:
        objective: from (P, ...) points to (P,) values and (P, ...) gradients.
        start: (P, ...) first points.
        tolerance: largest absolute gradient entry at which a problem counts as solved.
        max_steps: at most so many.

    Returns:
        (P, ...) points of lowest value, and the number of steps taken.

    Source: Nocedal and Wright, Numerical Optimization, algorithms 7.4 and 3.1 (backtracking); on convex problems
    every step has positive curvature, so no Wolfe condition is needed to keep the update defined.
    """
    shape = start.shape
    point = start.flatten(1)
    value, gradient = _flat(objective, point, shape)
    changes: list[tuple[Tensor, Tensor]] = []
    for step in range(max_steps):
        active = gradient.abs().amax(1) > tolerance
        if not active.any():
            return point.view(shape), step
        direction = _two_loops(gradient, changes) * active.unsqueeze(1)
        new_point, new_value, new_gradient = _backtrack(objective, point, value, gradient, direction, shape)
        changes = [*changes[-(MEMORY - 1) :], (new_point - point, new_gradient - gradient)]
        point, value, gradient = new_point, new_value, new_gradient
    return point.view(shape), max_steps


def _flat(
    objective: Callable[[Tensor], tuple[Tensor, Tensor]], point: Tensor, shape: torch.Size
) -> tuple[Tensor, Tensor]:
    value, gradient = objective(point.view(shape))
    return value, gradient.flatten(1)


def _two_loops(gradient: Tensor, changes: list[tuple[Tensor, Tensor]]) -> Tensor:
    """(P, V) descent directions; a problem whose last changes vanish (it is solved) falls back on its gradient."""
    direction = -gradient
    weights = []
    for moved, turned in reversed(changes):
        curvature = (moved * turned).sum(1, keepdim=True)
        rho = torch.where(curvature > 0, 1 / curvature, 0.0)
        weight = rho * (moved * direction).sum(1, keepdim=True)
        direction = direction - weight * turned
        weights.append((rho, weight))
    if changes:
        moved, turned = changes[-1]
        curvature, length = (moved * turned).sum(1, keepdim=True), turned.square().sum(1, keepdim=True)
        direction = direction * torch.where(curvature > 0, curvature / length, 1.0)
    for (moved, turned), (rho, weight) in zip(changes, reversed(weights), strict=True):
        direction = direction + moved * (weight - rho * (turned * direction).sum(1, keepdim=True))
    return direction


def _backtrack(
    objective: Callable[[Tensor], tuple[Tensor, Tensor]],
    point: Tensor,
    value: Tensor,
    gradient: Tensor,
    direction: Tensor,
    shape: torch.Size,
) -> tuple[Tensor, Tensor, Tensor]:
    """Halve the step of each problem until its value has fallen enough (Armijo)."""
    slope = (gradient * direction).sum(1)
    length = torch.ones_like(value)
    for _ in range(30):
        new_point = point + length.unsqueeze(1) * direction
        new_value, new_gradient = _flat(objective, new_point, shape)
        rounding = 1e-12 * value.abs()
        too_far = new_value > value + 1e-4 * length * slope + rounding
        if not too_far.any():
            break
        length = torch.where(too_far, length / 2, length)
    return new_point, new_value, new_gradient
