"""Miniatures of conventions whose packages cannot be installed, and set-ups that were once wrong in silence."""

import math
from collections.abc import Callable
from typing import Any

import diffusers
import torch
from families import (
    NET,
    Family,
    Net,
    column,
    edm_inner,
    edm_inner_error,
    linear,
    mirrored,
    path,
    quarter,
    unet,
    vp_sde,
)
from torch import Tensor, nn

BETAS = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
ALPHAS = torch.cumprod(1 - BETAS, 0)


def nearest(sigma: Tensor, alphas: Tensor = ALPHAS) -> Tensor:
    """The step of each sigma."""
    return (((1 - alphas) / alphas).sqrt().log() - sigma.double().log()[:, None]).abs().argmin(1)


def discrete(target: str, time: Callable[[Tensor], Tensor] = lambda t: t, alphas: Tensor = ALPHAS) -> dict[str, Any]:
    """A table of alphas, a target, and what the network gets as time."""

    def parts(t: Tensor) -> tuple[Tensor, Tensor]:
        return column(alphas[t].sqrt()), column((1 - alphas[t]).sqrt())

    def error(job: Any, x: Tensor) -> Tensor:
        noise, t = torch.randn_like(x), torch.randint(0, len(alphas), (len(x),))
        a, s = parts(t)
        wanted = {"epsilon": noise, "x0": x, "v": a * noise - s * x}[target]
        return of(job.net, a * x + s * noise, time(t)) - wanted

    def estimate(job: Any, noised: Tensor, sigma: Tensor) -> Tensor:
        t = nearest(sigma, alphas)
        a, s = parts(t)
        x_t = a * noised
        out = of(job.net, x_t, time(t))
        return {"epsilon": (x_t - s * out) / a, "x0": out, "v": a * x_t - s * out}[target]

    return {"error": error, "estimate": estimate}


