"""Continuous paths: the network gets what the job's own formulas say, and a perfect one gives the clean images."""

import math

import pytest
import torch
from torch import nn

from unimodal_monitor.denoisers import PathDenoiser

SIGMA = torch.tensor([0.02, 0.3, 1.0, 4.0, 20.0], dtype=torch.float64)
CLEAN = 0.7


def vpsde(t):
    a = math.exp(-0.25 * t**2 * 19.9 - 0.5 * t * 0.1)
    return a, math.sqrt(1 - a**2)


PATHS = {  # a and s at a time, as the papers write them
    "flow": lambda t: (1 - t, t),
    "cosine": lambda t: (math.cos(math.pi * t / 2), math.sin(math.pi * t / 2)),
    "vpsde": vpsde,
    "subvp": lambda t: (vpsde(t)[0], 1 - vpsde(t)[0] ** 2),
    "ve": lambda t: (1.0, t),
}


class Perfect(nn.Module):
    """Knows that all clean pixels are 0.7, and reads the noise from its input at the time that it gets."""

    def __init__(self, path, target, *, mirrored=False, scale=1.0):
        super().__init__()
        self.path, self.target, self.mirrored, self.scale = path, target, mirrored, scale

    def forward(self, x, t):
        out = []
        for image, time in zip(x, (t / self.scale).tolist(), strict=True):
            a, s = self.path(1 - time if self.mirrored else time)
            noise = (image - a * CLEAN) / s
            out.append(self.target(noise, a, s))
        return torch.stack(out)


TARGETS = {
    "epsilon": lambda noise, a, s: noise,
    "sample": lambda noise, a, s: torch.full_like(noise, CLEAN),
    "v_prediction": lambda noise, a, s: a * noise - s * CLEAN,
    "score": lambda noise, a, s: -noise / s,
}


@pytest.mark.parametrize("prediction", TARGETS)
@pytest.mark.parametrize("path", PATHS)
def test_perfect_network_gives_the_clean_images(path, prediction):
    scale = 999.0 if "vp" in path else 1.0
    net = Perfect(PATHS[path], TARGETS[prediction], scale=scale)
    check(PathDenoiser(net, path=path, prediction=prediction, time_scale=scale))


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(
    ("path", "velocity"),
    [
        ("flow", lambda noise, a, s: noise - CLEAN),
        ("cosine", lambda noise, a, s: math.pi / 2 * (a * noise - s * CLEAN)),
    ],
)
def test_velocity_is_the_derivative_of_the_path_in_its_own_time(path, velocity, mirrored):
    """SiT: d x_t / dt of the linear and of the GVP path; a reversed time turns the sign round."""

    def target(noise, a, s):
        return velocity(noise, a, s) * (-1 if mirrored else 1)

    net = Perfect(PATHS[path], target, mirrored=mirrored)
    check(PathDenoiser(net, path=path, noise_at=0 if mirrored else 1))


def test_inner_network_of_edm_is_called_with_the_coefficients_of_table_1():
    """c_in, c_noise, c_skip and c_out written out, for another standard deviation of the data than 0.5."""
    std, seen = 0.8, []

    class Inner(nn.Module):
        def forward(self, x, c_noise):
            seen.append((x, c_noise))
            return torch.sin(x)

    noised = torch.randn(5, 3, dtype=torch.float64)
    sigma = SIGMA[:, None]
    root = (sigma**2 + std**2).sqrt()
    expected = std**2 / root**2 * noised + sigma * std / root * torch.sin(noised / root)
    denoised = PathDenoiser(Inner(), path="edm", std=std)(noised, SIGMA)
    torch.testing.assert_close(seen[0][0], noised / root)
    torch.testing.assert_close(seen[0][1], SIGMA.log() / 4)
    torch.testing.assert_close(denoised, expected, check_dtype=False, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("wrong", [{"path": "vp"}, {"prediction": "x"}, {"time_scale": 0.0}, {"std": -1.0}])
def test_wrong_argument_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PathDenoiser(nn.Identity(), **wrong)


def check(denoiser):
    noised = CLEAN + SIGMA[:, None] * torch.randn(5, 4, dtype=torch.float64)
    torch.testing.assert_close(
        denoiser(noised, SIGMA), torch.full_like(noised, CLEAN), atol=1e-4, rtol=0, check_dtype=False
    )


@pytest.mark.parametrize("options", [{"noise_at": 0}, {"prediction": "velocity"}])
@pytest.mark.parametrize("path", ["vpsde", "subvp", "ve", "edm"])
def test_what_only_flows_have_is_refused_elsewhere(path, options):
    with pytest.raises(ValueError, match=f"path = '{path}' has neither noise_at=0 nor a velocity"):
        PathDenoiser(nn.Identity(), path=path, **options)
