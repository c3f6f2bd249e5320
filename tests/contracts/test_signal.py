"""What every signal promises; a new one joins by one line in SIGNALS."""

import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchmetrics import Metric

from unimodal_monitor.signals.class_snr import ClassSNR
from unimodal_monitor.signals.gap import DenoisingGap
from unimodal_monitor.signals.invariance import Contamination
from unimodal_monitor.signals.spread import Spikiness

K, N, D, C = 3, 60, 7, 2
FEATURES = torch.randn(2, K, N, D, generator=torch.Generator().manual_seed(0)) + 0.5
OTHERS = FEATURES + torch.randn(2, K, N, D, generator=torch.Generator().manual_seed(1))
ERRORS = FEATURES.square().mean(3)


@dataclass(frozen=True)
class Case:
    """A signal for some levels, and how it is fed: `update(metric, role, rows)`, for the roles 0 and 1.

    `fewer` are rows of both roles that it can do with.
    """

    make: Callable[[int], Metric]
    update: Callable[[Metric, int, Tensor], None]
    fewer: tuple[Tensor, Tensor] = (torch.arange(0, N, 2), torch.arange(N))


SIGNALS = {
    "gap": Case(
        lambda num_levels: DenoisingGap(num_levels, memorizer_error_KN=ERRORS[1, :num_levels] / 2),
        lambda metric, role, rows: metric.update(of(metric, ERRORS[role], rows), rows, is_member=bool(role)),
    ),
    "contamination": Case(
        Contamination,
        lambda metric, role, rows: metric.update(
            of(metric, (FEATURES[0], OTHERS[0])[role], rows), rows, is_second=bool(role)
        ),
        fewer=(torch.arange(0, N, 2), torch.arange(0, N, 2)),
    ),
    "spikiness": Case(
        Spikiness,
        lambda metric, role, rows: metric.update(of(metric, FEATURES[role], rows).std(2), rows, is_member=bool(role)),
    ),
    "class snr": Case(
        lambda num_levels: ClassSNR(num_levels, D, C),
        lambda metric, role, rows: metric.update(of(metric, FEATURES[role], rows), rows % C),
    ),
}


def of(metric, values, rows):
    return values[: metric.num_levels, rows]


def fed(case, rows_by_role, *, num_levels=K):
    metric = case.make(num_levels)
    for role, parts in enumerate(rows_by_role):
        for rows in parts:
            case.update(metric, role, rows)
    return metric


def whole(case):
    return fed(case, ([torch.arange(N)], [torch.arange(N)]))


def assert_same(found, expected):
    for field in fields(expected):
        ours, theirs = getattr(found, field.name), getattr(expected, field.name)
        if is_dataclass(theirs):
            assert_same(ours, theirs)
        else:
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.fixture(params=SIGNALS)
def case(request: pytest.FixtureRequest) -> Case:
    return SIGNALS[request.param]


def test_the_batches_and_their_order_do_not_matter(case):
    """Batches of one, ragged ones, and images in any order."""
    expected = whole(case).compute()
    for size in (1, 17):
        orders = (torch.randperm(N, generator=torch.Generator().manual_seed(seed)) for seed in (size, size + 1))
        assert_same(fed(case, [order.split(size) for order in orders]).compute(), expected)


def test_a_reset_forgets_all(case):
    """The next check starts anew."""
    metric = fed(case, [[rows] for rows in case.fewer])
    metric.compute()
    metric.reset()
    for role in (0, 1):
        case.update(metric, role, torch.arange(N))
    assert_same(metric.compute(), whole(case).compute())


def test_results_are_frozen_and_on_the_cpu_and_go_to_json(case):
    """Primitives without NaN."""
    result = whole(case).compute()
    assert is_dataclass(result)
    assert type(result).__dataclass_params__.frozen
    json.dumps(result.to_dict(), allow_nan=False)
    for field in fields(result):
        value = getattr(result, field.name)
        assert not isinstance(value, Tensor) or value.device.type == "cpu"


def test_a_single_level_keeps_its_axis(case):
    """And is what it is among others; torchmetrics squeezes tensors of one element."""
    single = fed(case, ([torch.arange(N)], [torch.arange(N)]), num_levels=1).compute()
    many = whole(case).compute()
    for name in (field.name for field in fields(many) if "_K" in field.name):
        torch.testing.assert_close(getattr(single, name), getattr(many, name)[:1])


def test_a_value_that_is_not_finite_is_an_error(case, monkeypatch):
    """And never a NaN in the result."""
    for name in ("FEATURES", "OTHERS", "ERRORS"):
        values = globals()[name].clone()
        values[0, 1, 3] = float("nan")
        monkeypatch.setitem(globals(), name, values)
    with pytest.raises(FloatingPointError, match=type(case.make(K)).__name__):
        whole(case).compute()


def test_nothing_seen_is_an_error_that_says_so(case):
    """Rather than a division by zero."""
    with pytest.warns(UserWarning, match="before the ``update`` method"), pytest.raises(ValueError, match="images"):
        case.make(K).compute()


def test_copies_and_pickles_go_on_measuring(case):
    """As checkpoints and deep copies of callbacks need."""
    metric = whole(case)
    expected = metric.compute()
    assert_same(pickle.loads(pickle.dumps(metric)).compute(), expected)
    assert_same(copy.deepcopy(metric).compute(), expected)


def test_states_stay_in_double_precision(case):
    """Lightning and `.half()` move metrics along with a module."""
    assert_same(whole(case).float().half().compute(), whole(case).compute())


def on_rank(rank: int, store: str) -> None:
    """Two ranks, first with shards of 13 and 47 images, then with one rank that has none."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(5))
    for case in SIGNALS.values():
        alone = case.make(K)
        alone.distributed_available_fn = lambda: False
        for role in (0, 1):
            case.update(alone, role, torch.arange(N))
        for size in (13, 0):
            parts = order.split([size, N - size])[rank].split(9)
            metric = fed(case, [[rows for rows in parts if len(rows)]] * 2)
            assert_same(metric.compute(), alone.compute())
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_with_unequal_shards_equal_one(tmp_path):
    """All signals over gloo, by torchmetrics' own synchronisation."""
    steps = (
        "import sys",
        "sys.path.insert(0, sys.argv[1])",
        "import test_signal",
        "test_signal.on_rank(int(sys.argv[2]), sys.argv[3])",
    )
    arguments = [sys.executable, "-c", "; ".join(steps), str(Path(__file__).parent)]
    ranks = [subprocess.Popen([*arguments, str(rank), str(tmp_path / "store")]) for rank in (0, 1)]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
