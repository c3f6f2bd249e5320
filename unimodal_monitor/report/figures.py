"""curve.png and history.png, made again at every check."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from unimodal_monitor.check import Check
from unimodal_monitor.glance import Glance
from unimodal_monitor.report.plot import plot_curve, plot_history
from unimodal_monitor.report.plot_copies import plot_copies
from unimodal_monitor.report.plot_evidence import plot_evidence


class FigureReporter:
    """Writes the figures as PNG.

    Args:
        folder: where to write; made if it is missing.
        training: (N, C, H, W) the training images of an audit, to show beside its samples; None to draw no copies.
    """

    def __init__(self, folder: Path | str, *, training: Tensor | None = None) -> None:
        self.folder = Path(folder)
        self.training = training if training is not None and training.ndim == 4 else None

    def report(self, history: Sequence[Check]) -> None:
        """Draw the last curve with the ones before it behind, the history, all witnesses, and copies if there are."""
        self.folder.mkdir(parents=True, exist_ok=True)
        plot_curve(history[-1], earlier=history[:-1]).savefig(self.folder / "curve.png", dpi=130)
        plot_history(history).savefig(self.folder / "history.png", dpi=130)
        plot_evidence(history).savefig(self.folder / "evidence.png", dpi=130)
        self._draw_copies(history[-1])

    def _draw_copies(self, check: Check) -> None:
        audit = check.audit
        if audit is None or audit.samples is None or self.training is None or self.training.shape[1] not in (1, 3):
            return
        plot_copies(audit, audit.samples, self.training).savefig(self.folder / f"copies_{check.step:09d}.png", dpi=130)

    def glance(self, glance: Glance) -> None:
        """Nothing to draw."""
