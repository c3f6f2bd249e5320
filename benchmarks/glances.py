"""Forwards per verdict with and without glances, on the zoo and on the demo's runs, and what that does to the alarm.

python benchmarks/zoo.py --zoo ZOO --data CIFAR10 --cache CACHE --num-images 5400
python benchmarks/glances.py --zoo ZOO --cache CACHE
"""

import argparse
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

from cached import cached_monitor
from zoo import Checkpoint, checkpoints

from unimodal_monitor import demo
from unimodal_monitor.alarm.alarm import AlarmState
from unimodal_monitor.glance import Glance

PAPER = 9 * (4096 + 10_000)
"""Forwards of the paper's protocol: nine levels, 4,096 images to fit and 10,000 to score."""


def follow(run: list[Checkpoint], cache: Path, *, seed: int, full_every: int) -> dict:
    """A look at each checkpoint of a run."""
    monitor = cached_monitor(cache, run[0], seed=seed, full_every=full_every)
    forwards, kinds, states = 0, "", []
    for checkpoint in run:
        monitor.show(cache, checkpoint)
        tried = not monitor._needs_check()
        found = monitor.look(checkpoint.step)
        is_glance = isinstance(found, Glance)
        kinds += "g" if is_glance else "F" if tried else "f"
        forwards += found.num_forwards
        states.append(found.state)
    first = lambda state: next(  # noqa: E731
        (f"{c.images_seen // 1000}k" for c, s in zip(run, states, strict=True) if s is state), "never"
    )
    return {
        "full": monitor.num_forwards, "mean": forwards / len(run), "kinds": kinds,
        "armed": first(AlarmState.ARMED), "raised": first(AlarmState.RAISED),
    }  # fmt: skip


def on_zoo(args: argparse.Namespace) -> None:
    print("| members | probe split | looks | forwards a look, of a full check | of the paper's protocol | armed at "
          "(full checks alone) | alarm at (full checks alone) |\n|---|---|---|---|---|---|---|")  # fmt: skip
    shares = []
    for members, group in groupby(
        [c for c in checkpoints(args.zoo) if (args.cache / f"{c.path.stem}.pt").exists()],
        lambda checkpoint: checkpoint.num_members,
    ):
        run = list(group)
        for seed in range(args.seeds):
            plain, quick = (follow(run, args.cache, seed=seed, full_every=n) for n in (1, args.full_every))
            shares += [quick["mean"] / quick["full"]] * len(run)
            print(f"| {members} | {seed} | {quick['kinds']} | {quick['mean'] / quick['full']:.0%} "
                  f"| {quick['mean'] / PAPER:.0%} | {quick['armed']} ({plain['armed']}) "
                  f"| {quick['raised']} ({plain['raised']}) |")  # fmt: skip
    print(f"\nOver all looks: {sum(shares) / len(shares):.0%} of a full check.")


def on_demo(args: argparse.Namespace) -> None:
    print("\n| members | seed | looks | glances | forwards a look, of a full check | alarm at step | with full checks "
          "alone |\n|---|---|---|---|---|---|---|")  # fmt: skip
    demo.EVERY_N_STEPS = args.every
    for seed in range(args.demo_seeds):
        for members in (demo.FEW, demo.MANY):
            runs: list = []
            for full_every in (args.full_every, 1):
                demo.FULL_EVERY = full_every
                with TemporaryDirectory() as folder:
                    runs.append(demo.watch_training(members, Path(folder), seed=seed))
            quick = runs[0]
            num_looks, full = len(quick.history) + len(quick.glances), quick.history[0].num_forwards
            spent = sum(look.num_forwards for look in [*quick.history, *quick.glances])
            alarm = [run.history[-1].step if run.history[-1].state is AlarmState.RAISED else "never" for run in runs]
            print(f"| {members} | {seed} | {num_looks} | {len(quick.glances)} "
                  f"| {spent / num_looks / full:.0%} | {alarm[0]} | {alarm[1]} |", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path)
    parser.add_argument("--cache", type=Path, help="where benchmarks/zoo.py wrote the features")
    parser.add_argument("--seeds", type=int, default=3, help="splits of the images")
    parser.add_argument("--full-every", type=int, default=8)
    parser.add_argument("--demo-seeds", type=int, default=2)
    parser.add_argument("--every", type=int, default=50, help="steps between two looks at a demo run")
    args = parser.parse_args()
    if args.zoo:
        on_zoo(args)
    on_demo(args)


if __name__ == "__main__":
    main()
