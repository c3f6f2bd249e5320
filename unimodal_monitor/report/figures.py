"""PNG files of the figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unimodal_monitor.check import Check


class FigureReporter:
    """Writes `{name}.png` for each figure into `folder` at every check, and `copies_{step}.png` for each audit."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def report(self, history: Sequence[Check], figures: Mapping[str, Any]) -> None:
        """Write the figures of the last check."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            stem = f"copies_{history[-1].step:09d}" if name == "copies" else name
            figure.savefig(self.folder / f"{stem}.png", dpi=130)
