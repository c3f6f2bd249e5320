"""checks.jsonl: what is written comes back."""

import math
from dataclasses import replace

import numpy as np
import pytest
from simulated_checks import RUN, without_labels

from unimodal_monitor.report.jsonl import JsonlReporter, read_checks, unused_folder

HISTORY = [*RUN[:2], replace(RUN[2], missing={"spread_auc": "no members"})]


def write(folder, history):
    JsonlReporter(folder).report(history, {})
    return folder / "checks.jsonl"


def test_checks_come_back_equal_from_the_folder_and_from_the_file(tmp_path):
    """With signals, audit and missing signals."""
    file = write(tmp_path / "new", HISTORY)
    assert read_checks(file.parent) == read_checks(str(file)) == HISTORY


def test_a_resumed_run_drops_what_came_after_and_a_refused_check_changes_nothing(tmp_path):
    write(tmp_path, HISTORY)
    write(tmp_path, HISTORY[:2])
    with pytest.raises(ValueError, match="float"):
        write(tmp_path, [*HISTORY[:2], replace(HISTORY[2], seconds=math.nan)])
    assert read_checks(tmp_path) == HISTORY[:2]


def test_outcomes_of_the_last_check_are_kept_image_by_image_for_every_layer(tmp_path):
    """Correctness exactly, scores in half precision; nothing else is left in the folder, and nothing without labels."""
    measured = HISTORY[-1].measured
    for check in (without_labels(HISTORY[0]), replace(HISTORY[0], measured=None), HISTORY[-1]):
        write(tmp_path, [check])
    with np.load(tmp_path / "outcomes/step_000000207.npz") as arrays:
        assert len(arrays.files) == 2 * len(measured.layers)
        for layer in measured.layers:
            np.testing.assert_array_equal(arrays[f"{layer}/correct"], measured.correct[layer])
            np.testing.assert_allclose(arrays[f"{layer}/score"], measured.score[layer], atol=1e-3)
    assert {path.name for path in tmp_path.rglob("*")} == {"checks.jsonl", "outcomes", "step_000000207.npz"}


@pytest.mark.parametrize("damaged", ['{"step": 207, ', '{"schema": 2}', "7"])
def test_a_damaged_line_is_an_error_with_file_and_number(tmp_path, damaged):
    """Also the last one: to pass over it would show an older check as if it were the newest."""
    file = write(tmp_path, HISTORY[:2])
    file.write_text(file.read_text() + damaged)
    with pytest.raises(ValueError, match=r"unimodal_monitor: .*checks\.jsonl, line 3 "):
        read_checks(tmp_path)


def test_a_folder_with_checks_is_never_used_again(tmp_path):
    """A folder without them is, whatever else it holds."""
    wanted = tmp_path / "unimodal"
    assert unused_folder(wanted) == wanted
    for used in (wanted, tmp_path / "unimodal_2"):
        write(used, HISTORY[:1])
    (tmp_path / "unimodal_3").mkdir()
    for own in (None, str(tmp_path / "unimodal_old"), str(tmp_path / "other")):
        assert unused_folder(wanted, own=own) == tmp_path / "unimodal_3"
    with pytest.raises(FileNotFoundError):
        read_checks(tmp_path / "unimodal_3")
