"""The gap against closed forms, and its errors against repeated draws."""

import json

import numpy as np
import pytest
import torch

from unimodal_monitor.signals.gap import DenoisingGap, denoising_error
from unimodal_monitor.signals.pairing import paired_error, resampled_means

K = 3


def errors(num_members, num_heldout, *, seed, lead=0.3):
    """Errors with a part that comes from the shared noise; members are denoised better by `lead`."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(K, max(num_members, num_heldout), generator=generator, dtype=torch.float64)
    own = torch.rand(2, K, noise.shape[1], generator=generator, dtype=torch.float64)
    members, heldout = 2 + noise + own[0] - lead, 2 + noise + own[1]
    return members[:, :num_members], heldout[:, :num_heldout]


def gap_of(members, heldout, **options):
    gap = DenoisingGap(len(members), **options)
    gap.update(members, torch.arange(members.shape[1]), is_member=True)
    gap.update(heldout, torch.arange(heldout.shape[1]), is_member=False)
    return gap.compute()


def test_denoising_error_is_the_mean_square_of_each_image():
    """Against a loop."""
    denoised, clean = torch.randn(2, 4, 3, 5, 5), torch.randn(4, 3, 5, 5)
    found = denoising_error(denoised, clean)
    for level in range(2):
        for image in range(4):
            expected = (denoised[level, image] - clean[image]).square().mean()
            assert float(found[level, image]) == pytest.approx(float(expected), rel=1e-5)


def test_sets_of_one_size_have_the_error_of_paired_differences():
    """The usual paired standard error."""
    members, heldout = errors(50, 50, seed=0)
    found = gap_of(members, heldout)
    difference = (heldout - members).numpy()
    np.testing.assert_allclose(found.gap_K, difference.mean(1))
    np.testing.assert_allclose(found.error_K, difference.std(1, ddof=1) / 50**0.5)


@pytest.mark.parametrize(("num_members", "num_heldout"), [(40, 100), (100, 40)])
def test_errors_are_those_of_repeated_draws(num_members, num_heldout):
    """With sets of different sizes, of which a part is paired; ignoring the pairs would be a fifth too large."""
    found = [gap_of(*errors(num_members, num_heldout, seed=seed)) for seed in range(300)]
    spread = np.std([gap.gap_K.numpy() for gap in found], axis=0)
    np.testing.assert_allclose(torch.stack([gap.error_K for gap in found]).mean(0), spread, rtol=0.15)


def test_sets_without_a_common_number_are_independent():
    """Welch's error."""
    members, heldout = errors(30, 30, seed=0)
    gap = DenoisingGap(K)
    gap.update(members, torch.arange(30), is_member=True)
    gap.update(heldout, torch.arange(30, 60), is_member=False)
    torch.testing.assert_close(gap.compute().error_K, ((members.var(1) + heldout.var(1)) / 30).sqrt())


def test_the_bootstrap_has_the_paired_error():
    """Resampled means spread as the closed form says."""
    members, heldout = errors(300, 500, seed=0)
    pairs = (torch.arange(300), torch.arange(300))
    first, second = resampled_means(members, heldout, pairs=pairs, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close((first - second).std(1), paired_error(members, heldout, pairs=pairs), rtol=0.1, atol=0)
    torch.testing.assert_close(second.mean(1), heldout.mean(1), rtol=1e-2, atol=0)


def test_the_memorizer_has_a_normalized_gap_of_one_and_a_fair_network_of_zero():
    """And a network half way is half way."""
    memorizer, heldout = errors(400, 400, seed=0, lead=1.0)
    fair, _ = errors(400, 400, seed=0, lead=0.0)
    for network, expected in ((memorizer, 1.0), (fair, 0.0), ((memorizer + fair) / 2, 0.5)):
        found = gap_of(network, heldout, memorizer_error_KN=memorizer).normalized
        assert found.levels_L.tolist() == [0, 1, 2]
        torch.testing.assert_close(found.value_L, torch.full((K,), expected, dtype=torch.float64), rtol=0, atol=0.05)
        assert (found.low_L <= found.value_L + 1e-12).all()
        assert (found.value_L <= found.high_L + 1e-12).all()


def test_the_interval_covers_the_normalized_gap():
    """In 95 of 100 runs or about; the truth is 0.3."""
    covered = []
    for seed in range(100):
        members, heldout = errors(60, 90, seed=seed)
        memorizer, _ = errors(60, 90, seed=seed, lead=1.0)
        found = gap_of(members, heldout, memorizer_error_KN=memorizer).normalized
        covered.append(((found.low_L <= 0.3) & (found.high_L >= 0.3)).numpy())
    assert 0.89 < np.mean(covered) <= 0.99


def test_levels_at_which_the_memorizer_does_not_lead_are_left_out():
    """No division by a difference that may be nothing."""
    members, heldout = errors(50, 50, seed=0)
    memorizer = torch.cat([heldout[:1], members[1:2] - 1, heldout[2:] + 1])
    found = gap_of(members, heldout, memorizer_error_KN=memorizer)
    assert found.normalized.levels_L.tolist() == [1]
    assert len(found.normalized.value_L) == len(found.normalized.low_L) == 1
    assert "NaN" not in json.dumps(found.to_dict())


def test_no_level_may_be_left():
    """Then nothing is claimed."""
    members, heldout = errors(50, 50, seed=0)
    found = gap_of(members, heldout, memorizer_error_KN=heldout)
    assert found.normalized.levels_L.tolist() == found.normalized.low_L.tolist() == []


def test_errors_of_other_members_are_refused():
    """The memorizer must have seen the same noised images."""
    members, heldout = errors(50, 50, seed=0)
    with pytest.raises(ValueError, match=r"memorizer_error_KN must be \(3, 50\)"):
        gap_of(members, heldout, memorizer_error_KN=members[:, :40])


def test_images_are_returned_in_the_order_of_their_numbers():
    """Draws of one image are averaged."""
    gap = DenoisingGap(1)
    gap.update(torch.tensor([[3.0, 1.0]]), torch.tensor([7, 2]), is_member=True)
    gap.update(torch.tensor([[5.0, 4.0]]), torch.tensor([7, 0]), is_member=True)
    gap.update(torch.tensor([[1.0, 2.0]]), torch.tensor([1, 0]), is_member=False)
    found = gap.compute()
    assert found.members_KN.tolist() == [[4.0, 1.0, 4.0]]
    assert found.heldout_KN.tolist() == [[2.0, 1.0]]
