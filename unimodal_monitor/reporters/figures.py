"""curve.png and history.png, made again at every check."""

from collections.abc import Sequence
from pathlib import Path

from unimodal_monitor.check import Check
from unimodal_monitor.glance import Glance
from unimodal_monitor.plot import plot_curve, plot_history


class FigureReporter:
    """Writes the figures as PNG.

    Args:
        folder: where to write; made if it is missing.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def report(self, history: Sequence[Check]) -> None:
        """Draw the last curve, with the ones before it behind, and the history."""
        self.folder.mkdir(parents=True, exist_ok=True)
        plot_curve(history[-1], earlier=history[:-1]).savefig(self.folder / "curve.png", dpi=130)
        plot_history(history).savefig(self.folder / "history.png", dpi=130)

    def glance(self, glance: Glance) -> None:
        """Nothing to draw."""
