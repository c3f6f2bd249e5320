"""Draw the figures of theory.md: `python docs/figures.py`, about a minute."""

from pathlib import Path

import torch
from matplotlib.figure import Figure
from molrg_snr import class_rates, closed_form_snr, measure_class_snr
from posterior import PosteriorMean

from unimodal_monitor.denoisers.memorizer import Memorizer
from unimodal_monitor.report.style import ACCENT, AMBER, GREEN, INK, MUTED, new_figure
from unimodal_monitor.theory.molrg import MoLRG

FOLDER = Path(__file__).parent / "figures"
FINE, COARSE = torch.logspace(-2, 0.5, 200), torch.logspace(-2, 0.5, 21)
DATA = MoLRG(num_classes=2, rank=5, delta=0.2)
SEPARATED = MoLRG(num_classes=2, rank=5, delta=0.2, mean_distance=3.0)
NUMS_MEMBERS = {20: "-", 200: "--", 2_000: ":"}
TICKS = (1, 2, 5, 10, 20, 50, 100)


def draw_why() -> Figure:
    """The two rates, and the class SNR that results."""
    figure = new_figure(9.5, 3.9)
    left, right = figure.subplots(1, 2)
    rates = class_rates(DATA, FINE)
    left.plot(FINE, rates.denoising, color=GREEN, linewidth=2)
    left.set(yscale="log", ylabel="denoising rate  $\\sigma^2/\\delta^2$", title="Two effects of noise")
    left.yaxis.label.set_color(GREEN)
    twin = left.twinx()
    twin.plot(FINE, rates.confidence, color=AMBER, linewidth=2)
    twin.plot(FINE, rates.confusion, color=AMBER, linewidth=1.4, linestyle="--")
    twin.set(ylim=(0, 1.08), ylabel="class confidence")
    twin.yaxis.label.set_color(AMBER)
    twin.text(0.012, 1.02, "own class", color=AMBER, fontsize=8)
    twin.text(0.06, 0.06, "wrong class", color=AMBER, fontsize=8)
    twin.spines["top"].set_visible(False)
    left.text(0.022, 0.03, "denoising rate", color=GREEN, fontsize=8, rotation=40)
    snr = measure_class_snr(PosteriorMean(DATA), DATA, COARSE, num=40_000)
    right.plot(FINE, closed_form_snr(DATA, FINE), color=MUTED, linewidth=1.6, label="closed form (approximate)")
    right.errorbar(
        COARSE,
        snr.mean,
        2 * snr.errors,
        color=INK,
        marker="o",
        markersize=3.5,
        linewidth=1.6,
        label="measured, ± 2 s.e.",
    )
    right.set(yscale="log", ylabel="class SNR of the denoised sample", title="The class SNR that results")
    right.set_yticks(TICKS, TICKS)
    right.legend(frameon=False, fontsize=8, loc="lower left")
    _dress(left, right)
    return figure


def draw_shapes() -> Figure:
    """A unimodal class SNR, one that lost its peak, and one that never has a peak."""
    figure = new_figure(9.5, 3.9)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    kept = measure_class_snr(PosteriorMean(DATA), DATA, COARSE, num=40_000)
    left.plot(COARSE, kept.mean, color=GREEN, linewidth=2, label="posterior mean: generalizes")
    for num, style in NUMS_MEMBERS.items():
        memorizer = Memorizer(DATA.sample(num, seed=5)[0])
        lost = measure_class_snr(memorizer, DATA, COARSE, num=8_000)
        label = f"memorizer of {num:,} samples"
        left.plot(COARSE, lost.mean, color=ACCENT, linewidth=1.8, linestyle=style, label=label)
    left.set(
        yscale="log", ylabel="class SNR of the denoised sample", title="Classes around one mean: peak, and peak lost"
    )
    left.set_yticks(TICKS[:-1], TICKS[:-1])
    left.legend(frameon=False, fontsize=8, loc="lower left")
    never = measure_class_snr(PosteriorMean(SEPARATED), SEPARATED, COARSE, num=40_000)
    right.plot(COARSE, never.mean, color=GREEN, linewidth=2, label="posterior mean: generalizes")
    right.set(ylabel="class SNR", title="Separated classes: never a peak", ylim=(0, None))
    right.legend(frameon=False, fontsize=8, loc="lower left")
    _dress(left, right)
    return figure


def _dress(*panels) -> None:
    for axes in panels:
        axes.set(xscale="log", xlabel="sigma (data units)")
        axes.set_title(axes.get_title(), fontsize=10, color=INK, loc="center")
        axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    draw_why().savefig(FOLDER / "why.png", dpi=120)
    draw_shapes().savefig(FOLDER / "shapes.png", dpi=120)
