"""The command line: `unimodal-monitor demo`, `power` and `plan`."""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

SEEN_RISE = 0.04  # of the curve's height: the size on CIFAR-10 with 256 members


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="unimodal-monitor", description=__doc__)
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('unimodal-monitor')}")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_demo(commands.add_parser("demo", help="train twice, on few images and on many, and watch the alarm"))
    _add_power(commands.add_parser("power", help="how large a rise a probe set of some size can show"))
    _add_plan(commands.add_parser("plan", help="scale a short run on few images to many: when copies are expected"))
    options = parser.parse_args(arguments)
    options.run(options)
    return 0


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("unimodal_demo"), help="folder for figures and checks.jsonl")
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(run=_run_demo)


def _run_demo(options: argparse.Namespace) -> None:
    from unimodal_monitor.demo import run_demo

    run_demo(options.out, seed=options.seed)


def _add_power(parser: argparse.ArgumentParser) -> None:
    from_help = "folder or checks.jsonl of a run like the one planned, to measure the spread in place of assuming it"
    parser.add_argument("--num-heldout", type=int, default=2000, help="held-out images, to fit the probe and to score")
    parser.add_argument("--checks", type=int, default=50, help="of the run; give Alarm(planned_checks=...) the same")
    parser.add_argument("--num-fit", type=int, help="held-out images that the probe is fitted on; a third if left out")
    parser.add_argument("--from", type=Path, dest="source", metavar="FOLDER_OR_JSONL", help=from_help)
    parser.set_defaults(run=partial(_run, parser, _describe_power))


def _add_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--members", type=int, required=True, help="number of training images of the planned run")
    parser.add_argument("--from", type=Path, dest="source", metavar="FOLDER_OR_JSONL", required=True)
    parser.add_argument("--from-members", type=int, required=True, help="number of training images of that run")
    parser.set_defaults(run=partial(_run, parser, _describe_plan))


def _run(
    parser: argparse.ArgumentParser, describe: Callable[[argparse.Namespace], str], options: argparse.Namespace
) -> None:
    try:
        print(describe(options))
    except (ValueError, OSError) as error:
        parser.error(str(error))


def _describe_plan(options: argparse.Namespace) -> str:
    from unimodal_monitor.alarm.forecast import MIN_GAP, scaled_to
    from unimodal_monitor.check import forecast_of
    from unimodal_monitor.report.jsonl import read_checks

    found = forecast_of(read_checks(options.source))
    if found is None:
        raise ValueError(f"{options.source} has no normalized gap over {MIN_GAP} that grows; continue that run")
    planned = scaled_to(found, from_members=options.from_members, to_members=options.members)
    return f"With {options.members:,} members and the same batch size: {planned.sentence('steps')}."


def _describe_power(options: argparse.Namespace) -> str:
    from unimodal_monitor.alarm.power import SPREAD, Plan, images_needed, power_table, scored_images, smallest_rise

    num_images = scored_images(options.num_heldout, options.num_fit)
    spread = SPREAD if options.source is None else _measured_spread(options.source)
    plan = Plan(options.checks, spread=spread, spread_when_lost=Plan.spread_when_lost * spread / SPREAD)
    needed = images_needed(SEEN_RISE, plan)
    num_fit = (needed - 1) // 2 if options.num_fit is None else options.num_fit
    origin = "assumed, as on CIFAR-10" if options.source is None else f"measured in {options.source}"
    rows = [
        f"{row.rise:7.1%} {row.unimodal:19.0%} {row.significant:18.0%} {row.lost:11.0%}"
        for row in power_table(num_images, plan)
    ]
    return "\n".join(
        [
            f"{num_images:,} of {options.num_heldout:,} held-out images are scored, at {plan.num_checks} checks.",
            f"A rise varies between images by {spread:.0%} of the curve's height ({origin});",
            f"by {plan.spread_when_lost:.0%} once it is lost; its correlation between two checks is "
            f"{plan.correlation} (assumed).",
            "",
            "   rise   verdict UNIMODAL   rise significant   loss seen   (probability at one check in mid-run)",
            *rows,
            "",
            f"One check finds a rise of {smallest_rise(num_images, plan):.1%} significant with 80% probability; for "
            f"{SEEN_RISE:.0%}, as on CIFAR-10 with 256 members, it takes {needed + num_fit:,} held-out images, "
            f"{num_fit:,} of them to fit the probe.",
        ]
    )


def _measured_spread(source: Path) -> float:
    from unimodal_monitor.alarm.power import spread_of
    from unimodal_monitor.report.jsonl import read_checks

    checks = read_checks(source)
    if not checks:
        raise ValueError(f"{source} holds no check yet; name a run that has one")
    return spread_of(checks[-1].curve)
