"""Rows of `speed.py`: a check against the bare forwards, on one rank and on two."""

import argparse
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from clock import Row, Seconds, side_by_side
from jobs import example_monitor
from torch import Tensor
from zoo import LAYERS

from unimodal_monitor import Monitor


def forwards_rows(args: argparse.Namespace) -> tuple[list[Row], float]:
    """The full check against the bare forwards, and the seconds of one forward."""
    options = {"device": args.device, "batch_size": args.batch_size}
    alone, whole = (example_monitor(args.num_images, witnesses=with_them, **options) for with_them in (False, True))
    for monitor in (alone, whole):
        monitor.check(0)
    bare_s, again_s, alone_s, bare_whole_s, whole_s = side_by_side(
        lambda: bare_forwards(alone), lambda: bare_forwards(alone), lambda: alone.check(1),
        lambda: bare_forwards(whole), lambda: whole.check(1), repeats=args.repeats, device=args.device,
    )  # fmt: skip
    shapes = f"{args.num_images:,} images, 9 levels, 3 layers, batch {args.batch_size}, float32, 3x16x16"
    per_forward = bare_s / alone.num_forwards
    rows = [
        ("bare forwards / bare forwards", f"{again_s:.2f} s / {bare_s:.2f} s", f"{again_s / bare_s:.2f}",
         "what the clock is good for", shapes),
        ("full check without witnesses / bare forwards", f"{alone_s:.2f} s / {bare_s:.2f} s",
         f"{alone_s / bare_s:.2f}", "<= 1.10", shapes),
        ("full check with witnesses / bare forwards, its own", f"{whole_s:.2f} s / {bare_whole_s:.2f} s",
         f"{whole_s / bare_whole_s:.2f}", "<= 1.10", f"{whole.num_forwards:,} forwards, a part to the end; {shapes}"),
        ("full check with witnesses / without", f"{whole_s:.2f} s / {alone_s:.2f} s", f"{whole_s / alone_s:.2f}",
         f"<= 1.25 in forwards: {whole.num_forwards / alone.num_forwards:.2f}",
         f"{whole.num_forwards:,} forwards / {alone.num_forwards:,}; {shapes}"),
    ]  # fmt: skip
    if args.device == "cpu":
        rows.insert(3, within_row(whole))
    return rows, per_forward


def within_row(monitor: Monitor) -> Row:
    """One check against the time that it spends in the network's own forward: no other turn to differ from."""
    network, inside = monitor.denoiser.network, []
    forward = network.forward

    def timed(*args: Tensor) -> Tensor:
        start = time.process_time()
        try:
            return forward(*args)
        finally:
            inside.append(time.process_time() - start)

    network.forward = timed
    start = time.process_time()
    monitor.check(2)
    whole_s = time.process_time() - start
    network.forward = forward
    return (
        "full check with witnesses / the network's calls within it", f"{whole_s:.2f} s / {sum(inside):.2f} s",
        f"{whole_s / sum(inside):.2f}", "<= 1.10", f"{len(inside)} calls",
    )  # fmt: skip


class Stop(Exception):
    """Ends a forward."""


@torch.no_grad()
def bare_forwards(monitor: Monitor) -> None:
    """As many inputs in the same batches, up to the deepest hooked layer or to the end, and nothing else."""
    network, num_levels = monitor.denoiser.network.eval(), len(monitor.noising.sigmas)
    device = next(network.parameters()).device
    rows = max(1, monitor.batch_size // num_levels)
    noised = torch.randn(rows * num_levels, 3, 16, 16, device=device).to(memory_format=torch.channels_last)
    sigma = monitor.noising.sigmas.float().repeat_interleave(rows).to(device)

    def stop(*args: object) -> None:
        raise Stop

    for count, to_the_end in passes(monitor):
        handle = None if to_the_end else network.get_submodule(LAYERS[-1]).register_forward_hook(stop)
        for part in torch.arange(count).split(rows):
            num = len(part) * num_levels
            with suppress(Stop):
                network(noised[:num], sigma[:num])
        if handle is not None:
            handle.remove()


def passes(monitor: Monitor) -> list[tuple[int, bool]]:
    """Numbers of images that a check passes through the network, and whether to its end."""
    num_fit, num_heldout = len(monitor.probe_set.fit), len(monitor.probe_set.heldout)
    witnesses = monitor._survey.witnesses
    if witnesses is None:
        return [(num_fit, False), (num_heldout, False)]
    heard = len(witnesses.heard)
    return [
        (num_fit, False),
        (heard, True),
        (num_heldout - heard, False),
        (len(witnesses.pairs), True),
        (len(witnesses.views), False),
    ]


def ranks_row(args: argparse.Namespace) -> Row:
    """The same check by one and by two processes with one thread each, in turn."""
    num_images = args.num_images // 3
    one_s, two_s = side_by_ranks(num_images, (1, 2))
    return (
        "two ranks / one", f"{two_s:.2f} s / {one_s:.2f} s", f"{two_s / one_s:.2f}", "<= 0.60",
        f"gloo, one thread each; {num_images:,} images; says nothing where the cores are not free",
    )  # fmt: skip


def side_by_ranks(num_images: int, sizes: tuple[int, ...], *, repeats: int = 2) -> Seconds:
    """Best seconds of a check on each number of ranks."""
    best = []
    for size in sizes:
        with TemporaryDirectory() as folder:
            mp.spawn(check_on_rank, args=(size, folder, num_images, repeats), nprocs=size)
            best.append(float(Path(f"{folder}/seconds").read_text()))
    return best


def check_on_rank(rank: int, size: int, folder: str, num_images: int, repeats: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    monitor = example_monitor(num_images, sharded=True)
    monitor.rehearse()
    dist.barrier()
    (seconds,) = side_by_side(lambda: monitor.check(1), repeats=repeats)
    if rank == 0:
        Path(f"{folder}/seconds").write_text(str(seconds))
    dist.destroy_process_group()
