"""Set-ups that the first version measured wrongly without a word: each is right now, or refused with what to give.

The rows of data in another range stand in tests/test_watching.py, those of conditions in tests/test_conditions.py.
"""

import pytest
import pytorch_lightning as pl
import torch
from families import ScoreNet, column
from more_families import (
    EDM_C_NOISE,
    FLOW,
    LUMINA,
    ONCE_WRONG,
    REPA,
    SIT_GVP,
    SIT_NOISE,
    VP_CONTINUOUS,
    Family,
    KDiffusionInner,
    Net,
    Table,
    VScalingWithEDMcNoise,
    unet,
    with_parts,
)
from pytorch_lightning.callbacks import StochasticWeightAveraging
from test_families import check, images
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from unimodal_monitor import ProbeSet, UnimodalMonitor


@pytest.mark.parametrize("family", ONCE_WRONG, ids=lambda family: family.name)
def test_what_was_wrong_in_silence_is_right(family, tmp_path, capsys):
    check(family, {}, tmp_path, capsys.readouterr, num_steps=12)


def ve_score(job, x):
    sigma = (torch.rand(len(x)) * 3 - 2).exp()
    return job.net(x + column(sigma) * torch.randn_like(x), sigma) + torch.randn_like(x)


class KDiffusionJob(nn.Module):
    """`model.inner_model` gets sigma; the model around it denoises."""

    def __init__(self):
        super().__init__()
        self.inner_model = KDiffusionInner()

    def forward(self, x, sigma):
        s = column(sigma)
        root = (s**2 + 0.25).sqrt()
        return 0.25 / root**2 * x + 0.5 * s / root * self.inner_model(x / root, sigma)


def k_diffusion_error(job, x):
    sigma = (torch.rand(len(x)) * 3 - 2).exp()
    return job.net(x + column(sigma) * torch.randn_like(x), sigma) - x


WRONG_WORD = {"net": "net", "schedule": "flow"}
REFUSED = [
    (Family("SiT GVP with a flow word", Net, **SIT_GVP), WRONG_WORD, "schedule='cosine:data' agrees"),
    (Family("SiT noise with a flow word", Net, **SIT_NOISE), WRONG_WORD, "schedule='flow:data:epsilon' agrees"),
    (Family("REPA cosine with a flow word", Net, **REPA), WRONG_WORD, "schedule='cosine' agrees"),
    (Family("Lumina with a flow word", Net, **LUMINA), WRONG_WORD, "schedule='flow:data' agrees"),
    (Family("a flow with a cosine word", Net, **FLOW), {"schedule": "cosine"}, "schedule='flow' agrees"),
    (
        Family("score_sde, continuous times beside a table", Net, parts=with_parts(sde=Table), **VP_CONTINUOUS),
        {"schedule": "sde:epsilon"},
        "schedule='vpsde' agrees",
    ),
    (
        Family("sgm", Net, parts=with_parts(schedule=Table, scaling=VScalingWithEDMcNoise), **EDM_C_NOISE),
        {"net": "net"},
        "scaling is a VScalingWithEDMcNoise, whose times are not known; give denoiser=",
    ),
    (
        Family("edm for a network without sigma", unet, **FLOW),
        {"schedule": "edm"},
        "schedule='edm', but the forward of UNet2DModel takes sample, timestep",
    ),
    (
        Family("the network inside k-diffusion's wrapper", KDiffusionJob, k_diffusion_error, lambda *_: None),
        {"net": "net.inner_model", "schedule": "edm"},
        "net: KDiffusionInner is called by KDiffusionJob, which takes sigma and denoises",
    ),
]


@pytest.mark.parametrize(("family", "arguments", "message"), REFUSED, ids=[family.name for family, *_ in REFUSED])
def test_what_was_wrong_in_silence_is_refused(family, arguments, message, tmp_path, capsys):
    with pytest.raises(ValueError, match="^unimodal_monitor: (schedule|net)[:=]") as error:
        check(family, arguments, tmp_path, capsys.readouterr, num_steps=12)
    assert message in str(error.value)


