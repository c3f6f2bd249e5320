"""Rows of `speed.py`: the probes' solves against the forwards and against loops of scikit-learn."""

import argparse
from pathlib import Path

import numpy as np
import torch
from clock import Row, side_by_side
from jobs import NUM_CLASSES
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from zoo import LAYERS

from unimodal_monitor import LogisticProbe, RidgeProbe

NUM_LEVELS, WIDTH, NUM_FIT, NUM_TEST = 9, 256, 4096, 2000
LOOP_LEVELS = (0, 4, 8)


def probe_rows(args: argparse.Namespace, per_forward: float) -> list[Row]:
    """Solves against the forwards and against loops of scikit-learn, by problem: one level of one layer."""
    x, y, kind = made_features() if args.cache is None else cached_features(args.cache)
    width = x.shape[2]
    shapes = f"{NUM_FIT:,} {kind} images, {width} features, 10 classes"
    batches = x[:, :NUM_FIT].to(args.device).split(max(1, args.batch_size // len(x)), 1)
    labels = y[:NUM_FIT].to(args.device).split(batches[0].shape[1])
    ridge, logistic = RidgeProbe(), LogisticProbe(C=1.0)
    moments, features = (probe.collector(len(x), width, NUM_CLASSES).to(args.device) for probe in (ridge, logistic))
    for batch, label in zip(batches, labels, strict=True):
        features.update(batch, label)

    def collect() -> None:
        moments.reset()
        for batch, label in zip(batches, labels, strict=True):
            moments.update(batch, label)

    collect_s, solve_s, logistic_s = (
        seconds / len(x)
        for seconds in side_by_side(
            collect, lambda: ridge.fit(moments), lambda: logistic.fit(features), repeats=args.repeats,
            device=args.device,
        )
    )  # fmt: skip
    loop_ridge_s, loop_logistic_s, accuracies = sklearn_loops(x, y, args.repeats)
    found = logistic.fit(features).scores(x[:, NUM_FIT:].to(args.device)).cpu().argmax(2)
    gap = max(abs(float((found[k] == y[NUM_FIT:]).double().mean()) - a) for k, a in accuracies.items())
    forwards_s, ridge_s = per_forward * NUM_FIT, collect_s + solve_s
    ms = [f"{1000 * s:.1f} ms" for s in (collect_s, solve_s, ridge_s, logistic_s, loop_ridge_s, loop_logistic_s)]
    share = 3 * ridge_s / forwards_s
    return [
        ("ridge, 27 problems / forwards of 9 levels", f"({ms[0]} + {ms[1]}) x 27 / {9 * forwards_s:.1f} s",
         f"{share:.1%}", "< 5%", f"moments + solve; {shapes}"),
        ("loop of `RidgeClassifier` / ridge", f"{ms[4]} / {ms[2]}", f"{loop_ridge_s / ridge_s:.1f}", ">= 0.8", shapes),
        ("loop of `LogisticRegression(C=1)` / ridge", f"{ms[5]} / {ms[2]}", f"{loop_logistic_s / ridge_s:.1f}",
         ">= 10", shapes),
        ("loop of `LogisticRegression(C=1)` / logistic probe", f"{ms[5]} / {ms[3]}",
         f"{loop_logistic_s / logistic_s:.1f}", ">= 50" if args.device == "cuda" else ">= 1", shapes),
        ("accuracy of the two, largest difference", f"{100 * gap:.2f} points", "", "<= 0.3", f"{NUM_TEST:,} images"),
    ]  # fmt: skip


def made_features() -> tuple[Tensor, Tensor, str]:
    """(9, N, 256) Gaussian features as ill-conditioned as the zoo's, told apart about as well; less so with the level.

    Variances along random axes fall by 1e5, as the eigenvalues of the zoo's standardised features do.
    """
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(NUM_FIT + NUM_TEST) % NUM_CLASSES
    deviation = torch.logspace(0, -2.5, WIDTH)
    rotation = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator))[0]
    centres = 0.1 * torch.randn(NUM_CLASSES, WIDTH, generator=generator)[labels]
    levels = [
        (((1 - level / 9) * centres + torch.randn(len(labels), WIDTH, generator=generator)) * deviation) @ rotation
        for level in range(NUM_LEVELS)
    ]
    return torch.stack(levels), labels, "simulated"


def cached_features(cache: Path) -> tuple[Tensor, Tensor, str]:
    """Those of the last layer of the last checkpoint."""
    path = sorted(cache.glob("n*.pt"))[-1]
    labels = torch.load(cache / "images.pt")["labels"]
    x = torch.load(path)[LAYERS[-1]].float()
    return x[:, : NUM_FIT + NUM_TEST], labels[: NUM_FIT + NUM_TEST], path.stem


def sklearn_loops(x: Tensor, y: Tensor, repeats: int) -> tuple[float, float, dict[int, float]]:
    """Mean seconds of a problem over some of the levels, and the logistic accuracies by level."""
    seconds, accuracies, truth = [], {}, y.numpy()
    for level in LOOP_LEVELS:
        scaler = StandardScaler().fit(x[level, :NUM_FIT].double())
        train, test = (scaler.transform(part.double()) for part in (x[level, :NUM_FIT], x[level, NUM_FIT:]))
        logistic = LogisticRegression(C=1.0, max_iter=10_000)
        ridge = RidgeClassifier(alpha=NUM_FIT * RidgeProbe().strength)
        works = (ridge, logistic)
        fits = [lambda work=work, train=train: work.fit(train, truth[:NUM_FIT]) for work in works]
        seconds.append(side_by_side(*fits, repeats=min(2, repeats)))
        accuracies[level] = logistic.score(test, truth[NUM_FIT:])
    ridge_s, logistic_s = np.mean(seconds, axis=0)
    return float(ridge_s), float(logistic_s), accuracies
