"""Networks and schedulers of diffusers, trained as its own scripts do, and sampled as its own pipelines do."""

from collections.abc import Callable
from typing import Any

import diffusers_networks as tiny
import torch
from families import NET, Family, ddpm, unet
from torch import Tensor, nn

Call = Callable[[nn.Module, Tensor, Tensor], Tensor]


def spread(condition: dict[str, Any], num: int) -> dict[str, Any]:
    """A condition of one image for a batch; positions have no batch axis."""
    result = dict(condition)
    for name, value in condition.items():
        if isinstance(value, dict):
            result[name] = spread(value, num)
        elif isinstance(value, Tensor) and len(value) == 1:
            result[name] = value.expand(num, *value.shape[1:])
    return result


def calling(condition: dict[str, Any], *, scale: float = 1.0, mirrored: bool = False, sign: float = 1.0) -> Call:
    """The call of a pipeline: times up to 1000 times `scale`, or 1 - t / 1000; the output times `sign`."""

    def call(net: nn.Module, x: Tensor, t: Tensor) -> Tensor:
        time = 1 - t / 1000 if mirrored else t * scale
        return sign * net(x, timestep=time, **spread(condition, len(x)), return_dict=False)[0]

    return call


def flow_match(
    call: Call, *, is_preconditioned: bool = False, training_call: Call | None = None, **options: Any
) -> dict[str, Any]:
    """A job with the FlowMatch scheduler; the estimate is the scheduler's own step to the clean end."""

    def error(job: Any, x: Tensor) -> Tensor:
        noise, which = torch.randn_like(x), torch.randint(0, 1000, (len(x),))
        t = job.scheduler.timesteps[which]
        s = job.scheduler.sigmas[which].reshape(-1, *[1] * (x.ndim - 1))
        s = 1 - s if options.get("invert_sigmas") else s  # Mochi: sigma 1 is data
        noised = (1 - s) * x + s * noise
        out = (training_call or call)(job.net, noised, t)
        if is_preconditioned:  # train_dreambooth_sd3.py trains the clean image so
            return noised - s * out - x
        return out - (x - noise if options.get("invert_sigmas") else noise - x)

    def estimate(job: Any, noised: Tensor, sigma: Tensor) -> Tensor:
        rows = []
        for image, s in zip(noised, sigma / (1 + sigma), strict=True):
            scheduler = tiny.flow_scheduler(**{**options, "shift": 1.0})
            scheduler.set_timesteps(sigmas=s[None].numpy())
            x, t = (1 - s) * image[None], scheduler.timesteps
            rows.append(scheduler.step(call(job.net, x, t), t[0], x).prev_sample)
        return torch.cat(rows)

    return {
        "error": error,
        "estimate": estimate,
        "parts": lambda: {"scheduler": tiny.flow_scheduler(**options)},
    }


def learned_variance(condition: dict[str, Any], *, has_classes: bool = False) -> dict[str, Any]:
    """Half of the output is the noise, the other half is the variance, with a loss of its own."""

    def error(job: Any, x: Tensor) -> Tensor:
        noise, t = torch.randn_like(x), torch.randint(0, 1000, (len(x),))
        call = calling({"class_labels": job.labels} if has_classes else condition)
        out = call(job.net, job.scheduler.add_noise(x, noise, t), t)
        return torch.cat([out[:, : x.shape[1]] - noise, out[:, x.shape[1] :] + 1], 1)

    both = calling(condition)
    return {**ddpm("epsilon", lambda net, x, t: both(net, x, t)[:, : x.shape[1]]), "error": error}


def pack(latents: Tensor) -> Tensor:
    """(N, C, 8, 8) as the tokens of Flux, (N, 16, 4 C), each with the 2 x 2 pixels of all channels."""
    return (
        latents.unflatten(3, (4, 2)).unflatten(2, (4, 2)).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2).flatten(2)
    )


def unpack(tokens: Tensor) -> Tensor:
    return tokens.unflatten(2, (-1, 2, 2)).unflatten(1, (4, 4)).permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def packing(call: Call) -> Call:
    """The training step has latents, as in train_dreambooth_flux.py."""
    return lambda net, x, t: unpack(call(net, pack(x), t))


