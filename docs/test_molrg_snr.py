"""The class SNR: closed form, Monte Carlo and the paper's tables."""

from itertools import product

import pytest
import torch
from molrg_snr import class_rates, closed_form_snr, is_unimodal, measure_class_snr
from posterior import PosteriorMean
from sklearn.linear_model import RidgeClassifier

from unimodal_monitor.denoisers.memorizer import Memorizer
from unimodal_monitor.theory.molrg import MoLRG

SIGMAS = torch.tensor([0.008, 0.023, 0.06, 0.14, 0.296, 0.585, 1.088, 1.923])
"""Of the paper's table 4: K = 2, d = 5, delta = 0.2. Its n = 50 changes nothing: see test_posterior.py."""
TABLE_4 = torch.tensor([24.88, 25.15, 26.95, 35.84, 58.27, 20.84, 4.05, 1.57], dtype=torch.float64)
TABLE_4_OVERLAP = torch.tensor([16.70, 16.92, 18.39, 25.97, 38.54, 22.88, 14.56, 12.55], dtype=torch.float64)
ORTHOGONAL, OVERLAPPING = MoLRG(2, 5, 0.2), MoLRG(2, 5, 0.2, angle_deg=30.0)


def measured(data, sigmas, *, num=8_000):
    return measure_class_snr(PosteriorMean(data), data, torch.as_tensor(sigmas), num=num).mean


def plug_in_denoiser(data):
    """Proposition 1 for the bases as they are: no posterior mean unless the classes are orthogonal."""
    subspaces, delta2 = data.subspaces().double(), data.delta**2

    def denoise(noised, sigma):
        variance = sigma.double().square()[:, None]
        kept, dropped = 1 / (1 + variance), delta2 / (delta2 + variance)
        codes = torch.einsum("nx,kxd->nkd", noised.double(), subspaces)
        weights = (codes.square().sum(2) * (kept - dropped) / (2 * variance)).softmax(1)
        return torch.einsum("nk,nkd,kxd->nx", dropped + (kept - dropped) * weights, codes, subspaces).to(noised)

    return denoise


@pytest.mark.slow
def test_orthogonal_row_of_table_4_is_reproduced():
    """Every level within 3 % of the paper's learned denoiser: 2.4 % at sigma = 0.585, 1 % at the others."""
    torch.testing.assert_close(measured(ORTHOGONAL, SIGMAS, num=400_000), TABLE_4, rtol=0.03, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make_denoiser", "known_ratio"),
    [
        (PosteriorMean, [1.50, 1.49, 1.46, 1.31, 1.04, 1.00, 0.99, 0.99]),
        (plug_in_denoiser, [0.97, 0.97, 0.96, 0.95, 1.09, 1.15, 1.10, 1.08]),
    ],
)
def test_overlapping_row_of_table_4_is_reproduced_in_part(make_denoiser, known_ratio):
    """By the posterior mean beyond the peak only; by the plug-in denoiser nearly, below the peak only.

    Below the peak no posterior mean can reach the table: without noise its ratio is the data's, 1 / delta^2 = 25.
    """
    snr = measure_class_snr(make_denoiser(OVERLAPPING), OVERLAPPING, SIGMAS, num=100_000).mean
    torch.testing.assert_close(snr / TABLE_4_OVERLAP, torch.tensor(known_ratio).double(), rtol=0.015, atol=0)


def test_ratios_of_overlapping_classes_without_noise_are_known_by_hand():
    """The posterior mean returns the sample; the plug-in denoiser applies both projections to it."""
    low, cos2, sin2 = torch.tensor([1e-4]), 0.75, 0.25
    plugged_in = ((1 + cos2) ** 2 + 0.04 * cos2 * sin2) / (cos2 * sin2 + 0.04 * sin2**2)
    assert measured(OVERLAPPING, low).item() == pytest.approx(1 / 0.04, rel=0.03)
    snr = measure_class_snr(plug_in_denoiser(OVERLAPPING), OVERLAPPING, low, num=8_000)
    assert snr.mean.item() == pytest.approx(plugged_in, rel=0.01)


def test_monte_carlo_equals_the_closed_form_except_near_the_peak_of_low_ranks():
    """Which the closed form overshoots, at too much noise."""
    data, sigmas = MoLRG(2, 10, 0.2), torch.tensor([0.01, 0.05, 0.1, 2.5, 6.0])
    torch.testing.assert_close(measured(data, sigmas), closed_form_snr(data, sigmas), rtol=0.05, atol=0)
    sigmas = torch.logspace(-1, 0.2, 8)
    exact, closed = measured(ORTHOGONAL, sigmas), closed_form_snr(ORTHOGONAL, sigmas)
    assert closed.max() > 1.5 * exact.max()
    assert closed.argmax() > exact.argmax()


