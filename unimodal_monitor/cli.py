"""The command line: `unimodal-monitor demo`."""

import argparse
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="unimodal-monitor", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="train twice, on few images and on many, and watch the alarm")
    demo.add_argument("--out", type=Path, default=Path("unimodal_demo"), help="folder for figures and checks.jsonl")
    demo.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    from unimodal_monitor.demo import run_demo

    run_demo(options.out, seed=options.seed)
    return 0
