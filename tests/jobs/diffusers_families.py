"""Networks and schedulers of diffusers, trained as its own scripts do, and sampled as its own pipelines do."""

from collections.abc import Callable
from typing import Any

import diffusers
import torch
from families import CROSS, NET, SMALL, Family, ddpm, unet
from torch import Tensor, nn

Call = Callable[[nn.Module, Tensor, Tensor], Tensor]
TEXT, POOLED = torch.linspace(-1, 1, 24).view(1, 4, 6), torch.linspace(0, 1, 5).view(1, 5)
MASK = torch.ones(1, 4, dtype=torch.bool)
HEADS = {"num_attention_heads": 1, "attention_head_dim": 12, "num_layers": 3}


def spread(condition: dict[str, Any], num: int) -> dict[str, Any]:
    """A condition of one image for a batch; the positions of Flux have no batch axis."""
    result = dict(condition)
    for name, value in condition.items():
        if isinstance(value, dict):
            result[name] = spread(value, num)
        elif not name.endswith(("img_ids", "txt_ids")):
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
            scheduler = diffusers.FlowMatchEulerDiscreteScheduler(**{**options, "shift": 1.0})
            scheduler.set_timesteps(sigmas=[float(s)])
            x, t = (1 - s) * image[None], scheduler.timesteps
            rows.append(scheduler.step(call(job.net, x, t), t[0], x).prev_sample)
        return torch.cat(rows)

    return {
        "error": error,
        "estimate": estimate,
        "parts": lambda: {"scheduler": diffusers.FlowMatchEulerDiscreteScheduler(**options)},
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


def sdxl() -> nn.Module:
    return diffusers.UNet2DConditionModel(
        **SMALL, **CROSS, in_channels=3, out_channels=3, cross_attention_dim=6, attention_head_dim=4,
        addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=5 + 6 * 4,
    )  # fmt: skip


def dit() -> nn.Module:
    return diffusers.DiTTransformer2DModel(
        **HEADS, sample_size=8, in_channels=3, out_channels=6, patch_size=4, norm_num_groups=1, num_embeds_ada_norm=10
    )


def pixart() -> nn.Module:
    return diffusers.PixArtTransformer2DModel(
        **HEADS, sample_size=8, in_channels=3, out_channels=6, patch_size=4, norm_num_groups=1, cross_attention_dim=12,
        caption_channels=6, use_additional_conditions=True,
    )  # fmt: skip


def sd3() -> nn.Module:
    return diffusers.SD3Transformer2DModel(
        **HEADS, sample_size=8, in_channels=3, out_channels=3, patch_size=4, joint_attention_dim=6,
        caption_projection_dim=12, pooled_projection_dim=5, pos_embed_max_size=4,
    )  # fmt: skip


def sana(**options: Any) -> nn.Module:
    return diffusers.SanaTransformer2DModel(
        **HEADS, sample_size=8, in_channels=3, out_channels=3, patch_size=2, num_cross_attention_heads=1,
        cross_attention_head_dim=12, cross_attention_dim=12, caption_channels=6, **options,
    )  # fmt: skip


def lumina2() -> nn.Module:
    return diffusers.Lumina2Transformer2DModel(
        sample_size=8, in_channels=3, hidden_size=12, num_layers=3, num_refiner_layers=1, num_attention_heads=1,
        num_kv_heads=1, multiple_of=8, axes_dim_rope=(4, 4, 4), axes_lens=(16, 16, 16), cap_feat_dim=6,
    )  # fmt: skip


def auraflow() -> nn.Module:
    return diffusers.AuraFlowTransformer2DModel(
        sample_size=8, in_channels=3, out_channels=3, patch_size=4, num_mmdit_layers=1, num_single_dit_layers=3,
        attention_head_dim=12, num_attention_heads=1, joint_attention_dim=6, caption_projection_dim=12,
        pos_embed_max_size=4,
    )  # fmt: skip


def wan() -> nn.Module:
    return diffusers.WanTransformer3DModel(
        **HEADS, in_channels=3, out_channels=3, text_dim=6, freq_dim=8, ffn_dim=12, rope_max_seq_len=16
    )


def flux() -> nn.Module:
    return diffusers.FluxTransformer2DModel(
        in_channels=12, num_layers=1, num_single_layers=3, attention_head_dim=12, num_attention_heads=1,
        joint_attention_dim=6, pooled_projection_dim=5, axes_dims_rope=(4, 4, 4),
    )  # fmt: skip


def pack(latents: Tensor) -> Tensor:
    """(N, C, H, W) as the tokens of Flux, (N, H / 2 * W / 2, 4 C)."""
    return diffusers.FluxPipeline._pack_latents(latents, *latents.shape)


def unpack(tokens: Tensor) -> Tensor:
    return diffusers.FluxPipeline._unpack_latents(tokens, 8, 8, vae_scale_factor=1)


def packing(call: Call) -> Call:
    """The training step has latents, as in train_dreambooth_flux.py."""
    return lambda net, x, t: unpack(call(net, pack(x), t))


class Packed(nn.Module):
    """A part of the job that packs, so that all else has latents."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = flux()

    def forward(self, x: Tensor, timestep: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        return (packing(calling(FLUX))(self.transformer, x, timestep),)


def unet1d() -> nn.Module:
    return diffusers.UNet1DModel(
        sample_size=32, in_channels=3, out_channels=3, down_block_types=("DownResnetBlock1D",) * 2,
        up_block_types=("UpResnetBlock1D",), mid_block_type="MidResTemporalBlock1D", out_block_type="OutConv1DBlock",
        block_out_channels=(8, 16), layers_per_block=1, time_embedding_type="positional", use_timestep_embedding=True,
        flip_sin_to_cos=False, freq_shift=1.0, act_fn="mish",
    )  # fmt: skip


PROMPT = {"encoder_hidden_states": TEXT}
SDXL = {**PROMPT, "added_cond_kwargs": {"text_embeds": POOLED, "time_ids": torch.tensor([[8.0, 8, 0, 0, 8, 8]])}}
PIXART = {
    **PROMPT,
    "added_cond_kwargs": {"resolution": torch.tensor([[8.0, 8.0]]), "aspect_ratio": torch.tensor([[1.0]])},
}
FLUX = {
    **PROMPT,
    "pooled_projections": POOLED,
    "img_ids": torch.cartesian_prod(torch.zeros(1), torch.arange(4.0), torch.arange(4.0)),
    "txt_ids": torch.zeros(4, 3),
}


DIFFUSERS = [
    Family(
        "diffusers UNet2DConditionModel of SDXL",
        sdxl,
        arguments={"condition": SDXL},
        **ddpm("epsilon", calling(SDXL)),
    ),
    Family(
        "diffusers DiTTransformer2DModel (classes, learned variance)",
        dit,
        **learned_variance({"class_labels": torch.tensor([10])}, has_classes=True),
    ),
    Family(
        "diffusers PixArtTransformer2DModel (learned variance)",
        pixart,
        arguments={**NET, "condition": PIXART},
        **learned_variance(PIXART),
    ),
    Family("diffusers UNet1DModel, DDPM epsilon", unet1d, arguments=NET, shape=(3, 32), **ddpm("epsilon", calling({}))),
    Family(
        "diffusers SD3Transformer2DModel",
        sd3,
        arguments={**NET, "condition": {**PROMPT, "pooled_projections": POOLED}},
        **flow_match(calling({**PROMPT, "pooled_projections": POOLED}), is_preconditioned=True, shift=3.0),
    ),
    Family(
        "diffusers SanaTransformer2DModel",
        sana,
        arguments={**NET, "condition": PROMPT},
        **flow_match(calling(PROMPT), shift=3.0),
    ),
    Family(
        "diffusers WanTransformer3DModel (video)",
        wan,
        arguments={**NET, "condition": PROMPT},
        shape=(3, 2, 8, 8),
        **flow_match(calling(PROMPT), shift=3.0),
    ),
    Family(
        "diffusers AuraFlowTransformer2DModel",
        auraflow,
        arguments={**NET, "condition": PROMPT},
        **flow_match(calling(PROMPT, scale=1e-3)),
    ),
    Family(
        "diffusers Lumina2Transformer2DModel",
        lumina2,
        arguments={**NET, "condition": {**PROMPT, "encoder_attention_mask": MASK}},
        **flow_match(calling({**PROMPT, "encoder_attention_mask": MASK}, mirrored=True, sign=-1)),
    ),
    Family(
        "diffusers FluxTransformer2DModel, the dataset has packed latents",
        flux,
        arguments={**NET, "condition": FLUX},
        shape=(16, 12),
        **flow_match(calling(FLUX, scale=1e-3), shift=3.0),
    ),
    Family(
        "diffusers FluxTransformer2DModel, the training step packs (the probe set packs with `transform=`)",
        flux,
        arguments={**NET, "condition": FLUX},
        transform=lambda image: pack(image[None])[0],
        says="not verified (the loss is no squared error of a known target, or the noise is not seen)",
        **flow_match(calling(FLUX, scale=1e-3), training_call=packing(calling(FLUX, scale=1e-3)), shift=3.0),
    ),
    Family(
        "diffusers FluxTransformer2DModel inside a module of the job that packs latents",
        Packed,
        arguments={**NET, "schedule": "flow"},
        **flow_match(calling({}, scale=1e-3), shift=3.0),
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
