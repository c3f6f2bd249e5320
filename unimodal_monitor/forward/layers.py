"""Which layers are probed: names given by the user, or the usual ones of known architectures."""

import difflib
from collections.abc import Sequence

from torch import nn

BOTTLENECKS = ("mid_block", "middle_block", "mid_block2")
DECODERS = ("up_blocks", "output_blocks", "ups")


def find_layers(network: nn.Module, layer: str | None = None, extra_layers: Sequence[str] = ()) -> dict[str, nn.Module]:
    """The layers to probe by dotted name, the judged one last.

    Args:
        network: Network of the denoiser.
        layer: Dotted name of the judged layer; None for the second decoder stage of a U-Net after its bottleneck and
            first stage, or for depth 2/3 of the longest stack of like blocks after 1/3 and 1/2.
        extra_layers: Further layers to draw beside it.

    Raises:
        ValueError: If a name is not in the network (naming the nearest) or given twice, or nothing suits by itself.
    """
    if isinstance(extra_layers, str):
        raise ValueError(f"extra_layers={extra_layers!r} is a string; give a list of names")
    modules = {name: module for name, module in network.named_modules() if name}
    names = [*extra_layers, *(_default_names(network) if layer is None else [layer])]
    for name in names:
        if name not in modules:
            near = difflib.get_close_matches(name, modules, n=3) or [name for name, _ in network.named_children()]
            raise ValueError(f"layer={name!r} is not in the network; did you mean {', '.join(near)}?")
    if len(set(names)) < len(names):
        raise ValueError(f"layer and extra_layers must be different names, got {names}")
    return {name: modules[name] for name in names}


def _default_names(network: nn.Module) -> list[str]:
    for name, module in network.named_modules():
        prefix, _, last = name.rpartition(".")
        if last in BOTTLENECKS:
            return [name, *_decoder_stages(network.get_submodule(prefix), prefix)]
        if last == "dec" and isinstance(module, nn.ModuleDict):
            return _edm_stages(module, name)
    stacks = [
        (name, stack)
        for name, stack in network.named_modules()
        if isinstance(stack, nn.ModuleList | nn.Sequential) and len({type(block) for block in stack}) == 1
    ]
    if not stacks or max(len(stack) for _, stack in stacks) < 3:
        top = ", ".join(name for name, _ in network.named_children())
        raise ValueError(
            f"layer: {type(network).__name__} is no U-Net and no stack of blocks that the monitor knows; "
            f"give layer='...' out of {top} and their submodules"
        )
    name, stack = max(stacks, key=lambda item: len(item[1]))
    depth = len(stack)
    return [f"{name}.{block}" for block in sorted({depth // 3, depth // 2, 2 * depth // 3})]


def _decoder_stages(unet: nn.Module, prefix: str) -> list[str]:
    for decoder in DECODERS:
        stages = getattr(unet, decoder, None)
        if isinstance(stages, nn.ModuleList) and len(stages) >= 2:
            dot = f"{prefix}." if prefix else ""
            block = ".1" if isinstance(stages[0], nn.ModuleList) else ""  # lucidrains: a list that is never called
            return [f"{dot}{decoder}.0{block}", f"{dot}{decoder}.1{block}"]
    return []


def _edm_stages(decoder: nn.ModuleDict, prefix: str) -> list[str]:
    """EDM's networks name their decoder 8x8_in0, 8x8_in1, 8x8_block0, ..., 16x16_up, 16x16_block0, ..."""
    blocks = [key for key in decoder if "_block" in key]
    last_of_stage = list({key.split("_")[0]: key for key in blocks}.values())
    bottleneck = [key for key in decoder if key.endswith("_in1")]
    return [f"{prefix}.{key}" for key in [*bottleneck, *last_of_stage[:2]]]
