"""What passes from images to outcomes."""

import pytest
import torch
from torch import Tensor, nn

from unimodal_monitor.data.probe_set import ProbeSet
from unimodal_monitor.denoisers import EDMDenoiser, Network
from unimodal_monitor.forward.distributed import Ranks
from unimodal_monitor.forward.hooks import capture
from unimodal_monitor.forward.noise import paper_sigmas
from unimodal_monitor.forwards import Batch, Forwards, Noising
from unimodal_monitor.measure import Listener, Measurement, Portion, fit_probes, measure, score_images
from unimodal_monitor.probes.base import Probe
from unimodal_monitor.probes.logistic import LogisticProbe
from unimodal_monitor.probes.ridge import RidgeProbe
from unimodal_monitor.stats.estimate import Outcomes


class Doubled(nn.Module):
    """A network of one layer, which passes the images on."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Identity()

    def forward(self, noised: Tensor, sigma: Tensor) -> Tensor:
        return self.layer(noised)


def scores(labels: Tensor, *, batch_size: int = 512, probe: Probe | None = None) -> Tensor:
    """(K, R, M) scores on images whose first pixels tell their class."""
    shape = (len(labels), 6)
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)) + labels.view(-1, 1)
    probe_set = ProbeSet.from_datasets((images[0], labels), (images[1], labels))
    return measured(probe_set, batch_size=batch_size, probe=probe).outcomes["layer"].score_KRM


def measured(
    probe_set: ProbeSet,
    *,
    batch_size: int = 512,
    probe: Probe | None = None,
    portion: Portion | None = None,
    listener: Listener | None = None,
) -> Measurement:
    network = Doubled()
    denoiser, noising = EDMDenoiser(Network(network)), Noising(paper_sigmas(1.0), num_draws=2)
    with capture({"layer": network.layer}) as captured:
        forwards = Forwards(denoiser, captured, noising, device=torch.device("cpu"), batch_size=batch_size)
        return measure(forwards, probe_set, probe or RidgeProbe(), ranks=Ranks(), portion=portion, listener=listener)


LABELS = torch.arange(60) % 3


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_labels_of_any_integer_type_will_do(dtype):
    """NumPy's and Hugging Face's are often small."""
    assert torch.equal(scores(LABELS.to(dtype)), scores(LABELS))


@pytest.mark.parametrize("probe", [RidgeProbe(), LogisticProbe()])
def test_outcomes_do_not_depend_on_the_batch_size(probe):
    """Batches of one image, ragged ones, and all at once; the rarest class is rarer than a batch is large."""
    labels = torch.where(torch.arange(60) % 20 == 0, 3, LABELS)
    whole = scores(labels, probe=probe)
    for batch_size in (9, 64):
        torch.testing.assert_close(scores(labels, batch_size=batch_size, probe=probe), whole, rtol=0, atol=1e-3)


def labelled_blobs(num: int, *, seed: int) -> tuple[Tensor, Tensor]:
    labels = torch.arange(num) % 3
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num, 6, generator=generator) + labels.view(-1, 1), labels


@pytest.mark.parametrize("probe", [RidgeProbe(), LogisticProbe()])
def test_a_portion_is_measured_as_if_it_were_all(probe):
    """The same pass gives the outcomes of a fit on the portion alone and leaves the others as they are."""
    whole = ProbeSet.from_datasets(labelled_blobs(40, seed=0), labelled_blobs(90, seed=1), num_fit=40)
    portion = Portion(fit=torch.tensor([30, 2, 3, 17, 5, 8, 9, 11, 1]), heldout=torch.tensor([40, 7, 12, 0]))
    both, alone = measured(whole, probe=probe, portion=portion), measured(whole, probe=probe)
    of_portion = both.glance["layer"]
    assert of_portion.score_KRM.shape == (9, 2, 4)
    torch.testing.assert_close(both.outcomes["layer"].score_KRM, alone.outcomes["layer"].score_KRM, rtol=0, atol=1e-4)
    separate = fitted_alone(whole, probe, portion)
    torch.testing.assert_close(of_portion.score_KRM, separate.score_KRM, rtol=0, atol=1e-4)
    assert torch.equal(of_portion.correct_KRM, separate.correct_KRM)


def fitted_alone(whole: ProbeSet, probe: Probe, portion: Portion) -> Outcomes:
    """By the steps of a glance: its own fit, its own images."""
    network = Doubled()
    with capture({"layer": network.layer}) as captured:
        noising = Noising(paper_sigmas(1.0), num_draws=2)
        run = Forwards(EDMDenoiser(Network(network)), captured, noising, device=torch.device("cpu"), batch_size=512)
        fitted = fit_probes(run, whole, probe, parts=[portion.fit], ranks=Ranks())
        return score_images(run, whole.heldout, probe, fitted, rows=portion.heldout, ranks=Ranks())[0]["layer"]


PORTION = Portion(torch.arange(0, 12), torch.arange(3, 20))


@pytest.mark.parametrize(
    ("portion", "rows"),
    [(PORTION, [3, 4, 5]), (PORTION, [*range(3, 20)]), (None, [49, 7, 0]), (None, [*range(50)])],
    ids=["some of a portion", "a portion", "some", "all"],
)
def test_only_what_is_listened_to_runs_to_the_end(portion, rows):
    """The outcomes are those without a listener, and it hears what it wants, denoised."""
    whole = ProbeSet.from_datasets(labelled_blobs(40, seed=0), labelled_blobs(90, seed=1), num_fit=40)
    heard: list[Batch] = []
    with_it = measured(whole, portion=portion, listener=Listener(torch.tensor(rows), heard.append))
    without = measured(whole, portion=portion)
    numbers = torch.cat([batch.numbers for batch in heard if batch.draw == 0])
    assert numbers.tolist() == rows
    assert all(batch.denoised.shape[2:] == (6,) for batch in heard)
    assert list(with_it.glance) == list(without.glance) == ([] if portion is None else ["layer"])
    pairs = [(with_it.outcomes["layer"], without.outcomes["layer"])]
    pairs += [(found, without.glance[layer]) for layer, found in with_it.glance.items()]
    for found, expected in pairs:
        assert torch.equal(found.correct_KRM, expected.correct_KRM)
        torch.testing.assert_close(found.score_KRM, expected.score_KRM, rtol=0, atol=1e-5)
