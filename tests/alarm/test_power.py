"""The planned power, against the rule on simulated images and against the integral that defines it."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import chi, norm
from scipy.stats import t as student
from simulated import HUMPED, SIGMAS, STD, simulated_curve, simulated_scores
from simulated_checks import simulated_check

from unimodal_monitor.alarm.losses import RiseLost
from unimodal_monitor.alarm.power import Plan, images_needed, power_table, scored_images, smallest_rise, spread_of
from unimodal_monitor.cli import main
from unimodal_monitor.report.jsonl import JsonlReporter
from unimodal_monitor.signals import Measured
from unimodal_monitor.stats.estimate import Curve
from unimodal_monitor.stats.verdict import Shape, judge

PLAN = Plan(50)


def two_checks(rise, num_images, plan, *, seed):
    """The rise is there at the first check and gone at the middle one; the other interior levels lie far below."""
    checks, noise_CKM = [], np.random.default_rng(seed).standard_normal((2, len(SIGMAS), num_images)) * 0.5**0.5
    noise_CKM[:, 1] = noise_CKM[:, 0]  # the low end: an interior level differs from it with standard deviation 1
    noise_CKM[1] = plan.correlation * noise_CKM[0] + (1 - plan.correlation**2) ** 0.5 * noise_CKM[1]
    for peak, spread, noise_KM in ((rise, plan.spread, noise_CKM[0]), (0, plan.spread_when_lost, noise_CKM[1])):
        mean_K = np.array([1, 1, 0.6, 0.6, 0.6, 1 + peak, 0.6, 0.6, 0.1])
        score_KM = torch.from_numpy(0.3 * (mean_K[:, None] + spread * noise_KM))
        checks.append(Measured(SIGMAS, STD, ("mid_block",), "score", score={"mid_block": score_KM}))
    return checks


def findings_of(rise, num_images, plan, *, seed):
    """The findings of `RiseLost` at the first check and at the middle one."""
    first, middle = two_checks(rise, num_images, plan, seed=seed)
    before = RiseLost().test(first, None, number=1, step=1, alpha=2 * plan.alpha)
    return before, RiseLost().test(middle, before.reference, number=plan.middle, step=2, alpha=2 * plan.alpha)


def assert_share(found, probability):
    """Within three Monte Carlo errors and half a run, where the power is neither 0 nor 1."""
    error = (probability * (1 - probability) / len(found)) ** 0.5
    assert 0.15 < np.mean(found) < 0.98
    assert np.mean(found) == pytest.approx(probability, abs=3 * error + 0.5 / len(found))


def row_of(rise, num_images=1334, plan=PLAN):
    return power_table(num_images, plan, rises=[rise])[0]


def test_verdicts_are_unimodal_as_often_as_predicted():
    scores = [two_checks(0.04, 1334, PLAN, seed=seed)[0].score["mid_block"] for seed in range(30)]
    curves = [Curve.from_images("mid_block", SIGMAS, STD, score_KN=score, score_name="score") for score in scores]
    assert_share([judge(curve).shape is Shape.UNIMODAL for curve in curves], row_of(0.04).unimodal)


@pytest.mark.parametrize(("rise", "num_images", "num_checks"), [(0.05, 1334, 50), (0.06, 1334, 200), (0.18, 150, 10)])
def test_rises_are_significant_as_often_as_predicted(rise, num_images, num_checks):
    """At the type-I error that the alarm allows."""
    plan = Plan(num_checks)
    found = [findings_of(rise, num_images, plan, seed=seed)[0].reference is not None for seed in range(150)]
    assert_share(found, row_of(rise, num_images, plan).significant)


@pytest.mark.parametrize(
    ("rise", "num_images", "plan"),
    [
        (0.10, 1334, Plan(50, spread_when_lost=0.45, correlation=0.6)),
        (0.40, 150, Plan(50, spread_when_lost=0.45)),
        (0.09, 1334, Plan(50, spread_when_lost=0.3, correlation=0.0)),
    ],
)
def test_losses_are_detected_as_often_as_predicted(rise, num_images, plan):
    """Compared with a first check at which the rise is nearly always significant."""
    found = [findings_of(rise, num_images, plan, seed=seed) for seed in range(150)]
    assert_share(
        [before.reference is not None and after.triggered for before, after in found],
        row_of(rise, num_images, plan).lost,
    )


@pytest.mark.parametrize("num_images", [5, 20, 150, 2000])
@pytest.mark.parametrize("effect", [0.5, 3, 5, 8])
def test_power_is_the_integral_over_the_estimated_standard_deviation(num_images, effect):
    """P(Z + effect > critical * S), where S sqrt(M - 1) has the chi distribution."""
    critical, degrees = student.isf(PLAN.alpha / 6, num_images - 1), num_images - 1
    density = chi(degrees, scale=degrees**-0.5)
    expected, _ = quad(lambda s: norm.cdf(effect - critical * s) * density.pdf(s), *density.ppf([1e-12, 1 - 1e-12]))
    row = row_of(RiseLost().min_rise + effect * PLAN.spread / num_images**0.5, num_images)
    assert row.significant == pytest.approx(expected, abs=1e-7)


def test_the_smallest_rise_and_the_images_needed_have_the_power_wanted():
    assert row_of(smallest_rise(1334, PLAN)).significant == pytest.approx(0.8)
    needed = images_needed(0.04, PLAN)
    assert row_of(0.04, needed - 1).significant < 0.8 <= row_of(0.04, needed).significant


def test_the_spread_of_the_images_follows_from_the_covariance_of_the_means():
    score_KM = simulated_scores(HUMPED, num_images=2000, seed=3)[0].numpy()
    low_M = score_KM[:2].mean(0)
    expected = (score_KM[score_KM.mean(1).argmax()] - low_M).std(ddof=1) / low_M.mean()
    assert spread_of(simulated_curve(HUMPED, seed=3)) == pytest.approx(expected, rel=1e-5)


def test_command_prints_the_table_and_how_many_images_are_needed(capsys):
    assert main(["power"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"4\.0% +{0.unimodal:.0%} +{0.significant:.0%} +{0.lost:.0%}\n".format(row_of(0.04)), printed)
    heldout = int(re.search(r"takes ([\d,]+) held-out", printed)[1].replace(",", ""))
    assert scored_images(heldout) == images_needed(0.04, PLAN)


def test_command_takes_the_spread_of_the_last_check_of_an_earlier_run(tmp_path, capsys):
    check = simulated_check(20)
    JsonlReporter(tmp_path).report([simulated_check(10), check], {})
    main(["power", "--from", str(tmp_path)])
    assert f"by {spread_of(check.curve):.0%} of the curve's height (measured in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--num-heldout 2", "num_fit = 0 of 2"),
        ("--num-heldout 100 --num-fit 100", "num_fit = 100 of 100"),
        ("--checks 0", "num_checks = 0"),
        ("--from nowhere", "nowhere"),
        ("--from .", "no check yet"),
    ],
)
def test_command_refuses_impossible_plans(arguments, message, capsys, tmp_path, monkeypatch):
    """In one line with the usage, not with a traceback."""
    monkeypatch.chdir(tmp_path)
    Path("checks.jsonl").touch()
    with pytest.raises(SystemExit, match="2"):
        main(["power", *arguments.split()])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Plan(50, spread=float("nan")), "positive spreads, got nan"),
        (lambda: Plan(50, correlation=1.1), "correlation .* got 1.1"),
        (lambda: power_table(1, PLAN), "at least 2 images"),
        (lambda: images_needed(0.005, PLAN), "got 0.005"),
        (lambda: spread_of(simulated_curve((-0.1,) * 9)), "positive height"),
    ],
)
def test_arguments_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
