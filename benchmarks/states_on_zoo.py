"""The default alarm over the zoo's three runs, checkpoint by checkpoint, beside the copies that were counted.

    python benchmarks/states_on_zoo.py --zoo ZOO --data CIFAR10 --num-heldout 3600

A full check of each checkpoint. They lie far apart, and a state takes two checks in a row, so that it comes late by one
checkpoint. "Triggered" has the rules that are significant at this checkpoint.
"""

import argparse
from pathlib import Path

import torch
from zoo import EDMPrecond, build_unet, load_denoiser, read_images, zoo_runs

from unimodal_monitor import EDMDenoiser, Monitor, ProbeSet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, required=True, help="folder with index.json, order.npy and checkpoints")
    parser.add_argument("--data", type=Path, required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--members", type=int, nargs="*", help="number of members of the runs (default: all)")
    parser.add_argument("--num-heldout", type=int, default=3_600, help="a twelfth of them are compared with members")
    args = parser.parse_args()
    stored = read_images(args.zoo, args.data, args.num_heldout)
    heldout = stored["images"].float() / 127.5 - 1, stored["labels"]
    print("| members, images seen, copies (%) | state | growth | normalized gap | rise | triggered | forwards |")
    print("|---|---|---|---|---|---|---|")
    for run in (run for run in zoo_runs(args.zoo) if not args.members or run[0].num_members in args.members):
        members = stored["members"][: run[0].num_members].float() / 127.5 - 1
        network = EDMPrecond(build_unet()).eval().to(memory_format=torch.channels_last)
        probe_set = ProbeSet.from_datasets(members, heldout, num_members=min(len(members), 4096))
        monitor = Monitor(EDMDenoiser(network), probe_set, reporters=(), batch_size=432)
        num_forwards = 0
        for checkpoint in run:
            network.load_state_dict(load_denoiser(checkpoint).network.state_dict())
            check = monitor.check(checkpoint.images_seen)
            num_forwards += check.num_forwards
            growth, gap = check.signal("growth"), check.signal("normalized_gap")
            names = ("growth", "gap and features", "gap over a half")
            triggered = [name for name, count in zip(names, monitor.memory.counts, strict=True) if count > 0]
            cells = [
                checkpoint.label.replace(" | ", ", "),
                check.state.value,
                "" if growth is None else f"{growth.headline.value:+.1%}",
                "" if gap is None or gap.headline is None else f"{gap.headline.value:.2f}",
                f"{check.verdict.rise:+.1%}",
                ", ".join(triggered),
                f"{num_forwards:,}",
            ]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