def score_error(job, x):
    sigma = (torch.rand(len(x)) * 3 - 2).exp()
    noise = torch.randn_like(x)
    return job.net(x + column(sigma) * noise, sigma) + noise / column(sigma)


def test_score_network_with_the_word_edm_is_refused(tmp_path, capsys):
    """score_sde VE: the network takes the level, and puts out a score."""

    class SigmaScore(ScoreNet):
        def forward(self, x, sigma):
            return super().forward(x, sigma)

    family = Family("score_sde VE", SigmaScore, score_error, lambda *_: None)
    with pytest.raises(ValueError, match="^unimodal_monitor: schedule: EDMDenoiser disagrees .* schedule='ve' agrees"):
        check(family, {"net": "net", "schedule": "edm"}, tmp_path, capsys.readouterr, num_steps=12)


class AveragedJob(pl.LightningModule):
    """Trains a flow, and keeps an average of the weights in one of the usual ways."""

    def __init__(self, kind):
        super().__init__()
        self.net, self.kind = Net(), kind
        tensors = [p.detach().clone() for p in self.net.parameters()]
        if kind == "ema_params":
            self.ema_params = [tensors]
        elif kind == "dict":
            self.ema = dict(zip(dict(self.net.named_parameters()), tensors, strict=True))
        elif kind == "emas":
            self.power = type("PowerFunctionEMA", (), {"emas": [Net().requires_grad_(False)]})()
            self.power.emas[0].load_state_dict(self.net.state_dict())

    def training_step(self, batch, batch_idx):
        return FLOW["error"](self, batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.net.parameters(), 1e-2)

    def averages(self):
        found = {
            "ema_params": lambda: self.ema_params[0],
            "dict": lambda: self.ema.values(),
            "emas": lambda: self.power.emas[0].parameters(),
            "none": list,
        }
        return list(found[self.kind]())

    def optimizer_step(self, *args, **kwargs):
        super().optimizer_step(*args, **kwargs)
        with torch.no_grad():
            for average, parameter in zip(self.averages(), self.net.parameters(), strict=False):
                average.lerp_(parameter, 0.2)


class KeepsAnAverage(pl.Callback):
    """A callback of the user's own."""

    def on_train_start(self, trainer, module):
        self.ema_net = Net().requires_grad_(False)
        self.ema_net.load_state_dict(module.net.state_dict())

    def on_train_batch_end(self, trainer, module, *args):
        with torch.no_grad():
            for average, parameter in zip(self.ema_net.parameters(), module.net.parameters(), strict=True):
                average.lerp_(parameter, 0.2)


def fit(job, folder, *callbacks):
    probe_set = ProbeSet.from_datasets(images(40, seed=1), images(60, seed=2))
    monitor = UnimodalMonitor(probe_set, every_n_train_steps=6)
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=6, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, callbacks=[*callbacks, monitor],
    )  # fmt: skip
    trainer.fit(job, DataLoader(TensorDataset(*images(40, seed=1)), batch_size=8))
    return monitor.history[-1].weights


@pytest.mark.parametrize("kind", ["ema_params", "dict", "emas"])
def test_average_of_the_job_is_read(kind, tmp_path, capsys):
    weights = fit(AveragedJob(kind), tmp_path)
    assert weights == "ema" or "not read: " in capsys.readouterr().out


def test_average_of_a_callback_is_read(tmp_path):
    assert fit(AveragedJob("none"), tmp_path, KeepsAnAverage()) == "ema"


def test_stochastic_weight_averaging_before_its_start_is_raw(tmp_path):
    average = StochasticWeightAveraging(swa_lrs=1e-3, swa_epoch_start=50)
    assert fit(AveragedJob("none"), tmp_path, average) == "raw"
