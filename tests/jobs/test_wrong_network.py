"""A known network beside the trained one, and networks without what they need: right, or refused with a reason."""

import diffusers
import pytest
import pytorch_lightning as pl
import torch
from families import CROSS, EMPTY, SMALL, Net, column, text_unet, unet
from test_families import images
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from unimodal_monitor import ProbeSet, UnimodalMonitor


class Parts(pl.LightningModule):
    """Holds parts by name; `loss(job, images)`, and the part whose parameters are trained."""

    def __init__(self, loss, *, trains, **parts):
        super().__init__()
        self.loss, self.trains = loss, trains
        for name, part in {"scheduler": diffusers.DDPMScheduler(clip_sample=False), **parts}.items():
            setattr(self, name, part)

    def training_step(self, batch, batch_idx):
        return self.loss(self, batch[0])

    def configure_optimizers(self):
        return torch.optim.Adam(getattr(self, self.trains).parameters(), 1e-3)


def fit(job, folder, **arguments):
    """The denoiser and its verification at the end."""
    torch.manual_seed(0)
    probe_set, seen = ProbeSet.from_datasets(images(40, seed=1), images(60, seed=2)), []
    monitor = UnimodalMonitor(probe_set, every_n_train_steps=100, **arguments)

    class Keep(pl.Callback):
        def on_train_batch_end(self, *args):
            seen.append(monitor.monitor and (monitor.monitor.denoiser, monitor.monitor.verification))

    trainer = pl.Trainer(
        accelerator="cpu", max_steps=12, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, callbacks=[monitor, Keep()],
    )  # fmt: skip
    trainer.fit(job, DataLoader(TensorDataset(*images(40, seed=1)), batch_size=8))
    return seen[-1]


def noised(job, x):
    noise, t = torch.randn_like(x), torch.randint(0, 1000, (len(x),))
    return job.scheduler.add_noise(x, noise, t), t, noise


def sample_of(output):
    return getattr(output, "sample", output)


def controlled(job, x):
    """diffusers' train_controlnet.py: the trained ControlNet gives residuals to the frozen U-Net."""
    x_t, t, noise = noised(job, x)
    text = EMPTY.expand(len(x), -1, -1)
    down, middle = job.controlnet(x_t, t, encoder_hidden_states=text, controlnet_cond=x, return_dict=False)
    residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
    return (job.unet(x_t, t, encoder_hidden_states=text, **residuals).sample - noise).square().mean()


def control_job():
    options = {**SMALL, "down_block_types": CROSS["down_block_types"], "conditioning_embedding_out_channels": (8,)}
    del options["sample_size"]
    controlnet = diffusers.ControlNetModel(
        **options, in_channels=3, conditioning_channels=3, cross_attention_dim=6, attention_head_dim=4
    )
    return Parts(controlled, trains="controlnet", unet=text_unet().requires_grad_(False), controlnet=controlnet)


@pytest.mark.parametrize("condition", [None, {"encoder_hidden_states": EMPTY}])
def test_frozen_network_behind_a_controlnet_is_not_watched(condition, tmp_path):
    with pytest.raises(ValueError, match=r"^unimodal_monitor: net: .* unet \(UNet2DConditionModel\), controlnet"):
        fit(control_job(), tmp_path, condition=condition)


def test_residuals_of_a_controlnet_are_asked_for(tmp_path):
    """The message has shapes, not values."""
    message = (
        r"condition: the training steps pass down_block_additional_residuals \[\(8, 8, 8, 8\), .*monitor passes none"
    )
    with pytest.raises(ValueError, match=message):
        fit(control_job(), tmp_path, net="unet", condition={"encoder_hidden_states": EMPTY})


def student_loss(job, x):
    x_t, t, noise = noised(job, x)
    return (sample_of(job.student(x_t, t)) - noise).square().mean()


@pytest.mark.parametrize("student", [unet, Net])
def test_student_is_watched_and_not_its_frozen_teacher(student, tmp_path, capsys):
    job = Parts(student_loss, trains="student", teacher=unet().requires_grad_(False), student=student())
    denoiser, verification = fit(job, tmp_path)
    assert denoiser.network is job.student
    assert verification.state == "confirmed"
    assert "not read: teacher" in capsys.readouterr().out


def distillation_loss(job, x):
    x_t, t, _ = noised(job, x)
    with torch.no_grad():
        target = job.teacher(x_t, t).sample
    return (sample_of(job.student(x_t, t)) - target).square().mean()


@pytest.mark.filterwarnings("ignore:unimodal. .* was not measured")
@pytest.mark.parametrize("student", [unet, Net])
def test_target_of_a_teacher_is_never_confirmed(student, tmp_path, capsys):
    job = Parts(distillation_loss, trains="student", teacher=unet().requires_grad_(False), student=student())
    denoiser, verification = fit(job, tmp_path)
    assert denoiser.network is job.student
    assert verification.state == "not verified"


@pytest.mark.filterwarnings("ignore:unimodal. .* was not measured")
def test_network_that_the_steps_do_not_call_is_never_confirmed(tmp_path, capsys):
    """Neither one that was given, nor a known one that is not frozen and trains nothing."""
    job = Parts(student_loss, trains="student", teacher=unet().requires_grad_(False), student=unet())
    fit(job, tmp_path / "given", net="teacher")
    assert "not verified (UNet2DModel was not called" in capsys.readouterr().out
    job = Parts(student_loss, trains="student", teacher=unet(), student=Net())
    fit(job, tmp_path / "found")
    assert "not verified (UNet2DModel was not called" in capsys.readouterr().out


class AttendsToItself(Net):
    """LDM's cross attention: without a context it takes its own input, where the sizes happen to fit."""

    def __init__(self):
        super().__init__()
        self.to_k = nn.Linear(3, 3)

    def forward(self, x, t, context=None):
        context = x.flatten(2).transpose(1, 2) if context is None else context
        return super().forward(x, t) + 0.1 * self.to_k(context).mean(1)[:, :, None, None]


def prompted(job, x):
    noise, t = torch.randn_like(x), torch.rand(len(x))
    s = column(t)
    return (job.net((1 - s) * x + s * noise, t, context=torch.randn(len(x), 5, 3)) - (noise - x)).square().mean()


@pytest.mark.parametrize("arguments", [{}, {"net": "net", "schedule": "flow"}], ids=["nothing given", "given"])
def test_cross_attention_without_its_context_is_refused(arguments, tmp_path):
    job = Parts(prompted, trains="net", net=AttendsToItself())
    message = r"^unimodal_monitor: condition: .* pass context \(8, 5, 3\) .* the monitor passes none; give condition="
    with pytest.raises(ValueError, match=message):
        fit(job, tmp_path, **arguments)
