"""The batched optimiser against SciPy's, problem by problem."""

from itertools import pairwise

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.functional import softplus

from unimodal_monitor.probes.lbfgs import minimise

P, V = 5, 12
GENERATOR = torch.Generator().manual_seed(0)
ROTATION = torch.linalg.qr(torch.randn(P, V, V, generator=GENERATOR, dtype=torch.float64))[0]
CURVATURE = torch.logspace(0, 1, P, dtype=torch.float64).view(P, 1) ** torch.linspace(-1, 2, V, dtype=torch.float64)
HESSIAN = ROTATION @ torch.diag_embed(CURVATURE) @ ROTATION.mT
SLOPE = torch.randn(P, V, generator=GENERATOR, dtype=torch.float64)
ROWS = torch.randn(P, 40, V, generator=GENERATOR, dtype=torch.float64)
SIGNS = (torch.rand(P, 40, generator=GENERATOR, dtype=torch.float64) < 0.5).double() * 2 - 1
START = torch.zeros(P, V, dtype=torch.float64)


def quadratic(u: Tensor) -> tuple[Tensor, Tensor]:
    turned = (HESSIAN @ u.unsqueeze(2)).squeeze(2)
    return 0.5 * (u * turned).sum(1) - (SLOPE * u).sum(1), turned - SLOPE


def logistic(u: Tensor) -> tuple[Tensor, Tensor]:
    margin = SIGNS * (ROWS @ u.unsqueeze(2)).squeeze(2)
    gradient = -(ROWS * (SIGNS * torch.sigmoid(-margin)).unsqueeze(2)).sum(1)
    return softplus(-margin).sum(1) + 0.05 * u.square().sum(1), gradient + 0.1 * u


def by_scipy(objective, problem: int) -> np.ndarray:
    def single(u: np.ndarray) -> tuple[float, np.ndarray]:
        point = START.clone()
        point[problem] = torch.from_numpy(u)
        value, gradient = objective(point)
        return float(value[problem]), gradient[problem].numpy()

    return minimize(single, np.zeros(V), jac=True, method="L-BFGS-B", options={"gtol": 1e-9, "ftol": 1e-15}).x


def test_quadratics_are_solved_to_their_closed_form():
    """Conditions from 1 to 1000 side by side."""
    found, steps = minimise(quadratic, START, tolerance=1e-8, max_steps=500)
    torch.testing.assert_close(found, torch.linalg.solve(HESSIAN, SLOPE), rtol=0, atol=1e-6)
    assert steps < 200


def test_each_problem_ends_where_scipy_ends():
    """Quadratic and logistic ones."""
    for objective in (quadratic, logistic):
        found, _ = minimise(objective, START, tolerance=1e-7, max_steps=500)
        for problem in range(P):
            np.testing.assert_allclose(found[problem], by_scipy(objective, problem), atol=1e-5)


def test_problems_share_nothing():
    """Each is solved to the tolerance whatever the others need, and a solved one stays where it is."""
    start = torch.linalg.solve(HESSIAN, SLOPE)
    start[0] = 0
    found, _ = minimise(quadratic, start, tolerance=1e-8, max_steps=500)
    assert torch.equal(found[1:], start[1:])
    assert (quadratic(found)[1].abs() <= 1e-8).all()


def test_points_keep_their_shape():
    """Weights are matrices."""

    def folded(u: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = quadratic(u.flatten(1))
        return value, gradient.view_as(u)

    found, _ = minimise(folded, START.view(P, 4, 3), tolerance=1e-8, max_steps=500)
    torch.testing.assert_close(found.flatten(1), minimise(quadratic, START, tolerance=1e-8, max_steps=500)[0])


def test_no_more_steps_are_taken_than_allowed():
    """And every step goes down."""
    values = [quadratic(minimise(quadratic, START, tolerance=0.0, max_steps=num)[0])[0] for num in (0, 1, 5, 20)]
    assert minimise(quadratic, START, tolerance=0.0, max_steps=5)[1] == 5
    for earlier, later in pairwise(values):
        assert (later <= earlier + 1e-9).all()


def test_a_tolerance_beyond_rounding_does_no_harm():
    """Where no step can go down any more, the point stays."""
    found, _ = minimise(logistic, START, tolerance=0.0, max_steps=150)
    solved, _ = minimise(logistic, START, tolerance=1e-7, max_steps=500)
    assert (logistic(found)[0] <= logistic(solved)[0] + 1e-10).all()
    torch.testing.assert_close(found, solved, rtol=0, atol=1e-6)
