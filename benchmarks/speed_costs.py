"""Rows of `speed.py`: forwards by number, share of the training's time, and memory, on a small network."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.multiprocessing as mp
from clock import Row
from jobs import Tiny, small_monitor

from unimodal_monitor import Alarm
from unimodal_monitor.glance import LOOKS

NUM_FIT = 4096
PAPER_FORWARDS = 9 * (4096 + 10_000)


class Calm(Alarm):
    """Finds nothing changed at the first question of a glance."""

    def forecast(self, look: object, *, fraction: float, error: float) -> str | None:
        return "all is as it was"


class CalmAtLast(Alarm):
    """Finds nothing changed at the last question of a glance."""

    asked = 0

    def forecast(self, look: object, *, fraction: float, error: float) -> str | None:
        self.asked += 1
        return "all is as it was" if self.asked == len(LOOKS) else None


def count_rows() -> list[Row]:
    """Forwards, counted on a small network: they depend on the numbers of images and levels alone."""
    glances = []
    for alarm in (Calm(), CalmAtLast()):
        monitor = small_monitor(3 * NUM_FIT, alarm=alarm, full_every=8)
        monitor.look(1)
        glances.append(monitor.look(2).num_forwards)
    full = monitor.num_forwards
    low, high = ((full + 7 * glance) / 8 for glance in glances)
    shapes = (
        f"{NUM_FIT:,} images to fit on, {2 * NUM_FIT:,} scored, 9 levels; glances decided at their first or last look"
    )
    return [
        ("forwards of a full check / the paper's protocol", f"{full:,} / {PAPER_FORWARDS:,}",
         f"{full / PAPER_FORWARDS:.2f}", "", shapes),
        ("forwards of a glance / a full check", " to ".join(f"{g:,}" for g in glances),
         " to ".join(f"{g / full:.2f}" for g in glances), "", shapes),
        ("forwards per look, 7 glances to a check / checks alone", f"{low:,.0f} to {high:,.0f}",
         f"{low / full:.2f} to {high / full:.2f}", "<= 0.25", shapes),
    ]  # fmt: skip


def budget_row(max_overhead: float = 0.1) -> Row:
    """Twenty looks in a loop that trains as long as the budget does not allow another one."""
    monitor = small_monitor(600, max_overhead=max_overhead)
    network, images = Tiny(), torch.randn(64, 3, 4, 4)
    for step in range(20):
        while not monitor.can_afford():
            network(images, torch.ones(64)).square().mean().backward()
        look = monitor.look(step)
    shapes = f"{len(monitor.history)} checks, {len(monitor.glances)} glances"
    return (
        "time of twenty looks / training, of the budget", f"{look.overhead:.4f} of {max_overhead}",
        f"{look.overhead / max_overhead:.2f}", "0.80 to 1.00", shapes,
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
    monitor = small_monitor(num_images, full_every=8)
    Path("/proc/self/clear_refs").write_text("5")
    monitor.check(1)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    images_mb = sum(s.images.nbytes for s in (monitor.probe_set.fit, monitor.probe_set.heldout)) / 1e6
    Path(path).write_text(str(int(status["VmHWM"].split()[0]) / 1e3 - images_mb))


def in_process(work: Callable[[int, str], None], argument: int) -> float:
    """What the work writes, done in a process of its own."""
    with TemporaryDirectory() as folder:
        process = mp.get_context("spawn").Process(target=work, args=(argument, f"{folder}/value"))
        process.start()
        process.join()
        return float(Path(f"{folder}/value").read_text())
