"""How the cost of a check grows with images, levels, feature width and ranks: `figures/cost.png`.

    python benchmarks/speed_figure.py

About four minutes on one core; the panel of ranks needs as many free cores as ranks.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from clock import side_by_side
from jobs import NUM_CLASSES, example_monitor
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator
from speed_forwards import bare_forwards, seconds_by_ranks
from speed_probes import NUM_LEVELS
from threadpoolctl import threadpool_limits

from unimodal_monitor import LogisticProbe, RidgeProbe
from unimodal_monitor.report.style import ACCENT, INK, MUTED, new_figure

NUM_IMAGES, LEVELS, WIDTHS, RANKS = (100, 200, 400, 800), (4, 9, 18), (64, 128, 256, 512), (1, 2)
NUM_FIT = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "figures" / "cost.png")
    parser.add_argument("--ranks", type=int, nargs="+", default=RANKS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    figure = new_figure(11, 3.1)
    images, levels, widths, ranks = figure.subplots(1, 4)
    with threadpool_limits(1):
        draw_check(images, "images", NUM_IMAGES, [check_seconds(num, NUM_LEVELS) for num in NUM_IMAGES])
        draw_check(levels, "levels", LEVELS, [check_seconds(200, num) for num in LEVELS])
        draw_widths(widths, [probe_seconds(width) for width in WIDTHS])
    draw_ranks(ranks, args.ranks, seconds_by_ranks(200, tuple(args.ranks)))
    args.out.parent.mkdir(exist_ok=True)
    figure.savefig(args.out, dpi=150)


def check_seconds(num_images: int, num_levels: int) -> list[float]:
    """Seconds of the bare forwards and of the check."""
    monitor = example_monitor(num_images, num_levels=num_levels)
    monitor.start()
    return side_by_side(lambda: bare_forwards(monitor), lambda: monitor.check(1), repeats=2)


def probe_seconds(width: int) -> list[float]:
    """Seconds of moments, ridge solve and logistic probe, for one layer at all levels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(NUM_FIT) % NUM_CLASSES
    centres = 0.1 * torch.randn(NUM_CLASSES, width, generator=generator)[labels]
    x = centres + torch.randn(NUM_LEVELS, NUM_FIT, width, generator=generator)
    probes = ridge, logistic = RidgeProbe(), LogisticProbe()
    moments, features = (probe.collector(NUM_LEVELS, width, NUM_CLASSES) for probe in probes)
    features.update(x, labels)
    return side_by_side(
        lambda: moments.update(x, labels), lambda: ridge.fit(moments), lambda: logistic.fit(features), repeats=2
    )


def draw_check(axes: Axes, name: str, numbers: Sequence[int], seconds: Sequence[list[float]]) -> None:
    bare, check = zip(*seconds, strict=True)
    axes.plot(numbers, bare, color=MUTED, linewidth=5, alpha=0.5, label="bare forwards")
    axes.plot(numbers, check, color=INK, marker="o", markersize=4, label="check")
    dress(axes, name, "seconds of a check" if name == "images" else "", numbers)


def draw_widths(axes: Axes, seconds: Sequence[list[float]]) -> None:
    names = ("moments", "ridge", "logistic")
    for name, values, colour in zip(names, zip(*seconds, strict=True), (MUTED, INK, ACCENT), strict=True):
        axes.plot(WIDTHS, values, color=colour, marker="o", markersize=4, label=name)
    dress(axes, "feature width", f"seconds of a probe, {NUM_FIT:,} images", WIDTHS)


def draw_ranks(axes: Axes, ranks: Sequence[int], seconds: Sequence[float]) -> None:
    axes.plot(ranks, [seconds[0] * ranks[0] / num for num in ranks], color=MUTED, linestyle="--", label="ideal")
    axes.plot(ranks, seconds, color=INK, marker="o", markersize=4, label="check")
    dress(axes, "ranks", "", ranks)


def dress(axes: Axes, name: str, unit: str, numbers: Sequence[int]) -> None:
    axes.set(xscale="log", yscale="log", ylabel=unit)
    axes.set_xlabel(name, color=INK)
    axes.set_xticks(numbers, labels=[f"{number:,}" for number in numbers])
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)


if __name__ == "__main__":
    main()
