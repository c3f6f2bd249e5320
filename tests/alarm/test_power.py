"""The planned power, against the rules themselves on images drawn one by one."""

import re

import numpy as np
import pytest
import torch
from scipy.stats import nct
from scipy.stats import t as student
from simulated import HUMPED, SIGMAS, STD, simulated_check, simulated_curve, simulated_outcomes

from unimodal_monitor.alarm.power import Plan, images_needed, power_table, scored_images, smallest_rise, spread_of
from unimodal_monitor.alarm.rules.base import Look
from unimodal_monitor.alarm.rules.rise import RiseLost
from unimodal_monitor.cli import main
from unimodal_monitor.report.jsonl import JsonlReporter
from unimodal_monitor.stats.estimate import Curve, Estimate
from unimodal_monitor.stats.verdict import Shape, judge

PLAN = Plan(50)
HEIGHT, PEAK = 0.3, 5


def drawn_noise_KM(generator, num_images):
    """Image by image; the difference of an interior level and the low end has the deviation 1."""
    noise_KM = generator.standard_normal((len(SIGMAS), num_images)) * 0.5**0.5
    noise_KM[1] = noise_KM[0]
    return noise_KM


def drawn_look(rise, noise_KM, *, number, spread):
    """All interior levels but the peak lie far below."""
    mean_K = np.array([1, 1, 0.6, 0.6, 0.6, 1 + rise, 0.6, 0.6, 0.1])
    score_KM = HEIGHT * (mean_K[:, None] + spread * noise_KM)
    estimate = Estimate.from_images("score", torch.from_numpy(score_KM)[:, None])
    curve = Curve("mid_block", tuple(SIGMAS.tolist()), STD, score_KM.shape[1], estimate, estimate)
    return Look(number, number, curve, score_KM)


def two_checks(rise, num_images, *, seed, plan=PLAN):
    """The rise is there at the first check, and gone in mid-run."""
    generator = np.random.default_rng(seed)
    before_KM, fresh_KM = drawn_noise_KM(generator, num_images), drawn_noise_KM(generator, num_images)
    after_KM = plan.correlation * before_KM + (1 - plan.correlation**2) ** 0.5 * fresh_KM
    return (
        drawn_look(rise, before_KM, number=1, spread=plan.spread),
        drawn_look(0, after_KM, number=plan.middle, spread=plan.spread_when_lost),
    )


def is_near(share, probability, num_runs):
    """Within three Monte Carlo errors and half a run, and a percent for the formula."""
    error = (probability * (1 - probability) / num_runs) ** 0.5
    return abs(share - probability) < 3 * error + 0.5 / num_runs + 0.01


def row_of(rise, num_images=1334, plan=PLAN):
    return power_table(num_images, plan, rises=[rise])[0]


@pytest.mark.parametrize(("rise", "num_images"), [(0.03, 1334), (0.04, 1334), (0.12, 150)])
def test_verdicts_are_unimodal_as_often_as_foretold(rise, num_images):
    """By `judge` itself."""
    looks = [two_checks(rise, num_images, seed=seed)[0] for seed in range(150)]
    share = np.mean([judge(look.curve).shape is Shape.UNIMODAL for look in looks])
    assert is_near(share, row_of(rise, num_images).unimodal, 150)
    assert 0.15 < share < 0.95


@pytest.mark.parametrize(("rise", "num_images", "num_checks"), [(0.05, 1334, 50), (0.06, 1334, 200), (0.18, 150, 10)])
def test_rises_are_established_as_often_as_foretold(rise, num_images, num_checks):
    """By `RiseLost` itself, at the error that the alarm gives it."""
    plan, num_runs = Plan(num_checks), 400
    found = [
        RiseLost().look(two_checks(rise, num_images, seed=seed)[0], error=2 * plan.error).reaches
        for seed in range(num_runs)
    ]
    assert is_near(np.mean(found), row_of(rise, num_images, plan).established, num_runs)
    assert 0.15 < np.mean(found) < 0.98


@pytest.mark.parametrize(
    ("rise", "num_images", "plan"),
    [
        (0.12, 1334, Plan(50, spread_when_lost=0.45)),
        (0.10, 1334, Plan(10, spread_when_lost=0.45)),
        (0.10, 1334, Plan(50, spread_when_lost=0.45, correlation=0.6)),
        (0.40, 150, Plan(50, spread_when_lost=0.45)),
        (0.09, 1334, Plan(50, spread_when_lost=0.3, correlation=0.0)),
    ],
)
def test_losses_are_seen_as_often_as_foretold(rise, num_images, plan):
    """By `RiseLost` itself, against a first check that is all but sure to establish the rise."""
    num_runs, found = 400, []
    for seed in range(num_runs):
        rule = RiseLost()
        before, after = two_checks(rise, num_images, seed=seed, plan=plan)
        found.append(rule.look(before, error=2 * plan.error).reaches and rule.look(after, error=2 * plan.error).holds)
    assert is_near(np.mean(found), row_of(rise, num_images, plan).lost, num_runs)
    assert 0.15 < np.mean(found) < 0.98


