"""Draws from whatever a training job has as a dataset."""

from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from unimodal_monitor import ProbeSet
from unimodal_monitor.data.datasets import balanced_rows, draw
from unimodal_monitor.data.image_set import ImageSet
from unimodal_monitor.data.items import IMAGE_KEYS, LABEL_KEYS, Transform, label_column, split_item

N, CLASSES = 60, 4
LABELS = torch.arange(N) ** 2 % 7 % CLASSES
IMAGES = torch.arange(N).view(N, 1, 1, 1) + torch.zeros(N, 1, 2, 2)
"""Every pixel of image i is i, so that an image tells which row it came from."""


class Items(Dataset):
    """Yields what `item` makes of an image and its label."""

    def __init__(self, item: Any) -> None:
        self.item = item

    def __len__(self) -> int:
        return N

    def __getitem__(self, row: int) -> Any:
        return self.item(IMAGES[row], int(LABELS[row]))


class Targets(Items):
    """As torchvision's datasets: all labels in `targets`; counts its reads."""

    def __init__(self) -> None:
        super().__init__(lambda image, label: (image, label))
        self.targets = LABELS.tolist()
        self.num_reads = 0

    def __getitem__(self, row: int) -> Any:
        self.num_reads += 1
        return super().__getitem__(row)


class HuggingFace:
    """As `datasets.Dataset`: an int gives a dict, a name a column."""

    column_names = ("image", "label")

    def __init__(self) -> None:
        self.num_reads = 0
        self.item: Any = lambda row: {"image": IMAGES[row], "label": int(LABELS[row])}

    def __len__(self) -> int:
        return N

    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, str):
            return {"label": LABELS.tolist()}[key]
        self.num_reads += 1
        return self.item(key)


Pair = namedtuple("Pair", ["x", "y"])

KINDS = {
    "tensors": (IMAGES, LABELS),
    "double precision": (IMAGES.double(), LABELS),
    "arrays for labels": [IMAGES, LABELS.numpy()],
    "tuples": Items(lambda image, label: (image, label)),
    "lists": Items(lambda image, label: [image, label]),
    "namedtuples": Items(lambda image, label: Pair(image, label)),
    "triples": Items(lambda image, label: (image, label, "a caption")),
    "arrays": Items(lambda image, label: (image.numpy(), np.int64(label))),
    "label tensors": Items(lambda image, label: (image, torch.tensor([label]))),
    "TensorDataset": TensorDataset(IMAGES, LABELS),
    "targets": Targets(),
    "ConcatDataset": ConcatDataset([TensorDataset(IMAGES[:20], LABELS[:20]), TensorDataset(IMAGES[20:], LABELS[20:])]),
    "Hugging Face": HuggingFace(),
}


def drawn(dataset: Any, num: int | None, **options: Any) -> ImageSet:
    transform, module = options.pop("transform", None), options.pop("module", None)
    change = None if transform is None else Transform(transform, module)
    return draw(dataset, num, **{"transform": change, "seed": 0, "role": "heldout", **options})


def rows_of(images: ImageSet) -> Tensor:
    return images.images[:, 0, 0, 0].long()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num", [20, None])
def test_images_labels_and_indices_belong_together(kind, num):
    """For every kind of dataset, index i is row i, with its image and its label, in the dataset's order."""
    found = drawn(KINDS[kind], num)
    assert len(found) == (num or N)
    assert torch.equal(rows_of(found), found.indices)
    assert torch.equal(found.labels, LABELS[found.indices])
    assert (found.indices.diff() > 0).all()
    assert found.images.dtype == torch.float32


@pytest.mark.parametrize("kind", ["tensors", "targets", "Hugging Face", "TensorDataset"])
@pytest.mark.parametrize("num", [8, 15])
def test_classes_are_as_equal_as_they_can_be(kind, num):
    """Rare classes are taken whole, the others differ by one at most."""
    counts = torch.bincount(drawn(KINDS[kind], num).labels, minlength=CLASSES)
    available = torch.bincount(LABELS, minlength=CLASSES)
    level = next(level for level in range(1, N) if torch.minimum(available, torch.tensor(level)).sum() >= num)
    assert (counts <= level).all()
    assert (counts >= torch.minimum(available, torch.tensor(level - 1))).all()


def test_a_class_that_runs_out_leaves_its_places_to_the_others():
    """One image of class 1 and nine of class 0 make six as 5 + 1."""
    labels = torch.tensor([0] * 9 + [1])
    assert sorted(labels[balanced_rows(labels, 10, 6, seed=0)].tolist()) == [0] * 5 + [1]


@pytest.mark.parametrize("make", [Targets, HuggingFace])
def test_only_the_drawn_images_are_read_where_labels_are_a_column(make):
    """A large dataset costs as many reads as images are drawn."""
    dataset = make()
    drawn(dataset, 12)
    assert dataset.num_reads == 12 + 8  # eight are read again, to notice random augmentation


