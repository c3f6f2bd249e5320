"""Rows of `speed.py`: number of forwards, share of the training's time, memory and compilation, on a small network."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.multiprocessing as mp
from clock import Row
from jobs import Tiny, small_monitor

NUM_FIT = 4096
PAPER_FORWARDS = 9 * (4096 + 10_000)
"""The paper's protocol: nine levels, 4,096 images to fit on and 10,000 to score."""


def count_row() -> Row:
    """Forwards depend on the numbers of images and levels alone."""
    probe, whole = (small_monitor(3 * NUM_FIT, signals=signals).checker.plan.num_forwards for signals in ((), None))
    return (
        "forwards of a check, without signals and with / the paper's protocol",
        f"{probe:,} and {whole:,} / {PAPER_FORWARDS:,}",
        f"{probe / PAPER_FORWARDS:.2f} and {whole / PAPER_FORWARDS:.2f}", "",
        f"{NUM_FIT:,} images to fit on, {2 * NUM_FIT:,} scored, 9 levels",
    )  # fmt: skip


def budget_row(max_overhead: float = 0.1, num_checks: int = 20) -> Row:
    """Train until the budget has allowed some number of checks."""
    network, images, step = Tiny(), torch.randn(64, 3, 4, 4), 0
    monitor = small_monitor(600, network=network, every_n_train_steps=1, max_overhead=max_overhead)
    while len(monitor.history) < num_checks:
        monitor.step(step)
        network(images, torch.ones(64)).square().mean().backward()
        step += 1
    overhead = monitor.history[-1].overhead
    return (
        "time of all checks / training, of the budget", f"{overhead:.4f} of {max_overhead}",
        f"{overhead / max_overhead:.2f}", "0.80 to 1.00", f"{num_checks} checks in {step:,} steps",
    )  # fmt: skip


def compile_row() -> Row:
    """Graphs that a compiled network gets while it trains, and while it is checked."""
    network, graphs = Tiny(), []

    def count(graph: torch.fx.GraphModule, inputs: object) -> object:
        graphs.append(graph)
        return graph.forward

    network.compile(backend=count)
    monitor = small_monitor(600, network=network)
    images, by_checks = torch.randn(64, 3, 4, 4), 0
    for step in range(1, 4):
        network(images, torch.ones(64)).square().mean().backward()
        before = len(graphs)
        monitor.check(step)
        by_checks += len(graphs) - before
    measured = f"{by_checks}; by three training steps between them {len(graphs) - by_checks}"
    return "graphs compiled by three checks", measured, "", "0", "`network.compile()`, two convolutions"


def memory_row() -> Row:
    """Peak resident memory of a check less the images, each in its own process."""
    few, many = (in_process(measure_memory, num_images) for num_images in (5_000, 50_000))
    return (
        "peak memory of a check, 50,000 / 5,000 images", f"{many:.0f} MB / {few:.0f} MB", f"{many / few:.3f}", "< 1.10",
        "3x4x4, 16 features, 1 layer; the images themselves are subtracted",
    )  # fmt: skip


def measure_memory(num_images: int, path: str) -> None:
    torch.set_num_threads(1)
    monitor = small_monitor(num_images)
    Path("/proc/self/clear_refs").write_text("5")
    monitor.check(1)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    images_mb = sum(run.images.nbytes for run in monitor.checker.plan.passes.values()) / 1e6
    Path(path).write_text(str(int(status["VmHWM"].split()[0]) / 1e3 - images_mb))


def in_process(work: Callable[[int, str], None], argument: int) -> float:
    """The number that a work writes to a file, done in a process of its own."""
    with TemporaryDirectory() as folder:
        process = mp.get_context("spawn").Process(target=work, args=(argument, f"{folder}/value"))
        process.start()
        process.join()
        return float(Path(f"{folder}/value").read_text())
