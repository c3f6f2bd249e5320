"""Images shared among processes: alone, and in real groups of two and three."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tiny_job import TinyDenoiser, blobs, tiny_probe_set

from unimodal_monitor import EDMDenoiser, LogisticProbe, Monitor, ProbeSet, RidgeProbe
from unimodal_monitor.forward.distributed import Ranks
from unimodal_monitor.probes.moments import Moments

ROWS = 49  # no equal shares on 2 or 3 ranks


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_shares_are_the_rows_differ_by_one_at_most_and_are_never_empty(size):
    rows = torch.arange(100, 120)
    shares = [Ranks(rank, size).share(rows) for rank in range(size)]
    assert torch.equal(torch.cat(shares).sort().values, rows)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    with pytest.raises(ValueError, match="at least one image for each of 30 ranks, got 20"):
        Ranks(size, 30).share(rows)


def test_values_and_failures_pass_through_one_rank_without_a_process_group():
    ranks, values = Ranks.of_this_process(torch.device("cpu")), torch.randn(2, 3, 5)
    assert ranks == Ranks(0, 1)
    assert ranks.gather(values, 3) is values
    assert ranks.together(lambda: 7) == ranks.broadcast(7) == 7
    assert (ranks.any(True), ranks.any(False)) == (True, False)
    assert failure_on(0, ranks) == "KeyError"


NUMBERS = 100 * torch.randn(2, ROWS, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
VALUES = [
    (values > 0 if dtype == torch.bool else values).to(dtype)
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool)
    for values in (NUMBERS, NUMBERS[..., 0], NUMBERS[..., 0, 0])
]


def failure_on(rank: int, ranks: Ranks) -> str:
    """What every rank meets where one fails."""

    def work() -> None:
        if ranks.rank == rank:
            raise KeyError

    try:
        ranks.together(work)
    except Exception as error:
        return type(error).__name__
    return ""


def tried_by_rank(ranks: Ranks) -> dict:
    share = ranks.share(torch.arange(ROWS))
    moments = Moments(1, 2, 2)
    moments.update(torch.ones(1, len(share), 2), share % 2)
    with ranks.merged([moments]):
        merged = int(moments.count)
    return {
        "failures": [failure_on(rank, ranks) for rank in range(4)],
        "together": ranks.together(lambda: ranks.rank),
        "any": [ranks.any(False), ranks.any(ranks.rank == 1), ranks.any(True)],
        "broadcast": ranks.broadcast({"step": ranks.rank, "name": None}),
        "counts": [merged, int(moments.count)],
        "gathered": [
            (found := ranks.gather(values[:, share], ROWS)).dtype == values.dtype and torch.equal(found, values)
            for values in VALUES
        ],
    }


def measured_by_monitor(*, distributed: bool) -> list[dict[str, torch.Tensor]]:
    """The per-image numbers and the verdicts of whole checks with each probe and without labels."""
    torch.manual_seed(0)
    network, found = TinyDenoiser(), []
    members, heldout = blobs(96, seed=1), blobs(301, seed=2)
    labelled = ProbeSet.from_datasets(members, heldout, num_fit=101)
    unlabelled = ProbeSet.from_datasets(members[0], heldout[0])
    options = {"layer": "blocks.1", "extra_layers": ["blocks.0"], "distributed": distributed, "reporters": ()}
    for probe_set, probe in ((labelled, RidgeProbe()), (labelled, LogisticProbe()), (unlabelled, None)):
        check = Monitor(EDMDenoiser(network), probe_set, probe=probe, **options).check(10)
        arrays = {name: array for name, array in vars(check.measured).items() if isinstance(array, torch.Tensor)}
        verdict = torch.tensor([check.verdict.rise, check.verdict.p_value])
        found.append({**arrays, **check.measured.score, "verdict": verdict})
    return found


def steps_with_a_failure() -> list[bool]:
    """Whether checks were made: on one rank the first cannot read the averaged weights, the second has no memory."""
    network, failures = TinyDenoiser(), {1: ["weights", "memory"]}.get(dist.get_rank(), [])

    def fail(what: str) -> None:
        if failures[:1] == [what]:
            raise RuntimeError(failures.pop(0))

    network.register_forward_pre_hook(lambda *_: fail("memory"))
    denoiser = EDMDenoiser(network, weights=lambda: fail("weights"))
    options = {"layer": "blocks.1", "distributed": True, "reporters": (), "every_n_train_steps": 10}
    monitor = Monitor(denoiser, tiny_probe_set(), **options)
    return [monitor.step(step) is not None for step in (0, 10, 20)]


def work_of_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    for size in (3, 2):
        if rank < size:
            dist.init_process_group("gloo", init_method=f"file://{folder}/store{size}", rank=rank, world_size=size)
            found = {"measured": measured_by_monitor(distributed=True), "made": steps_with_a_failure()}
            found |= tried_by_rank(Ranks.of_this_process(torch.device("cpu")))
            torch.save(found, f"{folder}/{size}_{rank}.pt")
            dist.destroy_process_group()


@pytest.fixture(scope="module")
def groups(tmp_path_factory):
    """What every rank of a group of two and of one of three found, by size and rank."""
    folder = tmp_path_factory.mktemp("groups")
    mp.spawn(work_of_rank, args=(str(folder),), nprocs=3)
    return {(size, rank): torch.load(folder / f"{size}_{rank}.pt") for size in (2, 3) for rank in range(size)}


@pytest.mark.slow
def test_what_fails_on_one_rank_fails_on_all_and_so_a_check_is_left_out_and_the_next_one_made(groups):
    """Each rank has its own error or result."""
    for (size, rank), found in groups.items():
        where = ["KeyError" if rank == failed else "RuntimeError" for failed in range(size)]
        assert found["failures"] == [*where, *[""] * (4 - size)]
        assert found["together"] == rank
        assert found["made"] == [False, False, True]


@pytest.mark.slow
def test_ranks_share_claims_what_rank_0_has_values_of_any_type_and_shape_and_the_state_of_metrics(groups):
    """Values come in the order of the rows, and metrics are merged within the block alone."""
    for (size, rank), found in groups.items():
        assert found["any"] == [False, True, True]
        assert found["broadcast"] == {"step": 0, "name": None}
        assert found["gathered"] == [True] * len(VALUES)
        assert found["counts"] == [ROWS, len(Ranks(rank, size).share(torch.arange(ROWS)))]


@pytest.mark.slow
def test_two_and_three_ranks_find_what_one_finds(groups):
    """Whole checks with unequal shares, to 1e-6."""
    expected = measured_by_monitor(distributed=False)
    for found in groups.values():
        torch.testing.assert_close(found["measured"], expected, rtol=1e-6, atol=1e-6)
