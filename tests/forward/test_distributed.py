"""Images shared among processes: alone, and in real process groups."""

import json

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tiny_job import TinyDenoiser, blobs

from unimodal_monitor import EDMDenoiser, LogisticProbe, Monitor, Network, ProbeSet, RidgeProbe
from unimodal_monitor.forward.distributed import Ranks
from unimodal_monitor.probes.moments import Moments


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_shares_are_the_rows_and_differ_by_one_at_most(size):
    """Whatever the number of ranks."""
    rows = torch.arange(100, 120)
    shares = [Ranks(rank, size).share(rows) for rank in range(size)]
    assert torch.equal(torch.cat(shares).sort().values, rows)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_rank_needs_no_process_group():
    """All rows are its own, and failures and values pass through."""
    ranks = Ranks.of_this_process()
    assert ranks == Ranks(0, 1)
    values = torch.randn(2, 3, 5)
    assert ranks.gather(values, 5) is values
    assert ranks.together(lambda: 7, device=torch.device("cpu")) == 7
    with pytest.raises(KeyError):
        ranks.together(lambda: {}["missing"], device=torch.device("cpu"))
    moments = Moments(1, 2, 2)
    with ranks.merged([moments]):
        assert moments.count == 0


def test_fewer_images_than_ranks_are_refused():
    """A rank without an image would wait for the others in vain."""
    with pytest.raises(ValueError, match="3 images are too few for 4 ranks"):
        Ranks(0, 4).share(torch.arange(3))
    assert Ranks(3, 4).share(torch.arange(3), may_be_empty=True).tolist() == []


def probe_set() -> ProbeSet:
    """101 images to fit on and 200 to score: no share is equal on 2 or 3 ranks."""
    return ProbeSet.from_datasets(blobs(96, seed=1), blobs(301, seed=2), num_fit=101)


def found_by_monitor(*, sharded: bool) -> list[dict]:
    """Two looks with each probe, without what differs between runs: the seconds."""
    torch.manual_seed(0)
    network, found = TinyDenoiser(), []
    for probe in (RidgeProbe(), LogisticProbe()):
        monitor = Monitor(EDMDenoiser(Network(network)), probe_set(), probe=probe, layers=["blocks.1"], sharded=sharded)
        for step in (10, 20):
            look = monitor.look(step).to_dict()
            found.append({name: value for name, value in look.items() if name not in ("seconds", "overhead")})
    return found


def work_of_rank(rank: int, folder: str) -> None:
    """In groups of 3 and 2 processes: failures, values and whole checks."""
    torch.set_num_threads(1)
    for size in (3, 2):
        if rank < size:
            dist.init_process_group("gloo", init_method=f"file://{folder}/store{size}", rank=rank, world_size=size)
            with open(f"{folder}/{size}_{rank}.json", "w") as file:
                json.dump(found_by_rank(Ranks.of_this_process()), file)
            dist.destroy_process_group()


def found_by_rank(ranks: Ranks) -> dict:
    def work() -> int:
        if ranks.rank == 1:
            raise KeyError("only here")
        return 1

    failure = ""
    try:
        ranks.together(work, device=torch.device("cpu"))
    except Exception as error:
        failure = type(error).__name__
    rows = torch.arange(2 * 50.0).view(2, 50)
    share = ranks.share(torch.arange(50))
    moments = Moments(1, 2, 2)
    moments.update(torch.ones(1, len(share), 2), torch.zeros(len(share), dtype=torch.long))
    with ranks.merged([moments]):
        moments.compute()
        count = int(moments.count)
    assert torch.equal(ranks.gather(rows[:, share] > 50, 50), rows > 50)
    return {
        "failure": failure,
        "gathered": ranks.gather(rows[:, share], 50).tolist(),
        "counts": [count, int(moments.count)],
        "looks": found_by_monitor(sharded=True),
    }


@pytest.mark.slow
def test_two_and_three_ranks_find_what_one_finds(tmp_path):
    """A failure is everybody's, values keep their order, and whole looks with unequal shares agree to 1e-6."""
    mp.spawn(work_of_rank, args=(str(tmp_path),), nprocs=3)
    expected = found_by_monitor(sharded=False)
    for size in (2, 3):
        for rank in range(size):
            found = json.loads((tmp_path / f"{size}_{rank}.json").read_text())
            assert found["failure"] == ("KeyError" if rank == 1 else "RuntimeError")
            assert found["gathered"] == torch.arange(100.0).view(2, 50).tolist()
            assert found["counts"] == [50, len(Ranks(rank, size).share(torch.arange(50)))]
            for look, wanted in zip(found["looks"], expected, strict=True):
                assert_same_look(look, wanted)


def assert_same_look(found: dict, wanted: dict) -> None:
    assert found.keys() == wanted.keys()
    assert {name: found[name] for name in ("step", "state")} == {name: wanted[name] for name in ("step", "state")}
    assert found["num_forwards"] == wanted["num_forwards"]
    if "curves" not in wanted:
        return
    assert found["verdict"]["shape"] == wanted["verdict"]["shape"]
    assert found["verdict"]["rise"] == pytest.approx(wanted["verdict"]["rise"], abs=1e-6)
    for curve, other in zip(found["curves"], wanted["curves"], strict=True):
        for quantity in ("accuracy", "score"):
            assert curve[quantity]["mean"] == pytest.approx(other[quantity]["mean"], abs=1e-6)
