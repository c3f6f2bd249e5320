"""The specification of method.py: what a check measures, against loops over single images, levels and layers."""

from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import torch
from posterior import PosteriorMean
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler
from tiny_job import TinyDenoiser, blobs
from torch import nn

from unimodal_monitor import EDMDenoiser, LogisticProbe, Monitor, ProbeSet, RidgeProbe
from unimodal_monitor.denoisers.memorizer import Memorizer
from unimodal_monitor.forward.distributed import Ranks
from unimodal_monitor.forward.hooks import capture
from unimodal_monitor.forward.noise import paper_sigmas, unit_noise
from unimodal_monitor.method import VIEW_OFFSET, forward, measure, plan_check
from unimodal_monitor.signals import DEFAULT_SIGNALS
from unimodal_monitor.signals.gap import denoising_gap, normalized_gap
from unimodal_monitor.signals.invariance import invariance_values
from unimodal_monitor.signals.views import another_view
from unimodal_monitor.stats.estimate import mean_estimate
from unimodal_monitor.theory.molrg import MoLRG

SEED, SIGMAS, LAYERS = 5, torch.tensor([0.02, 0.1, 0.5, 2.0], dtype=torch.float64), ("first", "second")
PAIR_SIGNALS = {"normalized_gap", "denoising_gap", "spread_auc"}


