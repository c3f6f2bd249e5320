"""checks.jsonl: one line for each check, which `read_checks` turns into the same objects again."""

import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np

from unimodal_monitor.check import Check

CHECKS = "checks.jsonl"


class JsonlReporter:
    """Writes `checks.jsonl` into `folder`, and the probe's per-image numbers as `outcomes/step_{step}.npz`.

    The file always holds the history as reported: a run that resumes from an earlier step drops what came after.
    Files are replaced in one piece, so that a reader or a crash never meets half of one.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def report(self, history: Sequence[Check], figures: Mapping[str, Any]) -> None:
        """Write all checks, and `{layer}/score` (K, M) float16 and `{layer}/correct` (K, M) bool of the last one.

        Raises:
            ValueError: if a number is not finite; the file stays as it was.
        """
        lines = [json.dumps(check.to_dict(), allow_nan=False) + "\n" for check in history]
        _replace(self.folder / CHECKS, "".join(lines).encode())
        if history and (measured := history[-1].measured) and measured.score:
            arrays: dict[str, Any] = {f"{layer}/correct": rows.numpy() for layer, rows in measured.correct.items()}
            arrays |= {f"{layer}/score": rows.numpy().astype(np.float16) for layer, rows in measured.score.items()}
            np.savez_compressed(content := io.BytesIO(), **arrays)
            _replace(self.folder / "outcomes" / f"step_{history[-1].step:09d}.npz", content.getvalue())


def read_checks(path: Path | str) -> list[Check]:
    """The checks of a `checks.jsonl`, or of the folder that holds one.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     JsonlReporter(folder).report([], {})
    ...     read_checks(folder)
    []

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if a line, the last one included, is damaged or of another version; no line is skipped.
    """
    path = Path(path)
    path, checks = path / CHECKS if path.is_dir() else path, []
    for number, record in enumerate(path.read_text().splitlines(), start=1):
        try:
            checks.append(Check.from_dict(json.loads(record)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            message = f"unimodal_monitor: cannot read a check from {path}, line {number} ({error!r})"
            raise ValueError(f"{message}; copy the file again, or delete the line to read the others") from error
    return checks


def unused_folder(wanted: Path, *, own: str | None = None) -> Path:
    """`wanted`, or the first of `wanted_2`, `wanted_3`, ... without a `checks.jsonl`: another run's is kept.

    A resumed run keeps its `own` folder, if that is one of these.
    """
    if own is not None and re.fullmatch(rf"{re.escape(str(wanted))}(_\d+)?", own):
        return Path(own)
    candidates = chain([wanted], (wanted.with_name(f"{wanted.name}_{number}") for number in count(2)))
    return next(folder for folder in candidates if not (folder / CHECKS).exists())


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.write_bytes(content)
    os.replace(draft, path)