class Packed(nn.Module):
    """A part of the job that packs, so that all else has latents."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = tiny.flux()

    def forward(self, x: Tensor, timestep: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        return (packing(calling(tiny.FLUX))(self.transformer, x, timestep),)


class Listed(nn.Module):
    """A part of the job that calls Z-Image, which takes lists of images and of prompts."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = tiny.z_image()

    def forward(self, x: Tensor, timestep: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        images, prompts = list(x.unsqueeze(2)), [tiny.TEXT[0]] * len(x)
        return (torch.stack(self.transformer(images, timestep, prompts, return_dict=False)[0]).squeeze(2),)


def half(call: Call) -> Call:
    """Without the learned variance."""
    return lambda net, x, t: call(net, x, t)[:, : x.shape[1]]


def flow(
    name: str, net: Callable[[], nn.Module], condition: dict[str, Any], *, shift: float = 1.0, **how: Any
) -> Family:
    """A transformer with the FlowMatch scheduler; `how` it is called, and the fields of `Family`."""
    fields = {key: how.pop(key) for key in ("shape", "says", "is_slow") if key in how}
    arguments = {**NET, "condition": condition}
    return Family(name, net, arguments=arguments, **fields, **flow_match(calling(condition, **how), shift=shift))


TOKENS = {"shape": (16, 12), "scale": 1e-3}
VIDEO = {"shape": (3, 2, 8, 8)}
SLOW = {"is_slow": True}
SD3 = {**tiny.PROMPT, "pooled_projections": tiny.POOLED}
FLUX = calling(tiny.FLUX, scale=1e-3)
DIFFUSERS = [
    Family(
        "diffusers UNet2DConditionModel of SDXL",
        tiny.sdxl,
        arguments={"condition": tiny.SDXL},
        **ddpm("epsilon", calling(tiny.SDXL)),
    ),
    Family(
        "diffusers DiTTransformer2DModel (classes, learned variance)",
        tiny.dit,
        **learned_variance({"class_labels": torch.tensor([10])}, has_classes=True),
    ),
    Family(
        "diffusers PixArtTransformer2DModel (learned variance)",
        tiny.pixart,
        arguments={**NET, "condition": tiny.PIXART},
        **learned_variance(tiny.PIXART),
    ),
    Family(
        "diffusers UNet1DModel, DDPM epsilon",
        tiny.unet1d,
        arguments=NET,
        shape=(3, 32),
        **ddpm("epsilon", calling({})),
    ),
    Family(
        "diffusers SD3Transformer2DModel",
        tiny.sd3,
        arguments={**NET, "condition": SD3},
        **flow_match(calling(SD3), is_preconditioned=True, shift=3.0),
    ),
    flow("diffusers SanaTransformer2DModel", tiny.sana, tiny.PROMPT, shift=3.0),
    flow(
        "diffusers SanaTransformer2DModel with `timestep_scale=0.001`",
        lambda: tiny.sana(timestep_scale=1e-3),
        tiny.PROMPT,
        scale=1e-3,
        says="schedule='flow' agrees with them)",
    ),
    flow("diffusers AuraFlowTransformer2DModel", tiny.auraflow, tiny.PROMPT, scale=1e-3),
    flow("diffusers CogView4Transformer2DModel", tiny.cogview4, tiny.COGVIEW, **SLOW),
    flow("diffusers Lumina2Transformer2DModel", tiny.lumina2, tiny.LUMINA2, mirrored=True, sign=-1),
    Family(
        "diffusers LuminaNextDiT2DModel (learned variance)",
        tiny.lumina_next,
        arguments={**NET, "condition": tiny.LUMINA},
        is_slow=True,
        **flow_match(half(calling(tiny.LUMINA, mirrored=True, sign=-1))),
    ),
    flow("diffusers WanTransformer3DModel (video)", tiny.wan, tiny.PROMPT, shift=3.0, **VIDEO),
    flow("diffusers SkyReelsV2Transformer3DModel (video)", tiny.skyreels, tiny.PROMPT, **VIDEO, **SLOW),
    flow("diffusers HunyuanVideoTransformer3DModel (video)", tiny.hunyuan, tiny.HUNYUAN, shift=7.0, **VIDEO, **SLOW),
    Family(
        "diffusers MochiTransformer3DModel (video, invert_sigmas)",
        tiny.mochi,
        arguments={**NET, "condition": tiny.MOCHI},
        is_slow=True,
        **VIDEO,
        **flow_match(calling(tiny.MOCHI), invert_sigmas=True),
    ),
    flow("diffusers LTXVideoTransformer3DModel, packed videos", tiny.ltx, tiny.LTX, shape=(24, 6), **SLOW),
    flow("diffusers FluxTransformer2DModel, packed latents", tiny.flux, tiny.FLUX, shift=3.0, **TOKENS),
    Family(
        "diffusers FluxTransformer2DModel, the training step packs its latents",
        tiny.flux,
        arguments={**NET, "condition": tiny.FLUX},
        transform=lambda image: pack(image[None])[0],
        **flow_match(FLUX, training_call=packing(FLUX), shift=3.0),
    ),
    Family(
        "diffusers FluxTransformer2DModel inside a module of the job that packs its latents",
        Packed,
        arguments={**NET, "schedule": "flow"},
        **flow_match(calling({}, scale=1e-3), shift=3.0),
    ),
    flow("diffusers Flux2Transformer2DModel, packed latents", tiny.flux2, tiny.FLUX2, **TOKENS, **SLOW),
    flow("diffusers ChromaTransformer2DModel, packed latents", tiny.chroma, tiny.CHROMA, **TOKENS, **SLOW),
    flow("diffusers QwenImageTransformer2DModel, packed latents", tiny.qwen, tiny.QWEN, **TOKENS, **SLOW),
    flow("diffusers OvisImageTransformer2DModel, packed latents", tiny.ovis, tiny.CHROMA, **TOKENS, **SLOW),
    flow("diffusers LongCatImageTransformer2DModel, packed latents", tiny.longcat, tiny.CHROMA, **TOKENS, **SLOW),
    Family(
        "diffusers ZImageTransformer2DModel inside a module of the job that makes lists",
        Listed,
        arguments={**NET, "schedule": "flow:data"},
        is_slow=True,
        **flow_match(calling({}, mirrored=True, sign=-1), shift=3.0),
    ),
    Family(
        "diffusers UNet2DModel, FlowMatch, times up to 1000",
        unet,
        arguments={"schedule": "flow:x1000"},
        **flow_match(calling({})),
    ),
    Family(
        "diffusers UNet2DModel, FlowMatch, times up to 1",
        unet,
        arguments={"schedule": "flow"},
        **flow_match(calling({}, scale=1e-3)),
    ),
    Family("diffusers UNet2DModel, FlowMatch with invert_sigmas", unet, **flow_match(calling({}), invert_sigmas=True)),
]
