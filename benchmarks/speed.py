"""What a check costs: ratios measured side by side in one run, as one table.

    python benchmarks/speed.py
    python benchmarks/speed.py --device cuda --num-images 20000 --batch-size 4608

About three minutes on one core. `--cache` takes features that `zoo.py` wrote in place of made ones.
"""

import argparse
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from zoo import LAYERS, EDMPrecond, build_unet

from unimodal_monitor import Alarm, EDMDenoiser, LogisticProbe, Monitor, Network, ProbeSet, RidgeProbe
from unimodal_monitor.glance import LOOKS
from unimodal_monitor.images import ImageSet

NUM_CLASSES, NUM_LEVELS, WIDTH, NUM_FIT, NUM_TEST = 10, 9, 256, 4096, 2000
STRENGTHS = (1e-4, 1e-3, 1e-2, 0.03, 0.1, 1.0, 10.0)
LOOP_LEVELS = (0, 4, 8)
PAPER_FORWARDS = 9 * (4096 + 10_000)
Seconds = list[float]
Row = tuple[str, str, str, str, str]


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    load = os.getloadavg()[0]
    with threadpool_limits(args.threads):
        rows, per_forward = forwards_rows(args)
        rows += probe_rows(args, per_forward)
    rows += [*count_rows(), budget_row(), memory_row(), ranks_row(args)]
    gpu = f", {torch.cuda.get_device_name()}" if args.device == "cuda" else ""
    print(f"\ntorch {torch.__version__}, threads: {args.threads} of {os.cpu_count()} cores{gpu}, load {load:.1f}\n")
    print("| what | measured | ratio | target | shapes |\n|---|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--num-images", type=int, default=600, help="of a check, a third of them to fit on")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--cache", type=Path, help="features of real networks that zoo.py wrote")
    return parser.parse_args()


def forwards_rows(args: argparse.Namespace) -> tuple[list[Row], float]:
    """The full check against the bare forwards, and the seconds of one forward."""
    options = {"device": args.device, "batch_size": args.batch_size}
    alone, whole = (example_monitor(args.num_images, witnesses=with_them, **options) for with_them in (False, True))
    for monitor in (alone, whole):
        monitor.check(0)
    bare_s, again_s, alone_s, whole_s = side_by_side(
        lambda: bare_forwards(alone), lambda: bare_forwards(alone), lambda: alone.check(1), lambda: whole.check(1),
        repeats=args.repeats, device=args.device,
    )  # fmt: skip
    shapes = f"{args.num_images:,} images, 9 levels, 3 layers, batch {args.batch_size}, float32, 3x16x16"
    per_forward = bare_s / alone.num_forwards
    rows = [
        ("bare forwards / bare forwards", f"{again_s:.2f} s / {bare_s:.2f} s", f"{again_s / bare_s:.2f}",
         "what the clock is good for", shapes),
        ("full check / bare forwards", f"{alone_s:.2f} s / {bare_s:.2f} s", f"{alone_s / bare_s:.2f}", "<= 1.10",
         f"no witnesses; {shapes}"),
        ("full check with witnesses / without", f"{whole_s:.2f} s / {alone_s:.2f} s", f"{whole_s / alone_s:.2f}",
         "<= 1.25", f"{whole.num_forwards:,} forwards / {alone.num_forwards:,}"),
    ]  # fmt: skip
    return rows, per_forward


def example_monitor(num_images: int, *, device: str = "cpu", num_levels: int | None = None, **options: Any) -> Monitor:
    """The example's network with random weights, on random images."""
    torch.manual_seed(0)
    network = EDMPrecond(build_unet()).to(device, memory_format=torch.channels_last)
    sigmas = None if num_levels is None else torch.logspace(-2.7, 0.3, num_levels)
    denoiser = EDMDenoiser(Network(network))
    options = {"witnesses": False, **options}
    return Monitor(denoiser, random_images(num_images, 16), sigmas=sigmas, layers=LAYERS, **options)


