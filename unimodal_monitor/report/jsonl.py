"""checks.jsonl: one line for each check, reloadable as the same objects."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unimodal_monitor.check import Check
from unimodal_monitor.glance import Glance

CHECKS, GLANCES = "checks.jsonl", "glances.jsonl"


class JsonlReporter:
    """Writes `checks.jsonl`, and image by image the outcomes of each check under `outcomes/`.

    The file always holds the history as the monitor knows it: a run that resumes from an earlier step drops
    what came after. It is replaced in one piece, so that a reader or a crash never meets half a line.

    Args:
        folder: where to write; made if it is missing.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def report(self, history: Sequence[Check]) -> None:
        """Write all lines, and the outcomes of the last check."""
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.folder / f".{CHECKS}.draft"
        draft.write_text("".join(json.dumps(check.to_dict(), allow_nan=False) + "\n" for check in history))
        os.replace(draft, self.folder / CHECKS)
        if history and history[-1].outcomes:
            self._write_outcomes(history[-1])

    def glance(self, glance: Glance) -> None:
        """Add a line to `glances.jsonl`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / GLANCES).open("a") as lines:
            lines.write(json.dumps(glance.to_dict(), allow_nan=False) + "\n")

    def _write_outcomes(self, check: Check) -> None:
        """`{layer}/correct` (K, R, M) bool and `{layer}/score` (K, R, M) float16."""
        arrays: dict[str, Any] = {}
        for layer, outcomes in check.outcomes.items():
            arrays[f"{layer}/correct"] = outcomes.correct_KRM.numpy()
            arrays[f"{layer}/score"] = outcomes.score_KRM.numpy().astype(np.float16)
        path = self.folder / "outcomes" / f"step_{check.step:09d}.npz"
        path.parent.mkdir(exist_ok=True)
        np.savez_compressed(path, **arrays)


def unused_folder(wanted: Path) -> Path:
    """`wanted`, or one numbered beside it where an older run has written its checks: these are never overwritten."""
    folder, number = wanted, 1
    while (folder / CHECKS).exists():
        number += 1
        folder = wanted.with_name(f"{wanted.name}_{number}")
    return folder


def read_checks(path: Path | str) -> list[Check]:
    """The checks of a `checks.jsonl`, or of the folder that holds one.

    Raises:
        FileNotFoundError: if there is none.
    """
    path = Path(path)
    path = path / CHECKS if path.is_dir() else path
    return [Check.from_dict(json.loads(line)) for line in path.read_text().splitlines()]
