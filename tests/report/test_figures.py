"""The figures that all reporters share, and their files."""

from dataclasses import replace

import pytest
import torch
from simulated import USELESS
from simulated_checks import simulated_check, without_labels

from unimodal_monitor.copies.audit import audit_samples
from unimodal_monitor.report.base import Figures
from unimodal_monitor.report.figures import FigureReporter
from unimodal_monitor.report.style import new_figure

TRAINING = torch.rand(20, 3, 6, 6, generator=torch.Generator().manual_seed(0))
AUDIT = audit_samples(TRAINING[:4], TRAINING)
RUN = [simulated_check(0, USELESS), replace(simulated_check(207), audit=AUDIT)]


def test_figures_are_drawn_once_and_of_the_checks_at_hand_when_they_were_made():
    """The monitor's list of checks grows on."""
    history = RUN[:1]
    figures = Figures(history)
    history.append(RUN[1])
    assert all(figures[name] is figures[name] for name in figures)
    assert figures["curve"].get_suptitle().startswith("step 0")


@pytest.mark.parametrize(
    ("audit", "training"),
    [(AUDIT, None), (AUDIT, TRAINING.flatten(1)), (replace(AUDIT, samples=None), TRAINING), (None, TRAINING)],
)
def test_copies_are_shown_only_where_the_last_check_has_an_audit_of_images(audit, training):
    """Without images, such as those of an audit read from a file, there is nothing to show."""
    assert list(Figures(RUN, TRAINING)) == ["curve", "history", "evidence", "copies"]
    assert list(Figures([RUN[1], replace(RUN[1], audit=audit)], training)) == ["curve", "history", "evidence"]


def test_figures_are_written_as_png(tmp_path):
    """An audit has a file of its own, so that a later one does not replace it."""
    FigureReporter(tmp_path / "new").report(RUN, {"curve": new_figure(2, 1), "copies": new_figure(2, 1)})
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"curve.png", "copies_000000207.png"}


@pytest.mark.slow
@pytest.mark.parametrize("history", [RUN, RUN[1:], [without_labels(check) for check in RUN]])
def test_all_figures_of_few_checks_can_be_rendered(tmp_path, history):
    """Of a single one, without labels, and where the low-noise end is negative, which the colours divide by."""
    FigureReporter(tmp_path).report(history, Figures(history, TRAINING))
    assert len(list(tmp_path.glob("*.png"))) == 4
