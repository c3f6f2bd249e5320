"""Runs that cannot memorize: how often does the alarm find something all the same?

    python benchmarks/healthy.py --steps 4000
    python benchmarks/healthy.py --steps 12000 --only "width 16"

Every vector of the MoLRG mixture is trained on once, so that there is nothing to memorize; the members are some of
those, from the first tenth of the run. Learning rate, average, batch and network change on the way, as in real jobs.
The last column is the alarm of earlier versions, which rested on the rise of the curve alone.
"""

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from former_alarm import LossAlone
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from unimodal_monitor import Alarm, AlarmState, EDMDenoiser, Monitor, ProbeSet, RiseLost
from unimodal_monitor.alarm.alarm import AlarmMemory
from unimodal_monitor.theory.mlp import MLPDenoiser
from unimodal_monitor.theory.molrg import MoLRG

NUM_MEMBERS, NUM_HELDOUT, NUM_CHECKS = 512, 6_000, 20


@dataclass(frozen=True)
class Job:
    """How a run differs from the plain one; each value is a function of the share of the run that is done."""

    name: str
    width: int = 64
    rate: Callable[[float], float] = lambda done: 2e-3
    batch: Callable[[float], int] = lambda done: 256
    average_from: float | None = None  # share of the run from which averaged weights are watched
    noise: float = 0.0  # added to a vector when it is trained on, as an augmentation


JOBS = (
    Job("width 16", width=16),
    Job("width 32", width=32),
    Job("width 64"),
    Job("width 128", width=128),
    Job("learning rate drops by ten", rate=lambda done: 2e-3 if done < 0.5 else 2e-4),
    Job("learning rate drops by ten, width 32", width=32, rate=lambda done: 2e-3 if done < 0.5 else 2e-4),
    Job("cosine decay", rate=lambda done: 1e-3 * (1 + math.cos(math.pi * done))),
    Job("average from the start", average_from=0.0),
    Job("average from the middle", average_from=0.5),
    Job("batch grows eightfold", batch=lambda done: 64 if done < 0.5 else 512),
    Job("augmented members", noise=0.2),
    Job("augmented members, cosine decay", noise=0.2, rate=lambda done: 1e-3 * (1 + math.cos(math.pi * done))),
)


@dataclass(frozen=True)
class Result:
    """The states of one run, the largest growth and gap that were measured, and the states of the curve alone."""

    states: list[AlarmState]
    growth: float
    gap: float
    curve_alone: list[AlarmState]


def run(job: Job, *, steps: int, seed: int) -> Result:
    torch.manual_seed(seed)
    data = MoLRG()
    network = MLPDenoiser(data.dim, data.std, width=job.width)
    average = AveragedModel(network, avg_fn=lambda old, new, num: old.lerp(new, 0.005))
    members = data.sample(NUM_MEMBERS, seed=10 * seed + 1)
    heldout = data.sample(NUM_HELDOUT, seed=10 * seed + 2)
    watched = MLPDenoiser(data.dim, data.std, width=job.width)
    probe_set = ProbeSet.from_datasets(members, heldout)
    monitor = Monitor(EDMDenoiser(watched), probe_set, layer="blocks.1", reporters=(), copy_audit=None)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.0)
    old, old_memory, former = Alarm(rules=(LossAlone(RiseLost()),), planned_checks=50), AlarmMemory(), []
    order = torch.randperm(steps // 10, generator=torch.Generator().manual_seed(seed)).tolist()
    once = dict(zip(order, torch.split(members[0], -(-NUM_MEMBERS // len(order))), strict=False))
    for step in range(1, steps + 1):
        done = step / steps
        for group in optimizer.param_groups:
            group["lr"] = job.rate(done)
        fresh = data.sample(job.batch(done), seed=10**6 * (seed + 1) + step)[0]
        batch = torch.cat([once[step], fresh[len(once[step]) :]]) if step in once else fresh
        loss = edm_loss(network, batch + job.noise * torch.randn_like(batch) * data.std)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update_parameters(network)
        if step % (steps // NUM_CHECKS) == 0:
            is_averaged = job.average_from is not None and done > job.average_from
            watched.load_state_dict((average.module if is_averaged else network).state_dict())
            check = monitor.check(step)
            old_memory, _, _ = old.update(old_memory, check.measured, step=step)
            former.append(old_memory.state)
    return Result(
        [check.state for check in monitor.history],
        max(max(found.value) for check in monitor.history if (found := check.signal("growth")) is not None),
        max(max(found.value) for check in monitor.history if (found := check.signal("normalized_gap")) and found.value),
        former,
    )


def edm_loss(network: MLPDenoiser, batch: Tensor) -> Tensor:
    std = network.data_std
    sigma = (torch.randn(len(batch)) - 0.7).exp() * (std / 0.5)
    weight = (sigma**2 + std**2) / sigma**2
    error = (network(batch + sigma[:, None] * torch.randn_like(batch), sigma) - batch).square()
    return (weight[:, None] * error).mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4_000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", default="", help="part of the names of the runs to make")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| run | seed | states | largest growth | largest gap | the curve alone | seconds |")
    print("|---|---|---|---|---|---|---|")
    found: list[Result] = []
    for job in (job for job in JOBS if args.only in job.name):
        for seed in range(args.seeds):
            start = time.perf_counter()
            found.append(result := run(job, steps=args.steps, seed=seed))
            states = " -> ".join(dict.fromkeys(state.value for state in result.states))
            alone = "raised" if AlarmState.MEMORIZING in result.curve_alone else "silent"
            seconds = f"{time.perf_counter() - start:.0f}"
            cells = (job.name, seed, states, f"{result.growth:+.1%}", f"{result.gap:.3f}", alone, seconds)
            print(f"| {' | '.join(map(str, cells))} |", flush=True)
    for state in (AlarmState.ONSET, AlarmState.MEMORIZING):
        print(f"{state.value}: in {sum(state in one.states for one in found)} of {len(found)} runs")
    print(
        f"the curve alone: raised in {sum(AlarmState.MEMORIZING in one.curve_alone for one in found)} of {len(found)}"
    )


if __name__ == "__main__":
    main()
