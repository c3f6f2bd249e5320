"""What a run saves, and what has to agree for another one to go on with it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unimodal_monitor.alarm.alarm import Alarm, AlarmMemory
from unimodal_monitor.check import SCHEMA, Check
from unimodal_monitor.denoisers.base import Denoiser
from unimodal_monitor.method import Plan


def save_state(
    measured_with: Mapping[str, Any],
    memory: AlarmMemory,
    history: Sequence[Check],
    settled: str | None,
    *,
    folder: Path | None,
) -> dict[str, Any]:
    """Primitives only: the history, the alarm's memory, and what they were measured with.

    `settled` is the schedule= that the training steps agree with, where it is not the one that was found.
    """
    return {
        "schema": SCHEMA,
        "settled": settled,
        "folder": None if folder is None else str(folder),
        "last_step": history[-1].step if history else -1,
        "measured_with": dict(measured_with),
        "alarm": memory.to_dict(),
        "history": [check.to_dict() for check in history],
    }


def restore_state(record: Mapping[str, Any], measured_with: Mapping[str, Any]) -> tuple[AlarmMemory, list[Check]]:
    """The memory and the history of a `save_state`.

    Raises:
        ValueError: If the schema differs, or something that the checks were measured with; names each difference.
    """
    if (schema := record.get("schema")) != SCHEMA:
        raise ValueError(f"the saved state has schema {schema}, this version of unimodal_monitor reads schema {SCHEMA}")
    theirs = record["measured_with"]
    # images without pairs were measured without signals: the rules that need them wait meanwhile
    differences = [
        f"{name} was {theirs.get(name)} and is now {value}"
        for name, value in measured_with.items()
        if theirs.get(name) != value and not (name in ("num_pairs", "num_views") and 0 in (theirs.get(name), value))
    ]
    if record["history"] and differences:
        raise ValueError(
            f"the saved checks cannot be compared with this monitor's: {'; '.join(differences)}; "
            "use the same settings and images, or another name= to start anew"
        )
    return AlarmMemory.from_dict(record["alarm"]), [Check.from_dict(check) for check in record["history"]]


def measured_with(plan: Plan, alarm: Alarm, denoiser: Denoiser) -> dict[str, Any]:
    """All that two checks must have in common to be compared."""
    return {
        "layers": list(plan.layers),
        "sigmas": plan.sigmas.tolist(),
        "num_heldout": len(plan.probe_set.heldout),
        "images": plan.probe_set.fingerprint,
        "seed": plan.seed,
        "probe": _named(plan.probe),
        "weights": "raw" if getattr(denoiser, "weights", None) is None else "ema",
        "num_pairs": plan.num_pairs,
        "num_views": len(plan.passes["views"].rows) if "views" in plan.passes else 0,
        "rules": [_named(rule) for rule in alarm.rules],
    }


def _named(part: object) -> str:
    """Class and attributes, without the addresses that differ between processes."""
    return re.sub(r" at 0x[0-9a-f]+", "", f"{type(part).__name__}({getattr(part, '__dict__', {})})")
