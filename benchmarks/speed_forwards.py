"""Rows of `speed.py`: a check against the bare forwards, on one rank and on two."""

import argparse
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from clock import Row, Seconds, ratio_row, side_by_side
from jobs import example_monitor
from torch import Tensor
from zoo import LAYERS

from unimodal_monitor import Monitor


def forwards_rows(args: argparse.Namespace) -> tuple[list[Row], float]:
    """A check against the bare forwards, and the seconds of one forward."""
    options = {"device": args.device, "batch_size": args.batch_size}
    probe, whole = (example_monitor(args.num_images, signals=signals, **options) for signals in ((), None))
    for monitor in (probe, whole):
        monitor.check(0)
    bare_s, again_s, probe_s, bare_whole_s, whole_s = side_by_side(
        lambda: bare_forwards(probe), lambda: bare_forwards(probe), lambda: probe.check(1),
        lambda: bare_forwards(whole), lambda: whole.check(1), repeats=args.repeats, device=args.device,
    )  # fmt: skip
    shapes = f"{args.num_images:,} images, 9 levels, 3 layers, batch {args.batch_size}, float32, 3x16x16"
    num_whole, num_probe = whole.checker.plan.num_forwards, probe.checker.plan.num_forwards
    rows = [
        ratio_row("bare forwards / bare forwards", again_s, bare_s, "resolution of the clock", shapes),
        ratio_row("check without signals / its bare forwards", probe_s, bare_s, "<= 1.10", shapes),
        ratio_row("check with signals / its bare forwards", whole_s, bare_whole_s, "<= 1.10",
                  f"{num_whole:,} forwards, a part of them to the output"),
        ratio_row("check with signals / without", whole_s, probe_s, f"<= 1.25 in forwards: {num_whole / num_probe:.2f}",
                  f"{num_whole:,} forwards / {num_probe:,}"),
    ]  # fmt: skip
    if args.device == "cpu":
        rows.insert(3, within_row(whole))
    return rows, bare_s / num_probe


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
    what = "check with signals / the network's calls within it"
    return ratio_row(what, whole_s, sum(inside), "<= 1.10", f"{len(inside)} calls")


class Stop(Exception):
    """Ends a forward."""


@torch.no_grad()
def bare_forwards(monitor: Monitor) -> None:
    """As many inputs in the same batches, up to the deepest hooked layer or to the output, and nothing else."""
    network, sigmas = monitor.denoiser.network.eval(), monitor.checker.plan.sigmas
    device = next(network.parameters()).device
    num_rows = max(1, monitor.batch_size // len(sigmas))
    noised = torch.randn(num_rows * len(sigmas), 3, 16, 16, device=device).to(memory_format=torch.channels_last)
    sigma = sigmas.float().repeat_interleave(num_rows).to(device)

    def stop(*args: object) -> None:
        raise Stop

    for run in monitor.checker.plan.passes.values():
        handle = None if run.to_output else network.get_submodule(LAYERS[-1]).register_forward_hook(stop)
        for part in run.noise_ids.split(num_rows):
            num_inputs = len(part) * len(sigmas)
            with suppress(Stop):
                network(noised[:num_inputs], sigma[:num_inputs])
        if handle is not None:
            handle.remove()


def ranks_row(args: argparse.Namespace) -> Row:
    """The same check by one and by two processes with one thread each, one after the other."""
    num_images = args.num_images // 3
    one_s, two_s = seconds_by_ranks(num_images, (1, 2))
    shapes = f"gloo, one thread each; {num_images:,} images; needs two free cores"
    return ratio_row("two ranks / one", two_s, one_s, "<= 0.60", shapes)


def seconds_by_ranks(num_images: int, sizes: tuple[int, ...], *, repeats: int = 2) -> Seconds:
    """Least seconds of a check on each number of ranks."""
    best = []
    for size in sizes:
        with TemporaryDirectory() as folder:
            mp.spawn(check_on_rank, args=(size, folder, num_images, repeats), nprocs=size)
            best.append(float(Path(f"{folder}/seconds").read_text()))
    return best


def check_on_rank(rank: int, size: int, folder: str, num_images: int, repeats: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    monitor = example_monitor(num_images, distributed=True)
    monitor.start()
    dist.barrier()
    (seconds,) = side_by_side(lambda: monitor.check(1), repeats=repeats)
    if rank == 0:
        Path(f"{folder}/seconds").write_text(str(seconds))
    dist.destroy_process_group()
