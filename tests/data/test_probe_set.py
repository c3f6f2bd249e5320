"""The three roles of a probe set."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.preprocessing import LabelEncoder
from torch import Tensor
from torch.utils.data import Dataset

from unimodal_monitor.data.image_set import ImageSet
from unimodal_monitor.data.probe_set import ProbeSet

N, CLASSES = 60, 3
LABELS = torch.arange(N) % CLASSES


def images(seed: int, num: int = N) -> Tensor:
    return torch.randn(num, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


MEMBERS, HELDOUT = (images(0), LABELS), (images(1), LABELS)


class Augmented(Dataset):
    """Adds noise from three global generators, as random augmentations do."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, row: int) -> Any:
        shift = random.random() + np.random.rand() + float(torch.rand(()))
        return HELDOUT[0][row] + shift, int(LABELS[row])


def test_heldout_images_are_split_into_fit_and_scored():
    """A third of them fits; together they are all the held-out images, each in one role, classes balanced."""
    probe_set = ProbeSet.from_datasets(MEMBERS, HELDOUT)
    assert (len(probe_set.members), len(probe_set.fit), len(probe_set.heldout)) == (60, 20, 40)
    assert sorted([*probe_set.fit.indices.tolist(), *probe_set.heldout.indices.tolist()]) == list(range(N))
    counts = torch.bincount(probe_set.fit.labels)
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("fit", ["heldout", "members"])
def test_indices_point_to_the_images(fit):
    """In every role, `indices` are rows of the dataset the images came from."""
    probe_set = ProbeSet.from_datasets(MEMBERS, HELDOUT, num_members=30, num_heldout=45, fit=fit)
    sources = {"members": MEMBERS, "heldout": HELDOUT, "fit": MEMBERS if fit == "members" else HELDOUT}
    for name, (source, labels) in sources.items():
        role = getattr(probe_set, name)
        assert torch.equal(role.images, source[role.indices])
        assert torch.equal(role.labels, labels[role.indices])


def test_the_paper_fits_on_the_members():
    """`fit="members"` scores all held-out images and fits on the members themselves."""
    probe_set = ProbeSet.from_datasets(MEMBERS, HELDOUT, fit="members")
    assert probe_set.fit is probe_set.members
    assert len(probe_set.heldout) == N


def test_the_seed_chooses_all_roles():
    """The same seed gives the same probe set."""
    options = {"num_members": 20, "num_heldout": 30}
    chosen = [ProbeSet.from_datasets(MEMBERS, HELDOUT, seed=seed, **options) for seed in (0, 0, 1)]
    for role in ("members", "heldout", "fit"):
        first, again, other = (getattr(probe_set, role).indices.tolist() for probe_set in chosen)
        assert first == again != other


def test_random_augmentation_is_frozen_and_moves_no_generator():
    """A dataset that draws from `random`, NumPy and PyTorch yields the same images at any state of these."""
    chosen = []
    for start in (1, 2):
        random.seed(start), np.random.seed(start), torch.manual_seed(start)
        states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
        chosen.append(ProbeSet.from_datasets(MEMBERS, Augmented(), num_heldout=30).heldout.images)
        assert random.getstate() == states[0]
        assert np.array_equal(np.random.get_state()[1], states[1])
        assert torch.equal(torch.get_rng_state(), states[2])
    assert torch.equal(*chosen)


def test_members_need_no_labels():
    """They are only there to tell members from others, unless the probe is fitted on them."""
    probe_set = ProbeSet.from_datasets(MEMBERS[0], HELDOUT)
    assert probe_set.members.labels is None
    assert probe_set.num_classes == CLASSES


@pytest.mark.parametrize("fit", ["heldout", "members"])
@pytest.mark.parametrize("ids", [[0, 499, 998], [3, 1, 2], [7, 0, 7]])
def test_classes_are_numbered_without_gaps(fit, ids):
    """As scikit-learn's LabelEncoder numbers them; images stay where they are, and so do the datasets' labels."""
    labels = torch.tensor(ids)[LABELS]
    before = labels.clone()
    probe_set = ProbeSet.from_datasets((MEMBERS[0], labels), (HELDOUT[0], labels), fit=fit)
    encoder = LabelEncoder().fit(labels)
    assert probe_set.num_classes == len(encoder.classes_)
    assert (probe_set.fit is probe_set.members) == (fit == "members")
    for role in (probe_set.fit, probe_set.heldout):
        np.testing.assert_array_equal(role.labels, encoder.transform(labels[role.indices]))
    assert torch.equal(labels, before)


