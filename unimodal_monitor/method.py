"""One check of a diffusion network, from images to per-image numbers. Read this file first.

Images pass through the network in four roles; each image meets the same noise at every check:

    fit               labelled images            -> features -> a linear probe is fitted
    paired, heldout   other labelled images      -> features -> the probe is scored
    paired            the first of these         -> output   -> denoising error; spread of the activations
    members           images of the training set -> output   -> the same, with the noise of their held-out partner
    views             augmented `paired` images  -> features -> invariance of the features, 1 - ICR

Everything that is decided later rests on (K, N) arrays, one number for each noise level and image: `Measured`.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from unimodal_monitor.data.datasets import balanced_rows
from unimodal_monitor.data.probe_set import ProbeSet
from unimodal_monitor.denoisers.base import Denoiser, device_of
from unimodal_monitor.denoisers.memorizer import Memorizer
from unimodal_monitor.forward.distributed import CPU, Ranks
from unimodal_monitor.forward.hooks import Capture, capture
from unimodal_monitor.forward.noise import unit_noise
from unimodal_monitor.probes.base import Classifier, Probe
from unimodal_monitor.signals.gap import denoising_error
from unimodal_monitor.signals.growth import image_covariates
from unimodal_monitor.signals.invariance import invariance_values
from unimodal_monitor.signals.measured import Measured
from unimodal_monitor.signals.shift import find_shift
from unimodal_monitor.signals.views import another_view

PAIRED_SHARE, MAX_PAIRED_UNLABELLED = 1 / 12, 2048  # held-out images with a member and a view: a sixth more forwards
MIN_IMAGES = 8  # fewest images of a role for its signals to be measured
PAIR_SIGNALS = ("normalized_gap", "denoising_gap", "spread_auc")
VIEW_OFFSET = 10**9  # added to an image's number to give its augmented view a noise of its own


@dataclass(frozen=True, eq=False)
class Pass:
    """Images that go through the network together."""

    images: Tensor
    rows: Tensor  # (N,) of the images that pass
    noise_ids: Tensor  # (N,) select the noise of each
    labels: Tensor | None = None  # of all images
    to_output: bool = False


@dataclass(frozen=True, eq=False)
class Batch:
    """One forward at all K levels; spread and error come from a forward to the output."""

    features: dict[str, Tensor]  # (K, B, D) by layer
    labels: Tensor | None
    spread: dict[str, Tensor]  # (K, B) by layer
    error: Tensor | None  # (K, B)


@dataclass(frozen=True, eq=False)
class Plan:
    """What every check of a run measures."""

    probe_set: ProbeSet
    layers: tuple[str, ...]  # names of the hooked layers, the judged one last
    sigmas: Tensor  # (K,) noise levels in data units
    seed: int  # of noise and augmentation
    probe: Probe  # fitted at every layer and level
    passes: Mapping[str, Pass]  # by role
    num_pairs: int  # members with a held-out partner, P
    memorizer_error: Tensor | None  # (K, P) errors of the closed-form memorizer on the noised members
    covariates: tuple[Tensor | None, ...]  # (P, S) image statistics of the members, and of their partners
    shift: str | None  # sentence: how held-out images differ from members, so that the gap cannot be trusted
    missing: Mapping[str, str]  # why a signal cannot be measured, by its name

    @property
    def num_images(self) -> int:
        """Images that pass through the network, at all levels each."""
        return sum(len(run.rows) for run in self.passes.values())

    @property
    def num_forwards(self) -> int:
        """Inputs that pass through the network."""
        return self.num_images * len(self.sigmas)


Go = Callable[[Pass], Iterator[Batch]]  # runs this rank's share of a pass, such as `forward`


def plan_check(
    probe_set: ProbeSet,
    probe: Probe,
    *,
    layers: tuple[str, ...],
    sigmas: Tensor,
    seed: int,
    with_pairs: bool = True,
    min_images: int = MIN_IMAGES,
    device: torch.device = CPU,
) -> Plan:
    """The passes of every check of a run; with labels and without pairs, only the probe is fitted and scored."""
    heldout, members, fit, all_of = probe_set.heldout, probe_set.members.images, probe_set.fit, torch.arange
    is_labelled = not probe_set.is_unlabelled and probe_set.num_classes > 0  # an error if only one role has labels
    rows = torch.from_numpy(balanced_rows(heldout.labels, len(heldout), len(heldout), seed=seed))
    most = min(int(PAIRED_SHARE * (len(fit) + len(rows))), max(1, len(rows) // 4))
    paired = rows[: most * with_pairs if is_labelled else MAX_PAIRED_UNLABELLED]
    num_pairs = min(len(members), len(paired))
    missing: dict[str, str] = {}
    for signals, count in ((PAIR_SIGNALS, num_pairs), (("invariance",), len(paired))):
        if count < min_images and (with_pairs or not is_labelled):
            missing |= dict.fromkeys(signals, f"need at least {min_images} images, got {count}")
    if not is_labelled and "invariance" in missing:
        raise ValueError(f"without labels the invariance of held-out images is measured: {missing['invariance']}")
    num_pairs = num_pairs if num_pairs >= min_images else 0
    paired = paired if len(paired) >= min_images else paired[:0]
    views, rest = another_view(heldout.images[paired], seed=seed, indices=paired.tolist()), rows[len(paired) :]
    described = shift.describe() if num_pairs and (shift := find_shift(members, heldout.images)) else None
    passes = {
        "paired": Pass(heldout.images, paired, paired, heldout.labels, to_output=num_pairs > 0),
        "members": Pass(members, all_of(num_pairs), paired[:num_pairs], to_output=True),
        "views": Pass(views, all_of(len(paired)), VIEW_OFFSET + paired),
    }
    if is_labelled:
        passes["fit"] = Pass(fit.images, all_of(len(fit)), all_of(len(fit)), fit.labels)
        passes["heldout"] = Pass(heldout.images, rest, rest, heldout.labels)
    needed = {role: run for role, run in passes.items() if len(run.rows)}
    error = _memorizer_error(passes["members"], device, sigmas, seed) if num_pairs else None
    covariates = tuple(map(image_covariates, (members[:num_pairs], heldout.images[paired[:num_pairs]])))
    return Plan(probe_set, layers, sigmas, seed, probe, needed, num_pairs, error, covariates, described, missing)


def _memorizer_error(run: Pass, device: torch.device, sigmas: Tensor, seed: int) -> Tensor:
    members = run.images.to(CPU if device.type == "mps" else device)  # MPS has no double precision
    go = partial(forward, Memorizer(members), sigmas=sigmas, seed=seed, batch_size=4096, ranks=Ranks())
    with capture({}) as captured:
        batches = go(captured, replace(run, images=members))
        return torch.cat([batch.error for batch in batches if batch.error is not None], 1).cpu()


def forward(
    denoiser: Denoiser,
    captured: Capture,
    run: Pass,
    *,
    sigmas: Tensor,
    seed: int,
    batch_size: int,
    ranks: Ranks,
    precision: Callable[[], AbstractContextManager[object]] = nullcontext,
    progress: Callable[[int], object] = lambda num_images: None,
) -> Iterator[Batch]:
    """This rank's share of a pass, batch by batch; a GPU is not waited for before the end, nor are features checked."""
    device = device_of(denoiser.network)
    for part in torch.split(ranks.share(torch.arange(len(run.rows))), max(1, batch_size // len(sigmas))):
        rows, levels = run.rows[part], sigmas.to(device, run.images.dtype)
        clean = run.images[rows].to(device, non_blocking=True)
        noise = unit_noise(run.noise_ids[part].tolist(), clean.shape[1:], seed=seed).to(clean)
        noised = torch.addcmul(clean[None], levels.view(-1, *[1] * clean.ndim), noise[None]).flatten(0, 1)
        with precision():
            call = partial(denoiser, noised, levels.repeat_interleave(len(rows)))
            denoised = captured.run(call, to_output=run.to_output)
        shape = (len(sigmas), len(rows))
        yield Batch(
            {layer: features.view(*shape, -1) for layer, features in captured.features.items()},
            None if run.labels is None else run.labels[rows].to(device, torch.long),
            {layer: spread.view(shape) for layer, spread in captured.spread.items()},
            denoising_error(denoised.view(*shape, *clean.shape[1:]), clean) if run.to_output else None,
        )
        progress(len(rows))
    captured.check_finite()


def measure(go: Go, plan: Plan, ranks: Ranks) -> Measured:
    """The per-image numbers of one check; work that may fail is done `together`, so that no rank waits for ever."""
    collectors = ranks.together(lambda: _collect(go, plan))
    with ranks.merged(list(collectors.values())):
        classifiers = ranks.together(lambda: {name: plan.probe.fit(kept) for name, kept in collectors.items()})
    parts = ranks.together(lambda: _run_passes(go, plan, classifiers))
    whole = {(role, name): ranks.gather(part, len(plan.passes[role].rows)) for (role, name), part in parts.items()}
    return ranks.together(lambda: _measured({key: values.cpu() for key, values in whole.items()}, plan))


def _collect(go: Go, plan: Plan) -> dict[str, Metric]:
    """What the probe keeps of the fit images, by layer."""
    collectors: dict[str, Metric] = {}
    for batch in go(plan.passes["fit"]) if "fit" in plan.passes else ():
        for layer, features_KBD in batch.features.items():
            if layer not in collectors:
                num_levels, _, width = features_KBD.shape
                collector = plan.probe.collector(num_levels, width, plan.probe_set.num_classes)
                collectors[layer] = collector.to(features_KBD.device)
            collectors[layer].update(features_KBD, batch.labels)
    return collectors


def _run_passes(go: Go, plan: Plan, classifiers: Mapping[str, Classifier]) -> dict[tuple[str, str], Tensor]:
    """(K, n, ...) numbers of this rank's images, by role and name."""
    kept: dict[tuple[str, str], list[Tensor]] = {}
    for role in (role for role in plan.passes if role != "fit"):
        for batch in go(plan.passes[role]):
            for name, values in _numbers(batch, plan, classifiers).items():
                kept.setdefault((role, name), []).append(values)
            if role in ("paired", "views"):
                kept.setdefault((role, "features"), []).append(batch.features[plan.layers[-1]])
    return {key: torch.cat(values, 1) for key, values in kept.items()}


def _numbers(batch: Batch, plan: Plan, classifiers: Mapping[str, Classifier]) -> dict[str, Tensor]:
    """(K, B) numbers of one forward, by name."""
    numbers, labels = {}, batch.labels
    if labels is not None:
        for layer, classifier in classifiers.items():
            scores_KBC = classifier.scores(batch.features[layer])
            numbers[f"score/{layer}"] = plan.probe.score(scores_KBC, labels, classifier.prior_C)
            numbers[f"correct/{layer}"] = scores_KBC.argmax(2).eq(labels)
    if batch.error is not None:
        numbers |= {"error": batch.error, "spread": batch.spread[plan.layers[-1]]}
    return numbers


def _measured(whole: Mapping[tuple[str, str], Tensor], plan: Plan) -> Measured:
    """The numbers of all ranks as one record; scores in the order of the probe set."""
    numbers: dict[str, Any] = dict(zip(("members_covariates", "heldout_covariates"), plan.covariates, strict=True))
    numbers["missing"] = dict(plan.missing)
    scored = [role for role in ("paired", "heldout") if role in plan.passes and "fit" in plan.passes]
    if scored:
        order = torch.cat([plan.passes[role].noise_ids for role in scored]).argsort()
        for name in ("score", "correct"):
            parts = {layer: [whole[role, f"{name}/{layer}"] for role in scored] for layer in plan.layers}
            numbers[name] = {layer: torch.cat(columns, 1)[:, order] for layer, columns in parts.items()}
    if plan.num_pairs:
        for name in ("error", "spread"):
            numbers[f"heldout_{name}"] = whole["paired", name][:, : plan.num_pairs]
            numbers[f"members_{name}"] = whole["members", name]
    if "views" in plan.passes:
        try:
            found = invariance_values(whole["paired", "features"], whole["views", "features"])
            numbers |= dict(zip(("invariance", "num_features", "num_directions"), found, strict=True))
        except ValueError as error:
            numbers["missing"]["invariance"] = str(error)
    return Measured(
        plan.sigmas, plan.probe_set.std, plan.layers, plan.probe.score_name,
        memorizer_error=plan.memorizer_error, shift=plan.shift, **numbers,
    )  # fmt: skip