@pytest.mark.parametrize("indices", [list(range(0, N, 2)), torch.arange(0, N, 2), range(0, N, 2)])
def test_a_subset_numbers_its_own_rows(indices):
    """Row i of the Subset is row indices[i] of the dataset, balanced by its own labels."""
    for inner in (TensorDataset(IMAGES, LABELS), Targets(), HuggingFace()):
        found = drawn(Subset(inner, indices), 10)
        assert torch.equal(rows_of(found), 2 * found.indices)
        assert torch.equal(found.labels, LABELS[2 * found.indices])


def test_labels_of_nested_subsets_are_found_without_reading():
    """Subsets of subsets, as `random_split` of a split makes them."""
    dataset = Targets()
    nested = Subset(Subset(dataset, list(range(0, N, 2))), [3, 1, 4])
    assert label_column(nested).tolist() == LABELS[[6, 2, 8]].tolist()
    assert dataset.num_reads == 0


@pytest.mark.parametrize("dataset", [IMAGES, (IMAGES, None), TensorDataset(IMAGES), Items(lambda image, _: image)])
def test_images_without_labels_are_drawn_without_them(dataset):
    """Bare tensors and one-tuples."""
    found = drawn(dataset, 20)
    assert found.labels is None
    assert torch.equal(rows_of(found), found.indices)


@pytest.mark.parametrize("image_key", IMAGE_KEYS)
@pytest.mark.parametrize("label_key", LABEL_KEYS)
def test_dicts_are_read_by_the_usual_keys(image_key, label_key):
    """Whatever else the dict holds."""
    assert split_item({"caption": "a cat", label_key: 3, image_key: "pixels"}) == ("pixels", 3)


def test_a_dict_without_an_image_is_refused_with_its_keys():
    """The error shows the keys of the item and the usual ones."""
    with pytest.raises(ValueError, match=r"keys \['caption', 'tokens'\], none of image, pixel_values"):
        drawn(Items(lambda image, label: {"tokens": image, "caption": ""}), 5)


@pytest.mark.parametrize("kind", ["tensors", "tuples", "Hugging Face"])
def test_the_transform_makes_the_images(kind):
    """It sees what the dataset yields as image, and only that."""
    found = drawn(KINDS[kind], 10, transform=lambda image: image / 10)
    torch.testing.assert_close(found.images, IMAGES[found.indices] / 10)


def test_bytes_become_floats_by_a_transform():
    """Images of unsigned bytes are refused as they are, and taken with a transform."""
    pixels = IMAGES.to(torch.uint8)
    with pytest.raises(ValueError, match=r"torch.uint8 .* give a `transform`"):
        drawn((pixels, LABELS), 5)
    assert drawn((pixels, LABELS), 5, transform=lambda image: image / 255).images.is_floating_point()


def test_a_pil_image_needs_a_transform():
    """And is taken with one."""
    pil = pytest.importorskip("PIL.Image")
    dataset = Items(lambda image, label: (pil.new("L", (2, 2), int(image[0, 0, 0])), label))
    with pytest.raises(ValueError, match="item .* its image is of type Image; give a `transform`"):
        drawn(dataset, 5)
    found = drawn(dataset, 5, transform=lambda image: torch.from_numpy(np.array(image, dtype=np.float32))[None])
    assert torch.equal(rows_of(found), found.indices)


@pytest.mark.parametrize("num", [0, -1, N + 1])
@pytest.mark.parametrize("kind", ["tensors", "tuples"])
def test_more_images_than_there_are_cannot_be_drawn(kind, num):
    """The error names the argument, the number and the size."""
    with pytest.raises(ValueError, match=f"num_heldout = {num}, but the heldout dataset has {N} images"):
        drawn(KINDS[kind], num)


def test_images_of_several_shapes_need_a_transform():
    """They cannot be stacked."""
    dataset = Items(lambda image, label: (image.expand(1 + label % 2, 2, 2), label))
    with pytest.raises(ValueError, match=r"differ in shape: \[\(1, 2, 2\), \(2, 2, 2\)\]; give a `transform`"):
        drawn(dataset, None)


def test_labels_on_some_images_only_are_refused():
    """Half a labelling is a mistake."""
    dataset = Items(lambda image, label: (image, label or None))
    with pytest.raises(ValueError, match=f"{int((LABELS == 0).sum())} of {N} images of heldout have no label"):
        drawn(dataset, None)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (lambda label: float(label), "labels must be integers, got torch.float32"),
        (lambda label: label > 1, "labels must be integers, got torch.bool"),
        (lambda label: torch.eye(4, dtype=torch.int64)[label], r"labels must have shape|its label must be one integer"),
        (lambda label: label - 1, "labels must count from 0, got -1"),
    ],
)
def test_labels_that_are_no_classes_are_refused(label, message):
    """From items and from tensors alike."""
    with pytest.raises(ValueError, match=message):
        drawn(Items(lambda image, number: (image, label(number))), None)
    with pytest.raises(ValueError, match=message):
        drawn((IMAGES, torch.stack([torch.as_tensor(label(int(number))) for number in LABELS])), None)


@pytest.mark.parametrize(
    "caption",
    [
        lambda image, _: (image, "a cat"),
        lambda image, _: (image, ["a cat", "a grey cat"]),
        lambda image, _: {"x": image, "label": "a cat"},
    ],
)
def test_captions_are_no_labels(caption):
    assert drawn(Items(caption), 5).labels is None