@pytest.mark.parametrize(("num_fit", "num_heldout"), [(5, 6), (6, 5)])
def test_two_images_of_each_class_are_needed(num_fit, num_heldout):
    """In the fit and in the held-out images alike, over all their classes."""
    roles = (ImageSet(images(seed, num), torch.arange(num) % 3) for seed, num in ((2, num_heldout), (3, num_fit)))
    with pytest.raises(ValueError, match="needs at least 6 images for 3 classes, got 5"):
        ProbeSet(ImageSet(images(0)), *roles)


@pytest.mark.parametrize(("heldout", "fit"), [(HELDOUT[0], "heldout"), (HELDOUT[0], "members"), (HELDOUT, "members")])
def test_missing_labels_are_named_when_they_are_needed(heldout, fit):
    """Unlabelled held-out images, and unlabelled members where the probe is fitted on them."""
    probe_set = ProbeSet.from_datasets(MEMBERS[0], heldout, fit=fit)
    with pytest.raises(ValueError, match="the probe needs labels: .* one of label, labels"):
        _ = probe_set.num_classes


@pytest.mark.parametrize("members", [MEMBERS, MEMBERS[0]], ids=["labelled", "unlabelled"])
def test_held_out_images_without_labels_are_all_kept(members):
    """There is no probe to fit on a third of them."""
    probe_set = ProbeSet.from_datasets(members, HELDOUT[0])
    assert probe_set.is_unlabelled
    assert len(probe_set.heldout) == 60
    assert probe_set.fit is probe_set.members


@pytest.mark.parametrize(
    ("members", "heldout", "options", "message"),
    [
        (MEMBERS, HELDOUT, {"fit": "train"}, "fit must be 'heldout' or 'members', got 'train'"),
        (MEMBERS, HELDOUT, {"num_members": 61}, "num_members = 61, but the members dataset has 60 images"),
        (MEMBERS, HELDOUT, {"num_fit": 0}, "num_fit must be from 1 to 59 of 60 held-out images, got 0"),
        (MEMBERS, HELDOUT[0], {"num_fit": 30}, "no labels to fit on"),
        (MEMBERS, (images(1)[:, :, :2], LABELS), {}, "roles have images of different shapes"),
        (MEMBERS, (HELDOUT[0], torch.full((N,), 2)), {}, "all 40 images of 'heldout' are of class 2"),
        ((MEMBERS[0], LABELS * 0), HELDOUT, {"fit": "members"}, "all 60 images of 'fit' are of class 0"),
        (MEMBERS, (HELDOUT[0], LABELS[:-1]), {}, r"labels must have shape \(60,\)"),
    ],
)
def test_a_probe_set_that_cannot_work_is_refused(members, heldout, options, message):
    """Before anything is measured, naming what came."""
    with pytest.raises(ValueError, match=message):
        ProbeSet.from_datasets(members, heldout, **options)


@pytest.mark.parametrize("roles", [("members", "heldout"), ("fit", "heldout"), ("members", "fit")])
def test_an_image_in_two_roles_is_refused(roles):
    """By its pixels, wherever it lies; the error names both places."""
    sets = {name: images(seed, 9) for seed, name in enumerate(("members", "heldout", "fit"))}
    sets[roles[1]][5] = sets[roles[0]][2]
    labels = torch.arange(9) % 3
    message = "1 images are both in '{}' and in '{}' "
    with pytest.raises(ValueError, match=message.format(*roles) + r"\(numbers 2 and 5 are the first\)"):
        ProbeSet(**{name: ImageSet(values, labels) for name, values in sets.items()})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_images_are_compared_too(dtype):
    """Latents are often kept so."""
    members, heldout = (MEMBERS[0].to(dtype), LABELS), (HELDOUT[0].to(dtype), LABELS)
    assert len(ProbeSet.from_datasets(members, heldout).heldout) == 40
    with pytest.raises(ValueError, match="heldout: 60 of 60 held-out images are members, too"):
        ProbeSet.from_datasets(members, members, fit="members")


@pytest.mark.parametrize("fit", ["heldout", "members"])
def test_duplicates_of_real_datasets_are_left_out(fit):
    """A member among the held-out images, and one held-out image twice: the others remain, in their order."""
    (members, _), (heldout, _) = MEMBERS, HELDOUT
    heldout = heldout.clone()
    heldout[3], heldout[17] = members[5], heldout[16]
    with pytest.warns(UserWarning, match="2 of 60 held-out images are members, too, or are there twice"):
        probe_set = ProbeSet.from_datasets(MEMBERS, (heldout, LABELS), fit=fit)
    kept = torch.cat([probe_set.heldout.indices, *([probe_set.fit.indices] if fit == "heldout" else [])])
    assert kept.sort().values.tolist() == [row for row in range(60) if row not in (3, 17)]