@pytest.mark.parametrize("mixture", [(2, 5, 0.2), (5, 8, 0.3), (2, 2, 0.7), (10, 2, 0.6)])
def test_posterior_mean_rises_to_a_peak_only_where_the_condition_is_true(mixture):
    """By closed form and by Monte Carlo."""
    data, sigmas = MoLRG(*mixture), torch.logspace(-1, 0.4, 7)
    assert is_unimodal(data) == (data.delta < 0.5)
    for snr in (measured(data, sigmas), closed_form_snr(data, sigmas)):
        peak = int(snr.argmax())
        assert 0 < peak < 6 if is_unimodal(data) else peak == 0
        assert (snr[: peak + 1].diff() > 0).all()
        assert (snr[peak:].diff() < 0).all()


def test_condition_tells_whether_the_closed_form_rises_first():
    for num_classes, delta, rank in product((2, 3, 10), (0.1, 0.3, 0.5, 0.7, 0.9), (1, 2, 5, 20)):
        data = MoLRG(num_classes, rank, delta)
        assert is_unimodal(data) == bool(closed_form_snr(data, torch.tensor([1e-4, 1e-3])).diff() > 0), data


def test_rates_are_those_of_a_certain_class_without_noise_and_of_an_undetermined_one_with_much():
    rates = class_rates(MoLRG(4, 20, 0.2), torch.tensor([1e-4, 1e3]))
    torch.testing.assert_close(rates.confidence, torch.tensor([1.0, 0.96 / 4 + 0.04]).double(), rtol=0, atol=1e-4)
    torch.testing.assert_close(rates.confusion, torch.tensor([0.04, 0.96 / 4 + 0.04]).double(), rtol=0, atol=1e-4)
    assert rates.denoising[0] < 1e-6


def test_separated_means_make_the_ratio_fall_from_the_start():
    """An ideal denoiser whose curve is not unimodal, as in the paper's table 7 (.54 to .297)."""
    snr = measured(MoLRG(3, 5, 0.3, mean_distance=3.0), torch.logspace(-1.5, 0.2, 7))
    assert snr[0].item() == pytest.approx(0.5, abs=0.05)
    assert (snr.diff() < 1e-3).all()
    assert snr[-1] < 0.6 * snr[0]


def probe_accuracy(data, sigma):
    clean, labels = data.sample(6_000, seed=0)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(10))
    denoised = PosteriorMean(data)(clean + sigma * noise, torch.full((6_000,), sigma)).double()
    return RidgeClassifier(alpha=1e-3).fit(denoised[::2], labels[::2]).score(denoised[1::2], labels[1::2])


def test_linear_probe_of_separated_classes_only_gets_worse():
    """Perfect without noise, as in table 7; near chance for classes of one mean, which are not linearly separable."""
    sigmas = (0.03, 0.3, 1.0, 1.5, 2.5)
    separated = [probe_accuracy(MoLRG(2, 5, 0.2, mean_distance=3.0), sigma) for sigma in sigmas]
    assert separated[:2] == [1.0, 1.0]
    assert separated[1] > separated[2] > separated[3] > separated[4]
    assert [probe_accuracy(ORTHOGONAL, sigma) for sigma in sigmas] == pytest.approx([0.5] * 5, abs=0.15)


def test_memorizer_of_few_samples_is_not_unimodal_and_the_posterior_mean_is():
    sigmas = torch.tensor([0.02, 0.1, 0.3, 0.6, 1.2, 2.4])
    memorizer = Memorizer(ORTHOGONAL.sample(20, seed=5)[0])
    lost, kept = measure_class_snr(memorizer, ORTHOGONAL, sigmas, num=4_000).mean, measured(ORTHOGONAL, sigmas)
    assert kept.max() > 1.5 * kept[0]
    assert lost.max() < 1.1 * lost[0]


def test_standard_error_is_the_spread_over_seeds():
    data, sigmas = MoLRG(3, 5, 0.3), torch.tensor([0.1, 0.6])
    runs = [measure_class_snr(PosteriorMean(data), data, sigmas, num=900, seed=10 * seed) for seed in range(40)]
    spread = torch.stack([run.mean for run in runs]).std(0)
    torch.testing.assert_close(torch.stack([run.errors for run in runs]).mean(0), spread, rtol=0.33, atol=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: closed_form_snr(OVERLAPPING, SIGMAS), "angle_deg = 90 .* got 30.0"),
        (lambda: measured(OVERLAPPING, SIGMAS, num=3), "num = 3"),
        (lambda: measured(OVERLAPPING, [0.0]), "positive"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
