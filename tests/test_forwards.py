"""Images through a network at all levels."""

from contextlib import contextmanager

import pytest
import torch
from tiny_job import WIDTH, TinyDenoiser, blobs

from unimodal_monitor.data.image_set import ImageSet
from unimodal_monitor.denoisers import EDMDenoiser, Network
from unimodal_monitor.forward.hooks import capture
from unimodal_monitor.forward.noise import paper_sigmas, unit_noise
from unimodal_monitor.forwards import Forwards, Noising

SIGMAS = paper_sigmas(1.0)
IMAGES = ImageSet(*blobs(25, seed=1))
EVERY = torch.arange(25)


@contextmanager
def forwards(*, batch_size=512, noising=None, **options):
    torch.manual_seed(0)
    network = TinyDenoiser().eval()
    noising = Noising(SIGMAS, num_draws=2) if noising is None else noising
    layers = {"first": network.blocks[0], "second": network.blocks[1]}
    with torch.no_grad(), capture(layers) as captured:
        denoiser = EDMDenoiser(Network(network))
        yield Forwards(denoiser, captured, noising, device=torch.device("cpu"), batch_size=batch_size, **options)


def collected(rows=EVERY, **options):
    """(R, K, N, D) features of the second layer, in the order of the rows, and the rows as the batches tell them."""
    with forwards(**options) as run:
        batches = list(run.batches(IMAGES, rows))
    by_draw = [[batch for batch in batches if batch.draw == draw] for draw in range(run.noising.num_draws)]
    told = torch.cat([batch.numbers for batch in by_draw[0]])
    return torch.stack([torch.cat([batch.features["second"] for batch in part], 1) for part in by_draw]), told


@pytest.mark.parametrize("batch_size", [1, 9, 30, 1000])
def test_features_do_not_depend_on_the_batch_size(batch_size):
    """One image at a time even where a batch is smaller than the number of levels."""
    found, told = collected(batch_size=batch_size)
    torch.testing.assert_close(found, collected()[0], rtol=0, atol=1e-5)
    assert torch.equal(told, EVERY)


def test_the_spread_of_vectors_is_that_of_their_features():
    """At every level and draw, in forwards that run to the end."""
    with forwards(batch_size=90) as run:
        for batch in run.batches(IMAGES, EVERY, to_the_end=True):
            for layer, features_KBD in batch.features.items():
                torch.testing.assert_close(batch.spread[layer], features_KBD.std(2, correction=0))
        assert all(batch.spread == {} for batch in run.batches(IMAGES, EVERY))


def test_the_noise_goes_with_the_row():
    """Some rows in any order have the features that they have among all."""
    rows = torch.tensor([20, 3, 11, 4])
    found, told = collected(rows, batch_size=18)
    torch.testing.assert_close(found, collected()[0][:, :, rows], rtol=0, atol=1e-5)
    assert torch.equal(told, rows)


def test_features_are_those_of_one_image_at_one_level():
    """Against a loop that noises and denoises by hand."""
    found, _ = collected()
    with forwards() as run:
        for level, draw, row in [(0, 0, 0), (4, 1, 7), (8, 0, 24)]:
            noise = unit_noise([row], [WIDTH], draw=draw, seed=0)
            sigma = SIGMAS[level : level + 1].float()
            noised = IMAGES.images[row : row + 1] + sigma * noise
            alone = run.captured.run(lambda noised=noised, sigma=sigma: run.denoiser(noised, sigma))["second"]
            torch.testing.assert_close(found[draw, level, row], alone[0], rtol=0, atol=1e-5)


def test_clean_images_are_shown_where_the_input_is_not_noised():
    """The level is in the condition alone, so that draws are alike and levels are not."""
    found, _ = collected(noising=Noising(SIGMAS, num_draws=2, noised_input=False))
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0, 0], found[0, -1])


def test_some_levels_are_measured_as_among_all():
    """A glance sees what a check sees."""
    found, _ = collected(noising=Noising(SIGMAS, num_draws=2).at([1, 5]))
    torch.testing.assert_close(found, collected()[0][:, [1, 5]], rtol=0, atol=1e-5)


def test_denoised_images_are_the_denoisers():
    """Where the forward goes to the end; otherwise there are none."""
    with forwards(batch_size=50) as run:
        batches = list(run.batches(IMAGES, EVERY, to_the_end=True))
        assert all(batch.denoised.numel() == 0 for batch in run.batches(IMAGES, EVERY))
    for batch in batches:
        noise = unit_noise(batch.numbers.tolist(), [WIDTH], draw=batch.draw, seed=0)
        for level, sigma in enumerate(SIGMAS.float()):
            direct = run.denoiser(batch.clean + sigma * noise, sigma.expand(len(noise)))
            torch.testing.assert_close(batch.denoised[level], direct, rtol=0, atol=1e-5)


def test_forwards_end_at_the_last_hooked_layer():
    """The third block is not reached."""
    reached = []
    with forwards() as run:
        run.denoiser.network.blocks[2].register_forward_pre_hook(lambda *args: reached.append(1))
        list(run.batches(IMAGES, EVERY))
        assert not reached
        list(run.batches(IMAGES, EVERY, to_the_end=True))
        assert reached


def test_features_that_are_not_finite_are_told_after_the_last_batch():
    """Looking earlier would wait for the device."""
    seen = []
    with forwards(batch_size=90) as run:
        run.denoiser.network.blocks[1][0].bias.data[0] = torch.nan
        with pytest.raises(FloatingPointError, match="'second' are not finite"):
            for batch in run.batches(IMAGES, EVERY):
                seen.append(batch.draw)
    assert seen == [0, 1, 0, 1, 0, 1]


def test_progress_counts_images():
    """Each once, whatever the number of draws and levels."""
    counted = []
    with forwards(batch_size=90, progress=counted.append) as run:
        list(run.batches(IMAGES, EVERY))
    assert counted == [10, 10, 5]


def test_labels_come_with_the_rows_and_minus_one_where_there_are_none():
    """Members need no labels for the signals."""
    with forwards() as run:
        rows = torch.tensor([5, 4])
        assert torch.equal(next(run.batches(IMAGES, rows)).labels_B, IMAGES.labels[rows])
        assert torch.equal(next(run.batches(ImageSet(IMAGES.images), rows)).labels_B, torch.tensor([-1, -1]))
