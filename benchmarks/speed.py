"""What a check costs: ratios measured side by side in one run, in one table.

    python benchmarks/speed.py
    python benchmarks/speed.py --device cuda --num-images 20000 --batch-size 4608

About three minutes on one free core. `--cache` takes features that `zoo.py` wrote in place of simulated ones.
"""

import argparse
import os
from pathlib import Path

import torch
from speed_costs import budget_row, compile_row, count_row, memory_row
from speed_forwards import forwards_rows, ranks_row
from speed_probes import probe_rows
from threadpoolctl import threadpool_limits


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    load = os.getloadavg()[0]
    with threadpool_limits(args.threads):
        rows, per_forward = forwards_rows(args)
        rows += probe_rows(args, per_forward)
    rows += [count_row(), budget_row(), memory_row(), compile_row(), ranks_row(args)]
    gpu = f", {torch.cuda.get_device_name()}" if args.device == "cuda" else ""
    print(f"\ntorch {torch.__version__}, threads: {args.threads} of {os.cpu_count()} cores{gpu}, load {load:.1f}\n")
    print("| what | measured | ratio | target | shapes |\n|---|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--num-images", type=int, default=600, help="images of a check, a third of them to fit on")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--cache", type=Path, help="features of real networks that zoo.py wrote")
    return parser.parse_args()


if __name__ == "__main__":
    main()