class Convolutions(nn.Module):
    """Three convolutions, two of which are probed."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.third = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3), nn.ConvTranspose2d(4, 3, 5)

    def outputs(self, noised, sigma):
        first = self.first(noised / (1 + sigma.view(-1, 1, 1, 1) ** 2).sqrt())
        second = self.second(torch.tanh(first))
        return first, second, self.third(torch.tanh(second))

    def forward(self, noised, sigma):
        return self.outputs(noised, sigma)[-1]


def pictures(num, *, seed, brightness=0.0):
    """(num, 3, 8, 8) images of three classes, which differ in brightness."""
    generator, labels = torch.Generator().manual_seed(seed), torch.arange(num) % 3
    return torch.randn(num, 3, 8, 8, generator=generator) + 0.3 * labels.view(-1, 1, 1, 1) + brightness, labels


def probe_set_of(num_members=30, num_heldout=160, *, labelled=True, make=pictures, **options):
    members, heldout = make(num_members, seed=1), make(num_heldout, seed=2, **options)
    return ProbeSet.from_datasets(*((members, heldout) if labelled else (members[0], heldout[0])))


def plan_of(probe_set, *, probe=None, layers=LAYERS, sigmas=SIGMAS, **options):
    return plan_check(probe_set, probe or RidgeProbe(), layers=layers, sigmas=sigmas, seed=SEED, **options)


@contextmanager
def going(network, plan, **options):
    denoiser = network if isinstance(network, Memorizer | PosteriorMean) else EDMDenoiser(network)
    layers = {name: denoiser.network.get_submodule(name) for name in plan.layers}
    with torch.no_grad(), capture(layers) as captured:
        settings = {"sigmas": plan.sigmas, "seed": SEED, "batch_size": 512, "ranks": Ranks(), **options}
        yield partial(forward, denoiser, captured, **settings)


def measured_with(network, plan, **options):
    with going(network, plan, **options) as go:
        return measure(go, plan, Ranks())


@torch.no_grad()
def by_hand(network, images, noise_ids):
    """Pooled features by layer, spread of the last one, and error, (K, N, ...): whole forwards, one by one."""
    found = {name: [] for name in (*LAYERS, "spread", "error")}
    for sigma in SIGMAS.float():
        for image, number in zip(images, noise_ids, strict=True):
            noised = image + sigma * unit_noise([int(number)], image.shape, seed=SEED)
            outputs = network.outputs(noised, sigma[None])
            for layer, output in zip(LAYERS, outputs, strict=False):
                found[layer].append(output[0].mean((1, 2)))
            found["spread"].append(outputs[1].std(correction=0))
            found["error"].append((outputs[-1][0] - image).square().mean())
    return {name: torch.stack(values).double().unflatten(0, (len(SIGMAS), -1)) for name, values in found.items()}


def test_scores_are_those_of_scikit_learns_ridge_on_features_of_single_images():
    """A gain in the Brier score over the prior, in the order of the probe set."""
    network, probe_set = Convolutions(), probe_set_of()
    found = measured_with(network, plan_of(probe_set))
    fit, heldout = (by_hand(network, s.images, range(len(s.images))) for s in (probe_set.fit, probe_set.heldout))
    truth_NC, truth_MC = (np.eye(3)[s.labels.numpy()] for s in (probe_set.fit, probe_set.heldout))
    for layer in LAYERS:
        for level in range(len(SIGMAS)):
            scaler = StandardScaler().fit(fit[layer][level])
            ridge = Ridge(alpha=0.3 * len(truth_NC)).fit(scaler.transform(fit[layer][level]), truth_NC)
            scores_MC = ridge.predict(scaler.transform(heldout[layer][level]))
            gain_M = ((truth_NC.mean(0) - truth_MC) ** 2).sum(1) - ((scores_MC - truth_MC) ** 2).sum(1)
            np.testing.assert_allclose(found.score[layer][level], gain_M, atol=1e-5)
            assert np.array_equal(found.correct[layer][level], scores_MC.argmax(1) == truth_MC.argmax(1))


@pytest.mark.parametrize("labelled", [True, False])
def test_errors_spreads_and_invariance_are_those_of_single_images(labelled):
    """A member has the noise of its held-out partner; of the judged layer alone."""
    network, probe_set = Convolutions(), probe_set_of(labelled=labelled)
    plan = plan_of(probe_set)
    found, paired = measured_with(network, plan), plan.passes["paired"].noise_ids
    images, members = probe_set.heldout.images[paired], probe_set.members.images[: plan.num_pairs]
    of_heldout = by_hand(network, images, paired)
    of_members = by_hand(network, members, paired[: plan.num_pairs])
    of_views = by_hand(network, another_view(images, seed=SEED, indices=paired.tolist()), VIEW_OFFSET + paired)
    for name in ("error", "spread"):
        close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-6, check_dtype=False)
        close(getattr(found, f"heldout_{name}"), of_heldout[name][:, : plan.num_pairs])
        close(getattr(found, f"members_{name}"), of_members[name])
    expected, num_features, num_directions = invariance_values(of_heldout["second"], of_views["second"])
    torch.testing.assert_close(found.invariance, expected, rtol=1e-3, atol=1e-3)
    assert (found.num_features, found.num_directions) == (num_features, num_directions)


def test_the_memorizers_errors_are_those_on_the_same_noised_members():
    probe_set = probe_set_of(make=blobs)
    plan = plan_of(probe_set, layers=("blocks.1",))
    members, paired = probe_set.members.images.double(), plan.passes["paired"].noise_ids
    for row in range(plan.num_pairs):
        noise = unit_noise([int(paired[row])], members.shape[1:], seed=SEED)[0].double()
        for level, sigma in enumerate(SIGMAS.tolist()):
            noised = members[row] + sigma * noise
            weights = torch.softmax(-(noised - members).square().sum(1) / (2 * sigma**2), 0)
            error = float((weights @ members - members[row]).square().mean())
            assert float(plan.memorizer_error[level, row]) == pytest.approx(error, rel=1e-3, abs=1e-9)


def test_a_labelled_plan_measures_each_image_once_and_some_in_pairs():
    probe_set = probe_set_of(96, 300)
    passes = plan_of(probe_set).passes
    assert set(passes) == {"fit", "heldout", "paired", "members", "views"}
    ids = {role: run.noise_ids for role, run in passes.items()}
    assert torch.cat([ids["paired"], ids["heldout"]]).sort().values.tolist() == list(range(len(probe_set.heldout)))
    for role in ("paired", "heldout"):
        assert passes[role].images is probe_set.heldout.images
        assert torch.equal(passes[role].rows, ids[role])
    assert passes["fit"].rows.tolist() == list(range(len(probe_set.fit)))
    assert passes["members"].rows.tolist() == list(range(len(ids["paired"])))
    assert ids["members"].tolist() == ids["paired"].tolist()
    assert not set(ids["views"].tolist()) & set(range(10_000))
    assert {role for role, run in passes.items() if run.to_output} == {"paired", "members"}


def test_an_unlabelled_plan_pairs_heldout_images_as_far_as_there_are_members_and_refuses_too_few():
    plan = plan_of(probe_set_of(50, 300, labelled=False))
    sizes = {role: len(run.rows) for role, run in plan.passes.items()}
    assert sizes == {"paired": 300, "members": plan.num_pairs, "views": 300}
    assert plan.num_pairs == 50
    with pytest.raises(ValueError, match="invariance of held-out images is measured: need at least 8 images, got 7"):
        plan_of(probe_set_of(96, 7, labelled=False))


@pytest.mark.parametrize(
    ("num_members", "num_heldout", "missing"),
    [(96, 90, {*PAIR_SIGNALS, "invariance"}), (5, 300, PAIR_SIGNALS), (8, 300, set())],
)
def test_few_images_leave_signals_out_and_the_curve_as_it_is(num_members, num_heldout, missing):
    probe_set = probe_set_of(num_members, num_heldout, make=blobs)
    network, plan = TinyDenoiser().eval(), partial(plan_of, probe_set, layers=("blocks.1",))
    found, alone = (measured_with(network, plan(with_pairs=with_pairs)) for with_pairs in (True, False))
    assert set(found.missing) == missing
    assert all("need at least 8 images, got" in reason for reason in found.missing.values())
    unmeasured = {*missing, "membership_tpr", "members_told_apart"}
    unmeasured |= {"membership_auc"} if "spread_auc" in missing else set()
    assert {signal.__name__ for signal in DEFAULT_SIGNALS if signal(found) is None} == unmeasured
    torch.testing.assert_close(found.score["blocks.1"], alone.score["blocks.1"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 50])
@pytest.mark.parametrize(("labelled", "with_pairs"), [(True, True), (True, False), (False, True)])
def test_a_check_takes_the_forwards_and_images_that_the_plan_counts(labelled, batch_size, with_pairs):
    """In batches of one image at all levels at least."""
    network, plan, inputs, images = (
        Convolutions(),
        plan_of(probe_set_of(labelled=labelled), with_pairs=with_pairs),
        [],
        [],
    )
    network.register_forward_pre_hook(lambda module, args: inputs.append(len(args[0])))
    measured_with(network, plan, batch_size=batch_size, progress=images.append)
    assert (sum(inputs), sum(images)) == (plan.num_forwards, plan.num_images)
    assert max(inputs) <= max(batch_size, len(SIGMAS))


def test_without_signals_only_the_probe_is_fitted_and_scored_and_with_them_a_quarter_more_forwards_are_made():
    """At most, with the recommended 2,000 held-out images."""
    probe_set = probe_set_of(1000, 2000, make=blobs)
    alone, whole = (plan_of(probe_set, with_pairs=with_pairs) for with_pairs in (False, True))
    assert set(alone.passes) == {"fit", "heldout"}
    assert (alone.num_pairs, dict(alone.missing)) == (0, {})
    assert 1.1 * alone.num_forwards < whole.num_forwards <= 1.25 * alone.num_forwards


def arrays_of(measured):
    arrays = {name: value for name, value in vars(measured).items() if isinstance(value, torch.Tensor)}
    return {**arrays, **measured.score}


@pytest.mark.parametrize("batch_size", [1, 50])
@pytest.mark.parametrize(("labelled", "probe"), [(True, RidgeProbe()), (True, LogisticProbe()), (False, None)])
def test_the_numbers_do_not_depend_on_the_batch_size(labelled, probe, batch_size):
    """And are the same to the last bit where it is the same."""
    plan = plan_of(probe_set_of(labelled=labelled), probe=probe)
    first, second, other = (
        arrays_of(measured_with(Convolutions(), plan, batch_size=size)) for size in (512, 512, batch_size)
    )
    for name, array in first.items():
        assert torch.equal(array, second[name])
        torch.testing.assert_close(array, other[name], rtol=0, atol=1e-3 if name == "invariance" else 1e-4)


def batches_of(role, *, network=None, ranks=None):
    plan = plan_of(probe_set_of())
    with going(network or Convolutions(), plan, ranks=ranks or Ranks()) as go:
        return list(go(plan.passes[role]))


def test_the_shares_of_all_ranks_are_the_pass():
    (whole,) = batches_of("paired")
    for rank in range(3):
        (batch,) = batches_of("paired", ranks=Ranks(rank, 3))
        assert torch.equal(batch.labels, whole.labels[rank::3])
        torch.testing.assert_close(batch.error, whole.error[:, rank::3])


@pytest.mark.parametrize(("role", "to_output"), [("heldout", False), ("members", True)])
def test_a_pass_ends_at_the_last_hooked_layer_unless_its_output_is_needed(role, to_output):
    network, reached = Convolutions(), []
    network.third.register_forward_pre_hook(lambda *args: reached.append(1))
    (batch,) = batches_of(role, network=network)
    assert bool(reached) is (batch.error is not None) is bool(batch.spread) is to_output


def test_the_memorizer_has_a_normalized_gap_of_one_and_the_posterior_mean_none():
    """A network that generalizes perfectly."""
    probe_set = probe_set_of(100, 1500, make=MoLRG().sample)
    memorizer, posterior_mean = Memorizer(probe_set.members.images), PosteriorMean(MoLRG())
    memorized, generalized = (
        measured_with(network, plan_of(probe_set, layers=(layer,), sigmas=paper_sigmas(probe_set.std)))
        for network, layer in ((memorizer, "recalled"), (posterior_mean, "code"))
    )
    whole, *none = normalized_gap(memorized), normalized_gap(generalized), denoising_gap(generalized)
    np.testing.assert_allclose([whole.value, whole.low, whole.high], 1.0, atol=1e-9)
    assert min(len(found.sigmas) for found in (whole, *none)) >= 3
    assert all(low < 0 < high for found in none for low, high in zip(found.low, found.high, strict=True))


@pytest.mark.parametrize(("brightness", "word"), [(0.5, "brighter"), (-0.5, "darker"), (0.0, None)])
def test_heldout_images_of_another_brightness_are_reported_beside_the_gap(brightness, word):
    found = measured_with(Convolutions(), plan_of(probe_set_of(200, 300, brightness=brightness)))
    assert denoising_gap(found) is not None
    assert found.shift is None if word is None else f"{word} than the members" in found.shift


def test_a_signal_that_cannot_be_measured_takes_no_other_along():
    """The memorizer recalls one and the same image from both views, of which there is nothing to compare."""
    probe_set = probe_set_of(100, 450, make=MoLRG().sample)
    sigmas = torch.tensor([1e-4, 2e-4, 3e-4, 5.0], dtype=torch.float64)
    found = measured_with(Memorizer(probe_set.members.images), plan_of(probe_set, layers=("recalled",), sigmas=sigmas))
    assert "both views have the same features" in found.missing["invariance"]
    assert [signal.__name__ for signal in DEFAULT_SIGNALS if signal(found) is None] == [
        "invariance",
        "membership_tpr",
        "members_told_apart",
    ]


def test_a_new_signal_is_one_function():
    def better_denoised(measured):
        is_better_KP = measured.members_error < measured.heldout_error
        return mean_estimate("better_denoised", "members denoised better", measured.sigmas, is_better_KP, neutral=0.5)

    options = {"signals": [better_denoised], "layer": "second", "reporters": ()}
    check = Monitor(EDMDenoiser(Convolutions()), probe_set_of(), **options).check(10)
    errors = zip(check.measured.members_error.numpy(), check.measured.heldout_error.numpy(), strict=True)
    assert check.signal("better_denoised").value == pytest.approx([(one < other).mean() for one, other in errors])
