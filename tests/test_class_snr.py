"""The SNR from sums against singular vectors of the raw features."""

import pytest
import torch

from unimodal_monitor.signals.class_snr import ClassSNR
from unimodal_monitor.theory.molrg import MoLRG

K, N, D, C = 2, 90, 12, 3
GENERATOR = torch.Generator().manual_seed(0)
FEATURES = torch.randn(K, N, D, generator=GENERATOR) + 2 * torch.randn(D, generator=GENERATOR)
LABELS = torch.arange(N) % C


def snr_of(features_KND, labels_N, *, num_classes=C, num_directions=5):
    snr = ClassSNR(len(features_KND), features_KND.shape[2], num_classes, num_directions=num_directions)
    snr.update(features_KND, labels_N)
    return snr.compute()


def test_snr_is_that_of_the_right_singular_vectors():
    """As the paper has it: normalise, centre, decompose each class, project."""
    found = snr_of(FEATURES, LABELS)
    for level in range(K):
        x = FEATURES[level].double()
        x = x / x.norm(dim=1, keepdim=True)
        x = x - x.mean(0)
        for label in range(C):
            h = x[label == LABELS]
            v = torch.linalg.svd(h, full_matrices=False).Vh[:5].T
            inside = h @ v @ v.T
            expected = inside.square().sum() / (h - inside).square().sum()
            torch.testing.assert_close(found.snr_KC[level, label], expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(found.snr_K, found.snr_KC.mean(1))


def test_snr_of_low_rank_classes_is_that_of_their_subspaces():
    """The energies of normalised samples within and without the subspaces they were drawn from."""
    molrg = MoLRG(num_classes=3, rank=5, delta=0.3)
    x, labels = molrg.sample(6000, seed=0)
    energy = (x @ molrg.basis()).square().view(-1, 3, 5).sum(2)
    inside = energy[torch.arange(6000), labels] / energy.sum(1)
    expected = float(inside.mean() / (1 - inside).mean())
    assert float(snr_of(x[None], labels).snr_K) == pytest.approx(expected, rel=0.02)


def test_a_class_without_images_is_left_out():
    """The average is over the others."""
    found = snr_of(FEATURES, LABELS, num_classes=7)
    assert found.classes_C.tolist() == [0, 1, 2]
    assert found.counts_C.tolist() == [30, 30, 30]
    torch.testing.assert_close(found.snr_K, snr_of(FEATURES, LABELS).snr_K)


def test_too_few_images_of_a_class_are_refused():
    """Their subspace would hold them entirely."""
    labels = LABELS.clone()
    labels[:4] = 3
    with pytest.raises(ValueError, match="class 3 has 4 images"):
        snr_of(FEATURES, labels, num_classes=4)


def test_features_that_fill_no_more_than_the_subspace_have_no_snr():
    """An infinite ratio is no number."""
    flat = torch.cat([FEATURES[:, :, :3], torch.zeros(K, N, 9)], 2)
    with pytest.raises(FloatingPointError, match="no energy outside"):
        snr_of(flat, LABELS)


def test_sums_too_large_to_keep_are_refused():
    """Before anything is allocated."""
    with pytest.raises(ValueError, match=r"1000 classes, 9 levels and 1024 features need 9.4e\+09 sums"):
        ClassSNR(9, 1024, 1000)
    with pytest.raises(ValueError, match="num_directions = 5; it lies between 0 and the width, 5"):
        ClassSNR(9, 5, 10)
