"""Jobs as people write them, one for each family: how it trains, its own estimate of the clean image, what to give."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import diffusers
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

SMALL = {"sample_size": 8, "block_out_channels": (8,), "layers_per_block": 1, "norm_num_groups": 4}
BLOCKS = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "add_attention": False}
CROSS = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)}


class Net(nn.Module):
    """A network `net(x, t)` of no library."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 3, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(16, 16, 1)) for _ in range(3))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        hidden = self.first(x) + 0.01 * t.to(x).reshape(-1, 1, 1, 1)
        for block in self.blocks:
            hidden = torch.tanh(block(hidden))
        return self.last(hidden)


class SigmaNet(Net):
    """EDM's call `net(x, sigma)`, everything inside."""

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        s = column(sigma)
        return (0.25 * x + 0.5 * s * super().forward(x / (s**2 + 0.25).sqrt(), sigma.log() / 4)) / (s**2 + 0.25)


class ScoreNet(Net):
    """NCSN++ with `scale_by_sigma`: the output is divided by sigma."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return super().forward(x, t) / column(t)


def column(values: Tensor) -> Tensor:
    return values.float().reshape(-1, 1, 1, 1)


Loss = Callable[[Any, Tensor], Tensor]
Estimate = Callable[[Any, Tensor, Tensor], Tensor]  # of the job, noised images and sigmas


@dataclass(frozen=True, eq=False)
class Family:
    """`error` is output minus target of one batch; `found` is what the monitor is to say it uses."""

    name: str
    net: Callable[[], nn.Module]
    error: Loss
    estimate: Estimate
    arguments: dict[str, Any] = field(default_factory=dict)
    parts: Callable[[], dict[str, Any]] = dict
    sigmas: tuple[float, ...] = (0.05, 0.3, 1.0, 3.0)
    says: str = "confirmed on 3 training steps"
    shape: tuple[int, ...] = (3, 8, 8)
    transform: Callable[[Tensor], Tensor] | None = None  # of the probe set's images
    is_slow: bool = False
    is_hidden: bool = False  # whether network and schedule cannot be found by the training steps

    @property
    def needed(self) -> dict[str, Any]:
        """The arguments that cannot be left out."""
        found = () if self.is_hidden else ("net", "schedule")
        return {name: value for name, value in self.arguments.items() if name not in found}


class Job(pl.LightningModule):
    """Trains `net` of a family with a squared error."""

    def __init__(self, family: Family) -> None:
        super().__init__()
        self.net, self._error = family.net(), family.error
        for name, part in family.parts().items():
            setattr(self, name, part)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, self.labels = batch
        return self._error(self, images).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.net.parameters(), 1e-3)


def ddpm(prediction: str, call: Callable[[nn.Module, Tensor, Tensor], Tensor]) -> dict[str, Any]:
    """A diffusers job: the scheduler adds the noise, and its own step gives the estimate."""

    def error(job: Any, x: Tensor) -> Tensor:
        noise, t = torch.randn_like(x), torch.randint(0, 1000, (len(x),))
        target = {"epsilon": noise, "sample": x, "v_prediction": job.scheduler.get_velocity(x, noise, t)}[prediction]
        return call(job.net, job.scheduler.add_noise(x, noise, t), t) - target

    def estimate(job: Any, noised: Tensor, sigma: Tensor) -> Tensor:
        alphas = job.scheduler.alphas_cumprod
        rows = []
        for image, level in zip(noised, sigma, strict=True):
            t = (((1 - alphas) / alphas).sqrt().log() - level.log()).abs().argmin()
            scaled = image[None] / (1 + level**2).sqrt()
            rows.append(job.scheduler.step(call(job.net, scaled, t[None]), t, scaled).pred_original_sample)
        return torch.cat(rows)

    def parts() -> dict[str, Any]:
        return {"scheduler": diffusers.DDPMScheduler(prediction_type=prediction, clip_sample=False)}

    return {"error": error, "estimate": estimate, "parts": parts}


def path(
    a_s: Callable[[Tensor], tuple[Tensor, Tensor]],
    target: Callable[..., Tensor],
    estimate: Callable[..., Tensor],
    *,
    time_of: Callable[[Tensor], Tensor],
    label: Callable[[Tensor], Tensor] = lambda t: t,
    draw: Callable[[int], Tensor] = lambda n: 1e-3 + 0.998 * torch.rand(n),
) -> dict[str, Any]:
    """A continuous job in its own time t: `target(x, noise, a, s)`, and `estimate(x_t, output, a, s)` of its paper."""

    def error(job: Any, x: Tensor) -> Tensor:
        noise, t = torch.randn_like(x), draw(len(x))
        a, s = map(column, a_s(t))
        return job.net(a * x + s * noise, label(t)) - target(x, noise, a, s)

    def own(job: Any, noised: Tensor, sigma: Tensor) -> Tensor:
        t = time_of(sigma.double())
        a, s = map(column, a_s(t))
        x_t = a * noised
        return estimate(x_t, job.net(x_t, label(t).float()), a, s)

    return {"error": error, "estimate": own}


def quarter(t: Tensor) -> tuple[Tensor, Tensor]:
    return (math.pi / 2 * t).cos(), (math.pi / 2 * t).sin()


def vp_sde(t: Tensor) -> tuple[Tensor, Tensor]:
    a = (-0.25 * t**2 * 19.9 - 0.05 * t).exp()
    return a, (1 - a**2).sqrt()


def sub_vp_sde(t: Tensor) -> tuple[Tensor, Tensor]:
    a, _ = vp_sde(t)
    return a, 1 - a**2


def bisect(a_s: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Callable[[Tensor], Tensor]:
    """The time at which s / a is sigma, without a formula."""

    def time_of(sigma: Tensor) -> Tensor:
        low, high = torch.zeros_like(sigma), torch.ones_like(sigma)
        for _ in range(60):
            middle = (low + high) / 2
            a, s = a_s(middle)
            low, high = torch.where(s / a < sigma, middle, low), torch.where(s / a < sigma, high, middle)
        return middle

    return time_of


def edm_inner_error(job: Any, x: Tensor) -> Tensor:
    sigma = (1.2 * torch.randn(len(x)) - 1.2).exp()
    return edm_inner(job, x + column(sigma) * torch.randn_like(x), sigma) - x


def edm_inner(job: Any, noised: Tensor, sigma: Tensor) -> Tensor:
    s = column(sigma)
    root = (s**2 + 0.25).sqrt()
    return 0.25 / root**2 * noised + 0.5 * s / root * job.net(noised / root, sigma.log() / 4)


def edm_error(job: Any, x: Tensor) -> Tensor:
    sigma = (1.2 * torch.randn(len(x)) - 1.2).exp()
    return job.net(x + column(sigma) * torch.randn_like(x), sigma) - x


class GaussianDiffusion:
    """guided-diffusion's attributes, and its rescaled times."""

    rescale_timesteps = True

    def __init__(self) -> None:
        self.alphas_cumprod = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 4000, dtype=torch.float64) / 4, 0).numpy()
        self.model_mean_type = type("EPSILON", (), {"name": "EPSILON"})()


