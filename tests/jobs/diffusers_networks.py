"""Transformers and U-Nets of diffusers in their tiniest configuration, and what they get where there is no prompt."""

import inspect
from typing import Any

import diffusers
import pytest
import torch
from diffusers.models.embeddings import get_2d_rotary_pos_embed_lumina
from families import CROSS, SMALL
from torch import nn

HEADS = {"num_attention_heads": 1, "attention_head_dim": 12, "num_layers": 3}
TEXT, POOLED = torch.linspace(-1, 1, 24).view(1, 4, 6), torch.linspace(0, 1, 5).view(1, 5)
MASK = torch.ones(1, 4, dtype=torch.bool)
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
FLUX2 = {
    **PROMPT,
    "img_ids": torch.cartesian_prod(*(torch.arange(float(n)) for n in (1, 4, 4, 1)))[None],
    "txt_ids": torch.zeros(1, 4, 4),
}
CHROMA = {name: value for name, value in FLUX.items() if name != "pooled_projections"}
QWEN = {**PROMPT, "encoder_hidden_states_mask": MASK, "img_shapes": [[(1, 4, 4)]]}
LUMINA2 = {**PROMPT, "encoder_attention_mask": MASK}
LUMINA = {
    **PROMPT,
    "encoder_mask": MASK,
    "cross_attention_kwargs": {},
    "image_rotary_emb": get_2d_rotary_pos_embed_lumina(12, 8, 8),
}
HUNYUAN = {**PROMPT, "encoder_attention_mask": MASK, "pooled_projections": POOLED, "guidance": torch.tensor([6000.0])}
COGVIEW = {
    **PROMPT,
    **{name: torch.tensor([[8.0, 8.0]]) for name in ("original_size", "target_size", "crop_coords")},
}
MOCHI = {"encoder_hidden_states": torch.linspace(-1, 1, 32).view(1, 4, 8), "encoder_attention_mask": MASK}
LTX = {**PROMPT, "encoder_attention_mask": MASK, "num_frames": 2, "height": 3, "width": 4}


def network(name: str, **options: Any) -> nn.Module:
    """One of a class of diffusers; the test is skipped where this version has none of that name."""
    if not hasattr(diffusers, name):
        pytest.skip(f"diffusers {diffusers.__version__} has no {name}")
    made: nn.Module = getattr(diffusers, name)(**options)
    return made


def flow_scheduler(**options: Any) -> Any:
    """The FlowMatch scheduler; the test is skipped where this version lacks an option."""
    kind = diffusers.FlowMatchEulerDiscreteScheduler
    if lacking := set(options) - set(inspect.signature(kind).parameters):
        pytest.skip(f"the scheduler of diffusers {diffusers.__version__} has no {', '.join(lacking)}")
    return kind(**options)


def sdxl() -> nn.Module:
    return network(
        "UNet2DConditionModel",
        **SMALL, **CROSS, in_channels=3, out_channels=3, cross_attention_dim=6, attention_head_dim=4,
        addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=5 + 6 * 4,
    )  # fmt: skip


def dit() -> nn.Module:
    return network(
        "DiTTransformer2DModel",
        **HEADS,
        sample_size=8,
        in_channels=3,
        out_channels=6,
        patch_size=4,
        norm_num_groups=1,
        num_embeds_ada_norm=10,
    )


def pixart() -> nn.Module:
    return network(
        "PixArtTransformer2DModel",
        **HEADS, sample_size=8, in_channels=3, out_channels=6, patch_size=4, norm_num_groups=1, cross_attention_dim=12,
        caption_channels=6, use_additional_conditions=True,
    )  # fmt: skip


def sd3() -> nn.Module:
    return network(
        "SD3Transformer2DModel",
        **HEADS, sample_size=8, in_channels=3, out_channels=3, patch_size=4, joint_attention_dim=6,
        caption_projection_dim=12, pooled_projection_dim=5, pos_embed_max_size=4,
    )  # fmt: skip


def sana(**options: Any) -> nn.Module:
    return network(
        "SanaTransformer2DModel",
        **HEADS, sample_size=8, in_channels=3, out_channels=3, patch_size=2, num_cross_attention_heads=1,
        cross_attention_head_dim=12, cross_attention_dim=12, caption_channels=6, **options,
    )  # fmt: skip


def lumina2() -> nn.Module:
    return network(
        "Lumina2Transformer2DModel",
        sample_size=8, in_channels=3, hidden_size=12, num_layers=3, num_refiner_layers=1, num_attention_heads=1,
        num_kv_heads=1, multiple_of=8, axes_dim_rope=(4, 4, 4), axes_lens=(16, 16, 16), cap_feat_dim=6,
    )  # fmt: skip


def auraflow() -> nn.Module:
    return network(
        "AuraFlowTransformer2DModel",
        sample_size=8, in_channels=3, out_channels=3, patch_size=4, num_mmdit_layers=1, num_single_dit_layers=3,
        attention_head_dim=12, num_attention_heads=1, joint_attention_dim=6, caption_projection_dim=12,
        pos_embed_max_size=4,
    )  # fmt: skip