@pytest.mark.parametrize("num_images", [20, 150, 2000])
def test_power_is_that_of_the_non_central_t(num_images):
    """The normal approximation, against scipy's exact distribution."""
    critical = student.isf(PLAN.error / 6, num_images - 1)
    for effect in (3, 4, 5, 6):
        rise = 0.005 + effect * PLAN.spread / num_images**0.5
        exact = nct.sf(critical, num_images - 1, effect)
        assert row_of(rise, num_images).established == pytest.approx(exact, abs=0.02)


def test_more_images_and_larger_rises_show_more_and_more_checks_show_less():
    """In every column but the verdict's, which knows of no other check."""
    few, many = power_table(500, PLAN), power_table(1000, PLAN)
    longer = power_table(500, Plan(500))
    for fewer, more, later in zip(few, many, longer, strict=True):
        assert later.established < fewer.established
        assert later.lost < fewer.lost
        assert later.unimodal == fewer.unimodal
        assert fewer.unimodal < more.unimodal or more.unimodal > 0.999
        assert fewer.established < more.established
        assert fewer.lost < more.lost
    for column in ("unimodal", "established", "lost"):
        values = [getattr(row, column) for row in many]
        assert values == sorted(values)


def test_the_smallest_rise_and_the_images_needed_are_two_sides_of_one_table():
    """Both have a power of 80 %, and one image less falls short."""
    assert row_of(smallest_rise(1334, PLAN)).established == pytest.approx(0.8)
    needed = images_needed(0.04, PLAN)
    assert row_of(0.04, needed - 1).established < 0.8 <= row_of(0.04, needed).established


def test_spread_is_that_of_the_images():
    """From the covariance alone, as from the scores themselves."""
    score_KM = simulated_outcomes(HUMPED, seed=3).score_KRM[:, 0].double().numpy()
    low_M = score_KM[:2].mean(0)
    expected = (score_KM[score_KM.mean(1).argmax()] - low_M).std(ddof=1) / low_M.mean()
    assert spread_of(simulated_curve(HUMPED, seed=3)) == pytest.approx(expected, rel=1e-5)


def test_command_prints_the_table_and_how_many_images_are_needed(capsys):
    """The defaults are those in the help, and a third is for fitting."""
    assert main(["power"]) == 0
    printed = capsys.readouterr().out
    assert main(["power", "--num-heldout", "2000", "--checks", "50", "--num-fit", "666"]) == 0
    assert capsys.readouterr().out.splitlines()[:-1] == printed.splitlines()[:-1]
    assert "1,334 of 2,000 held-out images" in printed
    assert "by 45% of the curve's height (assumed, as on CIFAR-10)" in printed
    assert "correlation between two checks is 0.3 (assumed)" in printed
    assert len(re.findall(r"^ +\d+\.\d% .*%$", printed, re.MULTILINE)) == 7
    row = row_of(0.04)
    assert re.search(rf"4\.0% +{row.unimodal:.0%} +{row.established:.0%} +{row.lost:.0%}\n", printed)
    heldout, num_fit = (
        int(text.replace(",", "")) for text in re.findall(r"takes ([\d,]+) .*, ([\d,]+) of them", printed)[0]
    )
    assert heldout // 3 == num_fit
    assert scored_images(heldout) == images_needed(0.04, PLAN)


def test_command_takes_the_spread_of_an_earlier_run(tmp_path, capsys):
    """From its last check."""
    check = simulated_check(20)
    JsonlReporter(tmp_path).report([simulated_check(10), check])
    for source in (tmp_path, tmp_path / "checks.jsonl"):
        main(["power", "--from", str(source)])
        assert f"by {spread_of(check.curve):.0%} of the curve's height (measured in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-heldout", "2"], "num_fit = 0 of num_heldout = 2"),
        (["--num-heldout", "100", "--num-fit", "100"], "num_fit = 100 of num_heldout = 100"),
        (["--num-heldout", "100", "--num-fit", "-1"], "num_fit = -1 of"),
        (["--checks", "0"], "num_checks = 0"),
        (["--from", "nowhere"], "nowhere"),
    ],
)
def test_command_refuses_what_makes_no_sense(arguments, message, capsys):
    """In one line and with the usage, not with a traceback."""
    with pytest.raises(SystemExit, match="2"):
        main(["power", *arguments])
    assert message in capsys.readouterr().err


def test_command_refuses_a_run_without_checks(tmp_path, capsys):
    """Nothing to measure the spread on."""
    (tmp_path / "checks.jsonl").write_text("")
    with pytest.raises(SystemExit, match="2"):
        main(["power", "--from", str(tmp_path)])
    assert "holds no check yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Plan(0), "num_checks = 0"),
        (lambda: Plan(50, num_interior=0), "num_interior = 0"),
        (lambda: Plan(50, spread=0.0), "spread = 0.0"),
        (lambda: Plan(50, spread=float("nan")), "spread = nan"),
        (lambda: Plan(50, correlation=1.1), "correlation = 1.1"),
        (lambda: Plan(50, significance=1.0), "significance = 1.0"),
        (lambda: power_table(1, PLAN), "num_images = 1"),
        (lambda: smallest_rise(1, PLAN), "num_images = 1"),
        (lambda: images_needed(0.005, PLAN), "rise = 0.005"),
        (lambda: spread_of(simulated_curve((-0.1,) * 9)), "has height -0"),
    ],
)
def test_an_argument_out_of_range_is_refused(make, message):
    """The error names the argument and what came."""
    with pytest.raises(ValueError, match=message):
        make()