def of(net: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    """The image in an output: diffusers', or the first half of a learned variance."""
    output = net(x, t)
    output = getattr(output, "sample", output)
    return output[:, : x.shape[1]]


class Table:
    """A schedule that holds a table and whatever else is said about it."""

    def __init__(self, **says: Any) -> None:
        self.alphas_cumprod = ALPHAS
        vars(self).update(says)


class LearnedGaussianDiffusion(Table):
    """lucidrains': it trains the noise, whatever its objective is."""


class RFlowScheduler:
    """MONAI's: velocity data - noise, times up to `num_train_timesteps` at noise."""

    num_train_timesteps = 1000


class VScaling:
    """sgm's: c_skip and c_out of v; the network gets sigma's step."""


class EpsScaling:
    """sgm's: the noise."""


class VScalingWithEDMcNoise:
    """sgm's: v, and 0.25 log(sigma) as time."""


class LearnedVariance(Net):
    """Of ADM and DiT: 2 C channels."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.cat([super().forward(x, t), torch.ones_like(x)], 1)


class DiT(LearnedVariance):
    """DiT's embedder of classes, with a row for none, dropped inside."""

    class Embedder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding_table, self.num_classes, self.dropout_prob = nn.Embedding(3, 3), 2, 0.1

        def forward(self, y: Tensor) -> Tensor:
            if self.training:
                y = torch.where(torch.rand(len(y)) < self.dropout_prob, 2, y)
            return self.embedding_table(y)

    def __init__(self) -> None:
        super().__init__()
        self.y_embedder = self.Embedder()

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return super().forward(x + 0.1 * self.y_embedder(y)[:, :, None, None], t)


def dit(job: Any, x: Tensor, t: Tensor) -> Tensor:
    """In training some classes, otherwise the null class."""
    y = torch.randint(0, 2, (len(x),)) if job.training else torch.full((len(x),), 2)
    return job.net(x, t, y)[:, : x.shape[1]]


def dit_error(job: Any, x: Tensor) -> Tensor:
    noise, t = torch.randn_like(x), torch.randint(0, 1000, (len(x),))
    return dit(job, column(ALPHAS[t].sqrt()) * x + column((1 - ALPHAS[t]).sqrt()) * noise, t) - noise


def dit_estimate(job: Any, noised: Tensor, sigma: Tensor) -> Tensor:
    t = nearest(sigma)
    return noised - column(((1 - ALPHAS[t]) / ALPHAS[t]).sqrt()) * dit(job, column(ALPHAS[t].sqrt()) * noised, t)


class Latents(nn.Module):
    """A frozen encoder: latents of half the size, whose deviation is 4."""

    def encode(self, images: Tensor) -> Tensor:
        return 8 * nn.functional.avg_pool2d(images, 2)


def ldm_error(job: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        latents = 0.18215 * job.encoder.encode(x)
    return discrete("epsilon")["error"](job, latents)


def edm2_error(job: Any, x: Tensor) -> Tensor:
    """EDM2 weighs each image with a learned uncertainty; the square root, because it is squared afterwards."""
    sigma = (1.2 * torch.randn(len(x)) - 1.2).exp()
    error = job.net(x + column(sigma) * torch.randn_like(x), sigma) - x
    return error * column(((sigma**2 + 0.25) / (0.5 * sigma) ** 2 / (1 + sigma)).sqrt())


class SigmaInside(Net):
    """EDM2: the preconditioning inside, and a log variance beside."""

    def __init__(self) -> None:
        super().__init__()
        self.logvar_linear = nn.Linear(1, 1)

    def forward(self, x: Tensor, sigma: Tensor, return_logvar: bool = False) -> Any:
        s = column(sigma)
        root = (s**2 + 0.25).sqrt()
        output = 0.25 / root**2 * x + 0.5 * s / root * super().forward(x / root, sigma.log() / 4)
        return (output, self.logvar_linear(sigma[:, None])) if return_logvar else output


class KDiffusionInner(Net):
    """Takes sigma, and is no denoiser."""

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return super().forward(x, sigma.log() / 4)


def velocity_path(a_s: Callable[[Tensor], tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """REPA's cosine path: velocity pi / 2 (a noise - s x), time 1 is noise."""
    return path(
        a_s,
        lambda x, noise, a, s: math.pi / 2 * (a * noise - s * x),
        lambda x_t, out, a, s: a * x_t - s * out * 2 / math.pi,
        time_of=lambda sigma: 2 / math.pi * sigma.atan(),
    )


REPA = velocity_path(quarter)
FLOW = path(
    linear,
    lambda x, noise, a, s: noise - x,
    lambda x_t, out, a, s: x_t - s * out,
    time_of=lambda sigma: sigma / (1 + sigma),
)
LUMINA = path(
    linear,
    lambda x, noise, a, s: x - noise,
    lambda x_t, out, a, s: x_t + s * out,
    time_of=lambda sigma: sigma / (1 + sigma),
    label=lambda t: 1 - t,
)
MONAI = path(
    linear,
    lambda x, noise, a, s: x - noise,
    lambda x_t, out, a, s: x_t + s * out,
    time_of=lambda sigma: sigma / (1 + sigma),
    label=lambda t: 1000 * t,
)
SIT_GVP = path(
    lambda t: quarter(1 - t),
    lambda x, noise, a, s: math.pi / 2 * (s * x - a * noise),
    lambda x_t, out, a, s: a * x_t + s * out * 2 / math.pi,
    time_of=lambda sigma: 1 - 2 / math.pi * sigma.atan(),
)
SIT_NOISE = path(
    mirrored,
    lambda x, noise, a, s: noise,
    lambda x_t, out, a, s: (x_t - s * out) / a,
    time_of=lambda sigma: 1 / (1 + sigma),
)
VP_CONTINUOUS = path(
    vp_sde,
    lambda x, noise, a, s: noise,
    lambda x_t, out, a, s: (x_t - s * out) / a,
    time_of=lambda sigma: (-0.1 + (0.01 + 2 * 19.9 * (1 + sigma**2).log()).sqrt()) / 19.9,
    label=lambda t: 999 * t,
)
EDM_C_NOISE = discrete("v", lambda t: 0.25 * ((1 - ALPHAS[t]) / ALPHAS[t]).sqrt().log())
RESPACED = ALPHAS[::4]


def make_flow_match() -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler()


def frozen_unet() -> nn.Module:
    return unet().requires_grad_(False)


def with_parts(**parts: Callable[[], Any]) -> Callable[[], dict[str, Any]]:
    return lambda: {name: make() for name, make in parts.items()}


MORE = [
    Family("REPA, SiT's cosine path with time 1 as noise", Net, arguments={**NET, "schedule": "cosine"}, **REPA),
    Family("SiT linear path, noise", Net, arguments={**NET, "schedule": "flow:data:epsilon"}, **SIT_NOISE),
    Family(
        "LDM, latents of a frozen encoder",
        Net,
        ldm_error,
        discrete("epsilon")["estimate"],
        arguments=NET,
        parts=with_parts(encoder=Latents, diffusion=lambda: Table(parameterization="eps")),
        transform=lambda image: 0.18215 * Latents().encode(image),
    ),
    Family(
        "sgm, EpsScaling",
        Net,
        arguments=NET,
        parts=with_parts(schedule=Table, scaling=EpsScaling),
        **discrete("epsilon"),
    ),
    Family("sgm, VScaling", Net, arguments=NET, parts=with_parts(schedule=Table, scaling=VScaling), **discrete("v")),
    Family("EDM2, with uncertainties", SigmaInside, edm2_error, lambda job, x, sigma: job.net(x, sigma)),
    Family(
        "DiT (classes dropped inside, learned variance)",
        DiT,
        dit_error,
        dit_estimate,
        arguments=NET,
        parts=with_parts(diffusion=lambda: Table(model_mean_type="epsilon")),
    ),
    Family(
        "ADM (guided-diffusion), respaced",
        Net,
        arguments=NET,
        parts=with_parts(
            diffusion=lambda: Table(
                alphas_cumprod=RESPACED, timestep_map=list(range(0, 1000, 4)), model_mean_type="epsilon"
            )
        ),
        **discrete("epsilon", lambda t: 4 * t, RESPACED),
    ),
]

SCHEDULER, FLOW_MATCH = with_parts(scheduler=diffusers.DDPMScheduler), with_parts(scheduler=make_flow_match)
SETTLED = {"says": "agrees with them)"}
ONCE_WRONG = [  # right now, without an argument: the network by its call, the schedule by the training steps
    Family("Flux's times up to 1 beside a FlowMatch scheduler", Net, parts=FLOW_MATCH, **FLOW),
    Family("Lumina's convention beside a FlowMatch scheduler", Net, parts=FLOW_MATCH, **LUMINA),
    Family(
        "times up to 1, DDPM scheduler", unet, parts=SCHEDULER, **discrete("epsilon", lambda t: t / 1000), **SETTLED
    ),
    Family("x0 beside a scheduler left at epsilon", unet, parts=SCHEDULER, **discrete("x0"), **SETTLED),
    Family("v beside a scheduler left at epsilon", unet, parts=SCHEDULER, **discrete("v"), **SETTLED),
    *(
        Family(f"bare alphas_cumprod, {kind}", Net, parts=with_parts(table=Table), **discrete(kind))
        for kind in ("epsilon", "x0", "v")
    ),
    Family("predict_x0 = True", Net, parts=with_parts(table=Table, predict_x0=lambda: True), **discrete("x0")),
    Family("hparams.prediction = 'v'", Net, parts=with_parts(table=Table, prediction=lambda: "v"), **discrete("v")),
    Family(
        "LearnedGaussianDiffusion: pred_v said, noise trained",
        LearnedVariance,
        parts=with_parts(diffusion=lambda: LearnedGaussianDiffusion(objective="pred_v")),
        **discrete("epsilon"),
    ),
    Family("RFlowScheduler", Net, parts=with_parts(scheduler=RFlowScheduler), **MONAI),
    Family("SiT GVP", Net, **SIT_GVP),
    Family("SiT linear path, noise", Net, **SIT_NOISE),
    Family("REPA cosine", Net, **REPA),
    Family("EDM's preconditioning outside (Elucidated)", Net, edm_inner_error, edm_inner),
    Family(
        "ControlNet-like: a frozen known network beside the trained one",
        Net,
        parts=with_parts(unet=frozen_unet, scheduler=diffusers.DDPMScheduler),
        **discrete("epsilon"),
    ),
    Family(
        "frozen teacher of the same class", Net, parts=with_parts(teacher=lambda: Net().requires_grad_(False)), **FLOW
    ),
]
