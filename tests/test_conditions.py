"""Conditions of the network: what the job passes is offered, taken, or held against what the monitor passes."""

import pytest
import torch
from tiny_job import WIDTH, TinyJob, tiny_loader, tiny_probe_set, tiny_trainer
from torch import nn

from unimodal_monitor import UnimodalMonitor

CLASSES = 10


class OneHotNet(nn.Module):
    """EDM's: `class_labels` are one-hot vectors, zero without."""

    label_dropout = 0.0

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(CLASSES, WIDTH, bias=False)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()) for _ in range(3))

    def forward(self, x, sigma, class_labels=None):
        hidden = x / (1 + sigma.view(-1, 1) ** 2).sqrt()
        if class_labels is not None:
            hidden = hidden + self.embed(class_labels)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return hidden


class NeedyNet(OneHotNet):
    """Without a default for its condition."""

    def forward(self, x, sigma, class_labels):
        return super().forward(x, sigma, class_labels)


class DropsInsideNet(OneHotNet):
    """EDM with label dropout: what is passed is never zero."""

    label_dropout = 0.1


class RandomNet(OneHotNet):
    """lucidrains' classifier-free guidance: drops classes in eval mode, too."""

    def forward(self, x, sigma, class_labels=None):
        kept = torch.rand(len(x), 1) > 0.5
        return super().forward(x, sigma, kept.float() * torch.ones(len(x), CLASSES))


class LabelledJob(TinyJob):
    """Passes classes to the network; some of them are zero."""

    def __init__(self, net, *, dropped=0.0, passes=True):
        super().__init__()
        self.net, self.dropped, self.passes = net, dropped, passes
        del self.ema

    def optimizer_step(self, *args, **kwargs):
        super(TinyJob, self).optimizer_step(*args, **kwargs)

    def training_step(self, batch, batch_idx):
        images, labels = batch
        sigma, noise = torch.randn(len(images)).exp(), torch.randn_like(images)
        classes = nn.functional.one_hot(labels, CLASSES) * (torch.rand(len(images), 1) >= self.dropped)
        given = {"class_labels": classes.float()} if self.passes else {}
        return (self.net(images + sigma[:, None] * noise, sigma, **given) - images).square().mean()


def fit(folder, job, **options):
    """The conditions that the monitor passed at the end."""
    conditions = {}

    class Keep(UnimodalMonitor):
        def on_train_end(self, *args):
            super().on_train_end(*args)
            conditions.update(self.monitor.denoiser.condition)

    monitor = Keep(tiny_probe_set(), every_n_train_steps=10, signals=(), **options)
    tiny_trainer(folder, callbacks=[monitor], max_steps=20).fit(job, tiny_loader())
    return conditions


@pytest.mark.parametrize("net", [OneHotNet, NeedyNet])
def test_condition_that_is_not_passed_is_asked_for_as_the_job_passes_it(net, tmp_path):
    with pytest.raises(ValueError, match=r"^unimodal_monitor: condition: .*class_labels \(16, 10\)"):
        fit(tmp_path, LabelledJob(net()))


def test_network_that_drops_its_condition_itself_needs_none(tmp_path, capsys):
    fit(tmp_path, LabelledJob(DropsInsideNet()))
    assert "confirmed on" in capsys.readouterr().out


@pytest.mark.parametrize("net", [OneHotNet, NeedyNet])
def test_condition_that_is_dropped_in_training_is_confirmed(net, tmp_path, capsys):
    zero = torch.zeros(1, CLASSES)
    fit(tmp_path, LabelledJob(net(), dropped=0.2), condition={"class_labels": zero})
    assert "condition class_labels (1, 10), images [-4, 3.6]; confirmed on" in capsys.readouterr().out


def test_condition_that_was_never_dropped_is_refused(tmp_path):
    zero = torch.zeros(1, CLASSES)
    match = r"condition: class_labels was never zero in \d{3} images .* condition='batch' takes that of the first image"
    with pytest.raises(ValueError, match=match):
        fit(tmp_path, LabelledJob(NeedyNet()), condition={"class_labels": zero})


def test_batch_gives_its_own_condition_as_a_last_resort(tmp_path, capsys):
    conditions = fit(tmp_path, LabelledJob(NeedyNet()), condition="batch")
    assert "class_labels (1, 10) of the first image seen (a last resort)" in capsys.readouterr().out
    assert conditions["class_labels"].shape == (1, CLASSES)
    assert conditions["class_labels"].sum() == 1


def test_class_is_one_hot_where_the_job_passes_such(tmp_path, capsys):
    conditions = fit(tmp_path, LabelledJob(NeedyNet()), null_class=2)
    assert conditions["class_labels"].tolist() == [[0, 0, 1, 0, 0, 0, 0, 0, 0, 0]]
    assert "confirmed on" in capsys.readouterr().out


def test_condition_of_another_kind_is_refused(tmp_path):
    """Two-dimensional images where the network takes vectors would broadcast."""
    other = torch.zeros(1, CLASSES, dtype=torch.long)

    class Tolerant(NeedyNet):
        def forward(self, x, sigma, class_labels):
            return super().forward(x, sigma, class_labels.float())

    with pytest.raises(
        ValueError, match=r"the training steps pass class_labels \(16, 10\), the monitor \(1, 10\) int64"
    ):
        fit(tmp_path, LabelledJob(Tolerant()), condition={"class_labels": other})


def test_network_that_draws_in_eval_mode_is_refused(tmp_path):
    match = r"^unimodal_monitor: net: two identical calls of RandomNet differ by \d+\.\d%"
    with pytest.raises(ValueError, match=match):
        fit(tmp_path, LabelledJob(RandomNet(), passes=False))


def test_condition_that_a_network_does_without_is_said_to_be_none(tmp_path, capsys):
    fit(tmp_path, LabelledJob(OneHotNet()), condition={"class_labels": None})
    assert "condition class_labels None" in capsys.readouterr().out