def wan() -> nn.Module:
    return network(
        "WanTransformer3DModel",
        **HEADS,
        in_channels=3,
        out_channels=3,
        text_dim=6,
        freq_dim=8,
        ffn_dim=12,
        rope_max_seq_len=16,
    )


def flux() -> nn.Module:
    if diffusers.__version__ < "0.31":
        pytest.skip("the positions of Flux had a batch axis")
    return network(
        "FluxTransformer2DModel",
        in_channels=12, num_layers=1, num_single_layers=3, attention_head_dim=12, num_attention_heads=1,
        joint_attention_dim=6, pooled_projection_dim=5, axes_dims_rope=(4, 4, 4),
    )  # fmt: skip


def flux2() -> nn.Module:
    return network(
        "Flux2Transformer2DModel",
        in_channels=12, num_layers=1, num_single_layers=3, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=6, timestep_guidance_channels=8, axes_dims_rope=(2, 2, 2, 2), guidance_embeds=False,
    )  # fmt: skip


def chroma() -> nn.Module:
    return network(
        "ChromaTransformer2DModel",
        in_channels=12, num_layers=1, num_single_layers=3, attention_head_dim=12, num_attention_heads=1,
        joint_attention_dim=6, axes_dims_rope=(4, 4, 4), approximator_num_channels=8, approximator_hidden_dim=8,
        approximator_layers=1,
    )  # fmt: skip


def qwen() -> nn.Module:
    return network(
        "QwenImageTransformer2DModel",
        **HEADS,
        in_channels=12,
        out_channels=3,
        patch_size=2,
        joint_attention_dim=6,
        axes_dims_rope=(4, 4, 4),
    )


def lumina_next() -> nn.Module:
    return network(
        "LuminaNextDiT2DModel",
        sample_size=8, in_channels=3, hidden_size=12, num_layers=3, num_attention_heads=1, num_kv_heads=1,
        multiple_of=8, cross_attention_dim=6,
    )  # fmt: skip


def hunyuan() -> nn.Module:
    return network(
        "HunyuanVideoTransformer3DModel",
        in_channels=3, out_channels=3, num_attention_heads=1, attention_head_dim=12, num_layers=1, num_single_layers=3,
        num_refiner_layers=1, guidance_embeds=True, text_embed_dim=6, pooled_projection_dim=5, rope_axes_dim=(4, 4, 4),
    )  # fmt: skip


def ltx() -> nn.Module:
    return network(
        "LTXVideoTransformer3DModel", **HEADS, in_channels=6, out_channels=6, cross_attention_dim=12, caption_channels=6
    )


def ovis() -> nn.Module:
    return network(
        "OvisImageTransformer2DModel",
        in_channels=12, out_channels=12, num_layers=1, num_single_layers=3, attention_head_dim=12,
        num_attention_heads=1, joint_attention_dim=6, axes_dims_rope=(4, 4, 4),
    )  # fmt: skip


def longcat() -> nn.Module:
    return network(
        "LongCatImageTransformer2DModel",
        in_channels=12, num_layers=1, num_single_layers=3, attention_head_dim=12, num_attention_heads=1,
        joint_attention_dim=6, pooled_projection_dim=6, axes_dims_rope=[4, 4, 4],
    )  # fmt: skip


def cogview4() -> nn.Module:
    return network(
        "CogView4Transformer2DModel",
        in_channels=3, out_channels=3, num_layers=3, attention_head_dim=8, num_attention_heads=1, text_embed_dim=6,
        time_embed_dim=8, condition_dim=4, pos_embed_max_size=4, sample_size=8, rope_axes_dim=(16, 16),
    )  # fmt: skip


def mochi() -> nn.Module:
    return network(
        "MochiTransformer3DModel",
        **HEADS,
        in_channels=3,
        pooled_projection_dim=12,
        text_embed_dim=8,
        time_embed_dim=8,
        max_sequence_length=4,
    )


def skyreels() -> nn.Module:
    return network(
        "SkyReelsV2Transformer3DModel",
        **HEADS,
        in_channels=3,
        out_channels=3,
        text_dim=6,
        freq_dim=8,
        ffn_dim=12,
        rope_max_seq_len=16,
    )


def z_image() -> nn.Module:
    return network(
        "ZImageTransformer2DModel",
        in_channels=3, dim=16, n_layers=3, n_refiner_layers=1, n_heads=1, n_kv_heads=1, cap_feat_dim=6,
        axes_dims=[4, 6, 6], axes_lens=[64, 16, 16],
    )  # fmt: skip


def unet1d() -> nn.Module:
    return network(
        "UNet1DModel",
        sample_size=32, in_channels=3, out_channels=3, down_block_types=("DownResnetBlock1D",) * 2,
        up_block_types=("UpResnetBlock1D",), mid_block_type="MidResTemporalBlock1D", out_block_type="OutConv1DBlock",
        block_out_channels=(8, 16), layers_per_block=1, time_embedding_type="positional", use_timestep_embedding=True,
        flip_sin_to_cos=False, freq_shift=1.0, act_fn="mish",
    )  # fmt: skip
