"""Averages of ema_pytorch and adapters of peft: which weights are trained and read, with the packages' own classes."""

import copy
import importlib

import diffusers
import pytest
import torch
from packaged import PackageFamily, PackageJob, lucidrains_gaussian, monai_ddpm
from test_packages import fit, largest_error

from unimodal_monitor.detect.ema import unread_averages

pytestmark = pytest.mark.packages
LUCIDRAINS = PackageFamily("", lambda: lucidrains_gaussian("pred_v"), {"net": "diffusion.model"}, in_unit_interval=True)
MONAI = PackageFamily("", lambda: monai_ddpm(2), {"net": "net"}, shape=(1, 8, 8))


def with_ema(family, averaged, *, kind="EMA", **options):
    """Its README: made after the model, updated after each step, as the last line of lucidrains' Trainer."""
    package = pytest.importorskip("ema_pytorch")

    class Averaging(PackageJob):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            self.ema.update()

    job = family.make()
    job.__class__ = Averaging
    job.ema = getattr(package, kind)(getattr(job, averaged), **options)
    return job


def own_of_average(job, averaged, average):
    """The package's estimate with the averaged module in place of the trained one."""
    other = copy.copy(job)
    other._modules = {**job._modules, averaged: average.eval()}
    return other.eval().own


@pytest.mark.parametrize(("family", "averaged"), [(LUCIDRAINS, "diffusion"), (MONAI, "net")], ids=["diffusion", "net"])
@pytest.mark.parametrize(
    "options",
    [{}, {"include_online_model": False}, {"lazy_init_ema": True}, {"use_foreach": True}],
    ids=["default", "without the online model", "lazy", "foreach"],
)
def test_average_is_read_and_said(family, averaged, options, tmp_path, capsys):
    job = with_ema(family, averaged, beta=0.9, update_every=1, update_after_step=1, **options)
    job, denoiser, _ = fit(family, tmp_path, job=job)
    assert "weights ema (ema), " in (line := capsys.readouterr().out)
    assert "not read" not in line
    assert denoiser.weights_used == "ema"
    assert largest_error(family, denoiser, own_of_average(job, averaged, job.ema.ema_model)) < 1e-4
    assert largest_error(family, denoiser, job.own) > 1e-2


def test_average_that_only_copies_yet_stands_for_the_raw_weights(tmp_path):
    job = with_ema(MONAI, "net", beta=0.9, update_after_step=100, update_every=100)
    job, denoiser, _ = fit(MONAI, tmp_path, job=job)
    assert denoiser.weights_used == "raw"
    assert largest_error(MONAI, denoiser, job.own) < 1e-4


def test_raw_weights_on_request_name_the_average_that_is_not_read(tmp_path, capsys):
    family = PackageFamily("", MONAI.make, {"net": "net", "ema": False}, shape=(1, 8, 8))
    job, denoiser, _ = fit(family, tmp_path, job=with_ema(family, "net", beta=0.9, update_every=1))
    assert "weights raw" in (line := capsys.readouterr().out)
    assert "not read: ema" in line
    assert unread_averages(job, job.net) == ["ema"]
    assert largest_error(family, denoiser, job.own) < 1e-4


def test_one_of_post_hoc_averages_is_read(tmp_path, capsys):
    options = {"sigma_rels": (0.05, 0.1), "update_every": 1, "checkpoint_folder": str(tmp_path / "post_hoc")}
    job, denoiser, _ = fit(MONAI, tmp_path, job=with_ema(MONAI, "net", kind="PostHocEMA", **options))
    assert "weights ema (ema" in capsys.readouterr().out
    errors = [largest_error(MONAI, denoiser, own_of_average(job, "net", e.ema_model)) for e in job.ema.ema_models]
    assert min(errors) < 1e-4


UNET = {"sample_size": 8, "block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4}
TEXT = torch.ones(1, 4, 6)


def unconditional():
    return diffusers.UNet2DModel(
        **UNET, down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
    )  # fmt: skip


def with_text():
    return diffusers.UNet2DConditionModel(
        **UNET, in_channels=3, out_channels=3, cross_attention_dim=6, attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip


def lora_job(unet, call, *, is_wrapped):
    """diffusers' train_text_to_image_lora.py, with peft's wrapper or with `add_adapter`: only the adapters train."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, lora_alpha=4, init_lora_weights="gaussian", target_modules=["to_k", "to_q", "to_v"])
    if is_wrapped:
        net = peft.get_peft_model(unet, config)
    else:
        net = unet.requires_grad_(False)
        net.add_adapter(config)
    scheduler = diffusers.DDPMScheduler(clip_sample=False)

    def loss(job, x):
        noise, t = torch.randn_like(x), torch.randint(0, 1000, (len(x),))
        return (call(job.net, job.scheduler.add_noise(x, noise, t), t) - noise).square()

    def own(job, noised, sigma):
        alphas = job.scheduler.alphas_cumprod
        t = (((1 - alphas) / alphas).sqrt().log() - sigma.log()[:, None]).abs().argmin(1)
        scaled = noised * alphas[t].sqrt().reshape(-1, 1, 1, 1)
        outputs = call(job.net, scaled, t)
        steps = zip(outputs, t, scaled, strict=True)
        return torch.cat([job.scheduler.step(o[None], i, x[None]).pred_original_sample for o, i, x in steps])

    return PackageJob(loss, own, net=net, scheduler=scheduler)


def plain(net, x, t):
    return net(x, t).sample


def prompted(net, x, t):
    return net(x, t, encoder_hidden_states=TEXT.expand(len(x), -1, -1)).sample


@pytest.mark.parametrize(
    ("unet", "call", "is_wrapped"),
    [(unconditional, plain, True), (with_text, prompted, True), (with_text, prompted, False)],
    ids=["UNet2DModel, get_peft_model", "UNet2DConditionModel, get_peft_model", "UNet2DConditionModel, add_adapter"],
)
def test_lora_is_found_confirmed_and_in_the_estimate(unet, call, is_wrapped, tmp_path, capsys):
    given = {"condition": {"encoder_hidden_states": TEXT}} if call is prompted else {}
    family = PackageFamily("", lambda: lora_job(unet(), call, is_wrapped=is_wrapped), given)
    job, denoiser, _ = fit(family, tmp_path)
    line = capsys.readouterr().out
    assert "confirmed on 3 training steps" in line
    assert f"{sum(p.numel() for p in job.parameters() if p.requires_grad):,} trainable" in line
    assert largest_error(family, denoiser, job.eval().own) < 1e-4

    layers = importlib.import_module("peft.tuners.tuners_utils").BaseTunerLayer
    x, sigma = torch.randn(1, 3, 8, 8), denoiser.snap(torch.ones(1))
    with torch.no_grad():
        adapted = denoiser(x, sigma)
        for module in job.modules():
            if isinstance(module, layers):
                module.enable_adapters(False)
        assert not torch.allclose(denoiser(x, sigma), adapted)
