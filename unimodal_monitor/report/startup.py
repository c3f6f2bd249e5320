"""The lines at the start: what a check measures and about what it costs; what is watched, and how that is known."""

from collections.abc import Sequence

from torch import nn

from unimodal_monitor.denoisers import Denoiser, EDMDenoiser, PathDenoiser, VPDenoiser
from unimodal_monitor.denoisers.base import unwrap
from unimodal_monitor.detect.call import describe
from unimodal_monitor.detect.condition import BatchCondition
from unimodal_monitor.detect.ema import unread_averages
from unimodal_monitor.detect.verification import Verification
from unimodal_monitor.method import Plan


def startup_line(plan: Plan, *, num_unreachable: int, seconds: float, max_overhead: float | None) -> str:
    """What a check measures and about what it costs; the schedule cannot express `num_unreachable` wanted levels."""
    sigmas, (*others, judged) = plan.sigmas, plan.layers
    num, is_labelled = {role: len(run.rows) for role, run in plan.passes.items()}, "fit" in plan.passes
    levels = f"{len(sigmas)} levels from sigma {sigmas[0]:.3g} to {sigmas[-1]:.3g}"
    parts = [levels + (f" ({num_unreachable} more are out of the schedule's reach)" if num_unreachable else "")]
    parts += [f"layers {', '.join([*(others if is_labelled else ()), f'{judged} (judged)'])}"]
    if is_labelled:
        parts += [f"probe fitted on {num['fit']} images and scored on {len(plan.probe_set.heldout)}"]
    else:
        parts += [f"no labels: two views of {num['views']} held-out images"]
    if plan.num_pairs:
        parts += [f"{plan.num_pairs} members against as many held-out images"]
    for reason in dict.fromkeys(plan.missing.values()):
        names = [name for name, other in plan.missing.items() if other == reason]
        of_which = ", of members and of a twelfth of the probed images" if is_labelled else ""
        parts += [f"not measured: {', '.join(names)} ({reason}{of_which})"]
    if plan.probe_set.members.varies:
        parts += [
            "the members' dataset augments at random, one view of each is measured: give members= without augmentation"
        ]
    if plan.shift is not None:
        parts += [f"{plan.shift}: only the growth of the members' advantage is tested, in which what is fixed cancels"]
    if not plan.num_pairs:
        parts += ["no members are compared with held-out images: memorization cannot be found"]
    cost = f"{plan.num_forwards:,} forwards a check, about {seconds:.0f} s"
    cost += f", at most {max_overhead:.1%} of the training's time" if max_overhead is not None else ""
    return "; ".join([*parts, cost])


def watching_line(
    owner: nn.Module, denoiser: Denoiser, verification: Verification, *, images: str, callbacks: Sequence[object] = ()
) -> str:
    """The network, the weights, the schedule and the condition of a denoiser, and what the training steps say of it."""
    network, average = denoiser.network, getattr(denoiser, "weights", None)
    path = next((name for name, module in owner.named_modules() if name and unwrap(module) is network), None)
    num = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    name = type(network).__name__
    weights = "raw" if average is None else f"ema ({getattr(average, 'name', 'given')})"
    weights = f"raw until {weights} begins" if average is not None and denoiser.weights_used == "raw" else weights
    parts = [
        f"watching {path} ({name}, {num:,} trainable)" if path else f"watching {name} ({num:,} trainable)",
        f"weights {weights}",
        _schedule(denoiser),
    ]
    conditions = getattr(denoiser, "condition", None) or {}
    origin = " of the first image seen (a last resort)" if isinstance(conditions, BatchCondition) else ""
    parts += [f"condition {name} {describe(value)}{origin}" for name, value in conditions.items()]
    line = f"{', '.join(parts)}, images {images}; {verification.text}"
    used = getattr(average, "source", None)
    unread = unread_averages(owner, network, callbacks=callbacks, used=used)
    return f"{line}; not read: {', '.join(unread)}" if unread else line


def _schedule(denoiser: Denoiser) -> str:
    if isinstance(denoiser, VPDenoiser):
        times = denoiser.times
        low, high = (0, len(denoiser.alphas_cumprod) - 1) if times is None else (float(times.min()), float(times.max()))
        return f"DDPM {denoiser.prediction}, times {low:g}-{high:g}"
    if isinstance(denoiser, PathDenoiser):
        family = f"{denoiser.path} {denoiser.prediction or ''}".strip()
        if family.startswith(("ve", "edm")):
            return family
        return f"{family}, time {denoiser.noise_at * denoiser.time_scale:g} is noise"
    return "EDM, times sigma" if isinstance(denoiser, EDMDenoiser) else type(denoiser).__name__