def seventh_broken(image: Tensor) -> Tensor:
    return image[99] if int(image.mean()) == 7 else image


def test_an_error_of_an_item_names_the_item():
    """Raised by the dataset or by the transform."""
    broken_dataset = Items(lambda image, label: (seventh_broken(image), label))
    for dataset, transform in ((broken_dataset, None), (KINDS["tuples"], seventh_broken), (IMAGES, seventh_broken)):
        with pytest.raises(ValueError, match="item 7 of heldout: IndexError: index 99"):
            drawn(dataset, None, transform=transform)


class Stream(IterableDataset):
    def __iter__(self) -> Any:
        return iter(TensorDataset(IMAGES, LABELS))


def test_what_is_not_read_by_number_is_refused():
    """The error names the type or the splits, and what to give."""
    with pytest.raises(ValueError, match=r"dict of datasets with the splits 'train', 'test'; give one, ds\['train'\]"):
        drawn({"train": Targets(), "test": Targets()}, 5)


def test_loader_stands_for_its_dataset():
    assert torch.equal(drawn(DataLoader(Targets()), 8).images, drawn(Targets(), 8).images)


def test_transform_runs_without_gradients_and_gives_a_tensor():
    """A VAE's parameters need gradients; its encoder may give a tuple."""
    weight = torch.ones(1, requires_grad=True)
    assert not drawn(Targets(), 4, transform=lambda image: image * weight).images.requires_grad
    with pytest.raises(ValueError, match=r"item \d+ of heldout: .* a tuple of 2; did you forget \[0\]\?"):
        drawn(Targets(), 4, transform=lambda image: (image, image))


def test_labels_that_a_format_drops_are_taken_from_their_column():
    """As a Hugging Face dataset whose `set_transform` yields the image alone."""
    dataset = HuggingFace()
    dataset.item = lambda row: {"pixel_values": IMAGES[row]}
    for num in (12, None):
        found = drawn(dataset, num)
        assert torch.equal(found.labels, LABELS[found.indices])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_pixel_that_is_not_finite_is_refused(bad):
    """The error counts the images and names the first."""
    images = IMAGES.clone()
    images[[7, 30], 0, 1, 1] = bad
    with pytest.raises(ValueError, match="2 images have NaN or infinite pixels, the first is number 7"):
        drawn((images, LABELS), None)


@pytest.mark.parametrize("stream", [Stream(), DataLoader(Stream(), batch_size=2), iter(Stream())])
def test_stream_gives_its_first_items(stream):
    found = drawn(stream, 6)
    assert len(found) == 6
    torch.testing.assert_close(found.images, IMAGES[:6])


def test_stream_needs_a_number():
    with pytest.raises(ValueError, match=r"heldout is a stream \(Stream\); give num_heldout="):
        drawn(Stream(), None)


class Encoder(torch.nn.Module):
    """Twice the mean over 2x2 pixels, as a VAE's latents; with dropout, which a probe image must not meet."""

    def __init__(self):
        super().__init__()
        self.factor, self.dropout = torch.nn.Parameter(torch.tensor(2.0)), torch.nn.Dropout(0.5)

    def forward(self, images):
        assert images.ndim == 4
        return self.dropout(self.factor * torch.nn.functional.avg_pool2d(images, 2))


def test_transform_with_the_module_gets_batches():
    encoder, images, labels = Encoder().train(), torch.randn(150, 3, 8, 8), torch.arange(150) % 3
    options = {"transform": lambda images, module: module(images), "module": encoder}
    probe_set = ProbeSet.from_datasets((images[:50], labels[:50]), (images[50:], labels[50:]), **options)
    expected = 2 * images[:50].reshape(50, 3, 4, 2, 4, 2).mean((3, 5))
    torch.testing.assert_close(probe_set.members.images, expected)
    assert not probe_set.members.images.requires_grad
    assert encoder.training


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (lambda image: image[None], r"item 0 .* gave \(1, 1, 2, 2\) for one image; give its \[0\]"),
        (lambda images, module: images[:1], r"gave \(1, 1, 2, 2\) for 5 images"),
        (lambda images, module: [images], "gave list for 5 images"),
        (3, "transform is of type int"),
    ],
)
def test_transform_with_a_wrong_result_is_refused(transform, message):
    with pytest.raises(ValueError, match=message):
        drawn(IMAGES.view(-1, 1, 2, 2)[:5], 5, transform=transform, module=Encoder())


def test_transform_of_two_arguments_needs_a_module():
    with pytest.raises(ValueError, match=r"takes two arguments, \(images, module\), but there is no module"):
        drawn(IMAGES, 5, transform=lambda images, module: images)


@pytest.mark.parametrize(("noise", "varies"), [(0.0, False), (1.0, True)])
def test_random_augmentation_is_noticed(noise, varies):
    dataset = Items(lambda image, label: (image + noise * torch.randn(()), label))
    found = drawn(dataset, 5)
    assert found.varies is varies
    assert found.take(torch.tensor([0, 1])).varies is varies