def adm_error(job: Any, x: Tensor) -> Tensor:
    noise, t = torch.randn_like(x), torch.randint(0, 4000, (len(x),))
    alphas = column(torch.from_numpy(job.diffusion.alphas_cumprod)[t])
    return job.net(alphas.sqrt() * x + (1 - alphas).sqrt() * noise, t.float() * (1000.0 / 4000)) - noise


def adm_estimate(job: Any, noised: Tensor, sigma: Tensor) -> Tensor:
    alphas = torch.from_numpy(job.diffusion.alphas_cumprod)
    t = (((1 - alphas) / alphas).sqrt().log() - sigma.double().log()[:, None]).abs().argmin(1)
    x_t = noised / (1 + column(sigma) ** 2).sqrt()
    return noised - column(sigma) * job.net(x_t, t.float() / 4)


def unet(**options: Any) -> nn.Module:
    return diffusers.UNet2DModel(**SMALL, **BLOCKS, **options)


def text_unet() -> nn.Module:
    return diffusers.UNet2DConditionModel(
        **SMALL, **CROSS, cross_attention_dim=6, attention_head_dim=4, in_channels=3, out_channels=3
    )


def sample(net: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    return net(x, t).sample


EMPTY = torch.ones(1, 4, 6)


def with_text(net: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    return net(x, t, encoder_hidden_states=EMPTY.expand(len(x), -1, -1)).sample


def velocity(x: Tensor, noise: Tensor, a: Tensor, s: Tensor) -> Tensor:
    return noise - x


def of_velocity(x_t: Tensor, out: Tensor, a: Tensor, s: Tensor) -> Tensor:
    return x_t - s * out


def to_data(x: Tensor, noise: Tensor, a: Tensor, s: Tensor) -> Tensor:
    return x - noise


def of_velocity_to_data(x_t: Tensor, out: Tensor, a: Tensor, s: Tensor) -> Tensor:
    return x_t + s * out


def score_sde(a_s: Callable[[Tensor], tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """The noise is predicted, and the network gets 999 t."""
    return path(
        a_s,
        lambda x, noise, a, s: noise,
        lambda x_t, out, a, s: (x_t - s * out) / a,
        time_of=bisect(a_s),
        label=lambda t: 999 * t,
    )


def linear(t: Tensor) -> tuple[Tensor, Tensor]:
    return 1 - t, t


def mirrored(t: Tensor) -> tuple[Tensor, Tensor]:
    return t, 1 - t


NET = {"net": "net"}
FAMILIES = [
    *(
        Family(f"diffusers UNet2DModel, DDPM {kind}", unet, **ddpm(kind, sample))
        for kind in ("epsilon", "sample", "v_prediction")
    ),
    Family(
        "diffusers UNet2DConditionModel (text)",
        text_unet,
        arguments={"condition": {"encoder_hidden_states": EMPTY}},
        **ddpm("epsilon", with_text),
    ),
    Family(
        "EDM, EDM2, k-diffusion: the network denoises", SigmaNet, edm_error, lambda job, x, sigma: job.net(x, sigma)
    ),
    Family(
        "EDM, the preconditioning outside of the network",
        Net,
        edm_inner_error,
        edm_inner,
        arguments={**NET, "schedule": "edm:inner"},
    ),
    Family(
        "ADM (guided-diffusion), rescaled times",
        Net,
        adm_error,
        adm_estimate,
        arguments=NET,
        parts=lambda: {"diffusion": GaussianDiffusion()},
    ),
    Family(
        "minRF, rectified flow (time 1 is noise)",
        Net,
        arguments={**NET, "schedule": "flow"},
        **path(linear, velocity, of_velocity, time_of=lambda sigma: sigma / (1 + sigma)),
    ),
    Family(
        "flow with times up to 1000",
        Net,
        arguments={**NET, "schedule": "flow:x1000"},
        **path(linear, velocity, of_velocity, time_of=lambda sigma: sigma / (1 + sigma), label=lambda t: 1000 * t),
    ),
    Family(
        "SiT linear, Meta flow_matching, torchcfm (time 1 is data)",
        Net,
        arguments={**NET, "schedule": "flow:data"},
        **path(
            mirrored,
            to_data,
            of_velocity_to_data,
            time_of=lambda sigma: 1 / (1 + sigma),
        ),
    ),
    Family(
        "MONAI rectified flow (velocity data - noise, noise at the highest time)",
        Net,
        arguments={**NET, "schedule": "flow:to_data:x1000"},
        **path(
            linear,
            to_data,
            of_velocity_to_data,
            time_of=lambda sigma: sigma / (1 + sigma),
            label=lambda t: 1000 * t,
        ),
    ),
    Family(
        "SiT GVP (velocity of the cosine path, time 1 is data)",
        Net,
        arguments={**NET, "schedule": "cosine:data"},
        **path(
            lambda t: quarter(1 - t),
            lambda x, noise, a, s: math.pi / 2 * (s * x - a * noise),
            lambda x_t, out, a, s: a * x_t + s * out * 2 / math.pi,
            time_of=lambda sigma: 1 - 2 / math.pi * sigma.atan(),
        ),
    ),
    Family(
        "stable-audio, v on the cosine path",
        Net,
        arguments={**NET, "schedule": "cosine:v"},
        **path(
            quarter,
            lambda x, noise, a, s: a * noise - s * x,
            lambda x_t, out, a, s: a * x_t - s * out,
            time_of=lambda sigma: 2 / math.pi * sigma.atan(),
        ),
    ),
    Family(
        "score_sde VP, U-ViT (continuous times)",
        Net,
        arguments={**NET, "schedule": "vpsde"},
        **score_sde(vp_sde),
    ),
    Family(
        "score_sde sub-VP",
        Net,
        arguments={**NET, "schedule": "subvp"},
        **score_sde(sub_vp_sde),
    ),
    Family(
        "score_sde VE (the network gets sigma, and puts out the score)",
        ScoreNet,
        arguments={**NET, "schedule": "ve"},
        **path(
            lambda t: (torch.ones_like(t), t),
            lambda x, noise, a, s: -noise / s,
            lambda x_t, out, a, s: x_t + s**2 * out,
            time_of=lambda sigma: sigma,
            draw=lambda n: (math.log(0.05) + torch.rand(n) * math.log(100)).exp(),
        ),
    ),
]


def table(families: Sequence[Family]) -> str:
    """The families, what each needs, what it may give beside, and what the training steps say, in Markdown."""
    lines = ["| family | give | to have it from the start | its training steps |", "|---|---|---|---|"]
    for family in families:
        beside = {name: value for name, value in family.arguments.items() if name not in family.needed}
        needed = _given(family.needed) + ["`transform=`"] * (family.transform is not None)
        state = next((word for word in ("confirmed", "not verified") if family.says.startswith(word)), "settled")
        cells = (family.name, ", ".join(needed) or "nothing", ", ".join(_given(beside)), state)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _given(arguments: dict[str, Any]) -> list[str]:
    return [f"`{name}={_text(value)}`" for name, value in arguments.items()]


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, str) else "{...}"