def random_images(num_images: int, size: int) -> ProbeSet:
    """A third to fit on; members for the witnesses."""
    images = torch.randn(num_images, 3, size, size, generator=torch.Generator().manual_seed(1)).mul_(0.5)
    labels, third = torch.arange(num_images) % NUM_CLASSES, num_images // 3
    members = torch.randn(max(64, num_images // 6), 3, size, size, generator=torch.Generator().manual_seed(2)).mul_(0.5)
    return ProbeSet(
        ImageSet(members), ImageSet(images[third:], labels[third:]), ImageSet(images[:third], labels[:third])
    )


class Stop(Exception):
    """Ends a forward."""


@torch.no_grad()
def bare_forwards(monitor: Monitor) -> None:
    """As many inputs in the same batches, up to the deepest hooked layer, and nothing else."""
    network, num_levels = monitor.denoiser.network.eval(), len(monitor.noising.sigmas)
    device = next(network.parameters()).device
    rows = max(1, monitor.batch_size // num_levels)
    noised = torch.randn(rows * num_levels, 3, 16, 16, device=device).to(memory_format=torch.channels_last)
    sigma = monitor.noising.sigmas.float().repeat_interleave(rows).to(device)

    def stop(*args: object) -> None:
        raise Stop

    handle = network.get_submodule(LAYERS[-1]).register_forward_hook(stop)
    for images in (monitor.probe_set.fit, monitor.probe_set.heldout):
        for part in torch.arange(len(images)).split(rows):
            num = len(part) * num_levels
            with suppress(Stop):
                network(noised[:num], sigma[:num])
    handle.remove()


def side_by_side(*works: Callable[[], object], repeats: int, device: str = "cpu") -> Seconds:
    """Best seconds of each, one after the other in every round.

    On one thread they are the processor's, so that others on the machine count less; otherwise those on the wall.
    """
    alone = device == "cpu" and torch.get_num_threads() == 1 and not dist.is_initialized()
    clock = time.process_time if alone else time.perf_counter
    best = [float("inf")] * len(works)
    for _ in range(repeats):
        for number, work in enumerate(works):
            start = clock()
            work()
            if device == "cuda":
                torch.cuda.synchronize()
            best[number] = min(best[number], clock() - start)
    return best


def probe_rows(args: argparse.Namespace, per_forward: float) -> list[Row]:
    """Solves against the forwards and against loops of scikit-learn, by problem: one level of one layer."""
    x, y, kind = made_features() if args.cache is None else cached_features(args.cache)
    width = x.shape[2]
    shapes = f"{NUM_FIT:,} {kind} images, {width} features, 10 classes"
    batches = x[:, :NUM_FIT].to(args.device).split(max(1, args.batch_size // len(x)), 1)
    labels = y[:NUM_FIT].to(args.device).split(batches[0].shape[1])
    ridge, logistic = RidgeProbe(STRENGTHS), LogisticProbe(C=1.0)
    moments, features = (probe.collector(len(x), width, NUM_CLASSES).to(args.device) for probe in (ridge, logistic))
    for batch, label in zip(batches, labels, strict=True):
        features.update(batch, label)

    def collect() -> None:
        moments.reset()
        for batch, label in zip(batches, labels, strict=True):
            moments.update(batch, label)

    collect_s, solve_s, logistic_s = (
        seconds / len(x)
        for seconds in side_by_side(
            collect, lambda: ridge.fit([moments]), lambda: logistic.fit([features]), repeats=args.repeats,
            device=args.device,
        )
    )  # fmt: skip
    loop_ridge_s, loop_logistic_s, accuracies = sklearn_loops(x, y, args.repeats)
    found = logistic.fit([features])[0].to(torch.device("cpu")).scores(x[:, NUM_FIT:]).argmax(2)
    gap = max(abs(float((found[k] == y[NUM_FIT:]).double().mean()) - a) for k, a in accuracies.items())
    forwards_s, ridge_s = per_forward * NUM_FIT, collect_s + solve_s
    ms = [f"{1000 * s:.1f} ms" for s in (collect_s, solve_s, ridge_s, logistic_s, loop_ridge_s, loop_logistic_s)]
    share = 3 * ridge_s / forwards_s
    return [
        ("ridge, 7 strengths, 27 problems / forwards of 9 levels", f"({ms[0]} + {ms[1]}) x 27 / {9 * forwards_s:.1f} s",
         f"{share:.1%}", "< 5%", f"moments + solve; {shapes}"),
        ("loop of `RidgeClassifierCV` / ridge", f"{ms[4]} / {ms[2]}", f"{loop_ridge_s / ridge_s:.1f}", ">= 5", shapes),
        ("loop of `LogisticRegression(C=1)` / ridge", f"{ms[5]} / {ms[2]}", f"{loop_logistic_s / ridge_s:.1f}",
         ">= 10", shapes),
        ("loop of `LogisticRegression(C=1)` / logistic probe", f"{ms[5]} / {ms[3]}",
         f"{loop_logistic_s / logistic_s:.1f}", ">= 50" if args.device == "cuda" else ">= 1", shapes),
        ("accuracy of the two, largest difference", f"{100 * gap:.2f} points", "", "<= 0.3", f"{NUM_TEST:,} images"),
    ]  # fmt: skip


def made_features() -> tuple[Tensor, Tensor, str]:
    """(9, N, 256) Gaussian features as ill-conditioned as the zoo's, told apart about as well; less so with the level.

    Variances along random axes fall by 1e5, as the eigenvalues of the zoo's standardised features do.
    """
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(NUM_FIT + NUM_TEST) % NUM_CLASSES
    deviation = torch.logspace(0, -2.5, WIDTH)
    rotation = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator))[0]
    centres = 0.1 * torch.randn(NUM_CLASSES, WIDTH, generator=generator)[labels]
    levels = [
        (((1 - level / 9) * centres + torch.randn(len(labels), WIDTH, generator=generator)) * deviation) @ rotation
        for level in range(NUM_LEVELS)
    ]
    return torch.stack(levels), labels, "made"


def cached_features(cache: Path) -> tuple[Tensor, Tensor, str]:
    """Those of the last layer of the last checkpoint."""
    path = sorted(cache.glob("n*.pt"))[-1]
    labels = torch.load(cache / "images.pt")["labels"]
    x = torch.load(path)[LAYERS[-1]].float()
    return x[:, : NUM_FIT + NUM_TEST], labels[: NUM_FIT + NUM_TEST], path.stem


def sklearn_loops(x: Tensor, y: Tensor, repeats: int) -> tuple[float, float, dict[int, float]]:
    """Mean seconds of a problem over some of the levels, and the logistic accuracies by level."""
    seconds, accuracies, truth = [], {}, y.numpy()
    for level in LOOP_LEVELS:
        scaler = StandardScaler().fit(x[level, :NUM_FIT].double())
        train, test = (scaler.transform(part.double()) for part in (x[level, :NUM_FIT], x[level, NUM_FIT:]))
        logistic = LogisticRegression(C=1.0, max_iter=10_000)
        ridge = RidgeClassifierCV(alphas=NUM_FIT * np.array(STRENGTHS))
        works = (ridge, logistic)
        fits = [lambda work=work, train=train: work.fit(train, truth[:NUM_FIT]) for work in works]
        seconds.append(side_by_side(*fits, repeats=min(2, repeats)))
        accuracies[level] = logistic.score(test, truth[NUM_FIT:])
    ridge_s, logistic_s = np.mean(seconds, axis=0)
    return float(ridge_s), float(logistic_s), accuracies


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


class Tiny(nn.Module):
    """Two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 3, 1)

    def forward(self, noised: Tensor, sigma: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(noised)))


def small_monitor(num_images: int, **options: Any) -> Monitor:
    torch.manual_seed(0)
    denoiser = EDMDenoiser(Network(Tiny()))
    return Monitor(
        denoiser, random_images(num_images, 4), layers=["first"], batch_size=4608, witnesses=False, **options
    )


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


if __name__ == "__main__":
    main()
