"""The line at the start: what a check measures, and about what it costs."""

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
    parts += [plan.shift] if plan.shift is not None else []
    if not is_labelled and (plan.shift is not None or not plan.num_pairs):
        parts += ["without labels the default alarm cannot be raised without a gap to trust"]
    cost = f"{plan.num_forwards:,} forwards a check, about {seconds:.0f} s"
    cost += f", at most {max_overhead:.1%} of the training's time" if max_overhead is not None else ""
    return "; ".join([*parts, cost])
