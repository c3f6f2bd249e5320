"""Jobs with the classes of other packages, as their own training code uses them; made, they import the package."""

import importlib
import math
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.machinery import ModuleSpec
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from unimodal_monitor.denoisers import VPDenoiser
from unimodal_monitor.denoisers.network import NetworkDenoiser

ALPHAS = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)
Estimate = Callable[[Any, Tensor, Tensor], Tensor]  # of the job, noised images and sigmas


@dataclass(frozen=True, eq=False)
class PackageFamily:
    """`make` gives the job, whose `own(noised, sigma)` is the package's estimate; `says` is what is to be printed."""

    name: str
    make: Callable[[], "PackageJob"]
    arguments: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = (3, 8, 8)
    says: str = "confirmed on 3 training steps"
    in_unit_interval: bool = False  # the batches; the network sees 2 x - 1
    fault: str = ""  # why the monitor does not say so yet
    sigmas: tuple[float, ...] = (0.05, 0.3, 1.0, 3.0)
    transform: None = None  # of the probe set's images
    is_hidden: bool = False  # whether network and schedule cannot be found by the training steps

    @property
    def needed(self) -> dict[str, Any]:
        """The arguments that cannot be left out."""
        found = () if self.is_hidden else ("net", "schedule")
        return {name: value for name, value in self.arguments.items() if name not in found}


class PackageJob(pl.LightningModule):
    """Trains with `loss`; `parts` become attributes."""

    def __init__(self, loss: Callable[[Any, Tensor], Tensor], own: Estimate, **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self._loss, self._own = loss, own
        with torch.no_grad():  # most U-Nets start with an output of zero, which all conventions agree about
            for parameter in self.parameters():
                if parameter.requires_grad and not parameter.any():
                    parameter.normal_(std=0.05)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self._loss(self, batch[0]).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam((p for p in self.parameters() if p.requires_grad), 1e-3)

    def own(self, noised: Tensor, sigma: Tensor) -> Tensor:
        return self._own(self, noised, sigma)


def column(values: Tensor, images: Tensor) -> Tensor:
    return values.to(images).reshape(-1, *[1] * (images.ndim - 1))


class _StandIn(types.ModuleType):
    """A module of which any name is an empty class."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


@contextmanager
def standing_in(*names: str) -> Iterator[None]:
    """While a package is imported: modules that its sampling, logging or metrics import and its training does not use.

    Those that are installed are left alone.
    """
    added = []
    for name in names:
        top = name.partition(".")[0]
        if top not in added and importlib.util.find_spec(top) is not None:
            continue
        sys.modules[name] = _StandIn(name)
        sys.modules[name].__spec__, sys.modules[name].__path__ = ModuleSpec(name, None), []
        added.append(name)
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], last, sys.modules[name])
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]


def k_diffusion() -> Any:
    with standing_in(
        *("torchvision", "torchvision.transforms", "torchvision.transforms.functional", "skimage", "skimage.transform"),
        *("cleanfid", "cleanfid.inception_torchscript", "clip", "dctorch", "dctorch.functional", "jsonmerge"),
        *("torchsde", "torchdiffeq", "kornia"),
    ):
        return pytest.importorskip("k_diffusion")


def lucidrains() -> Any:
    with standing_in(
        *("torchvision", "torchvision.transforms", "torchvision.utils"),
        *("pytorch_fid", "pytorch_fid.fid_score", "pytorch_fid.inception"),
    ):
        return pytest.importorskip("denoising_diffusion_pytorch")


# MONAI


def monai_net(dims: int) -> nn.Module:
    nets = pytest.importorskip("monai.networks.nets")
    return nets.DiffusionModelUNet(
        spatial_dims=dims, in_channels=1, out_channels=1, channels=(8, 8), attention_levels=(False, True),
        num_res_blocks=1, num_head_channels=4, norm_num_groups=4,
    )  # fmt: skip


def monai_ddpm(dims: int, prediction: str = "epsilon") -> PackageJob:
    """The 2D and 3D tutorials: the inferer adds the noise and calls the network."""
    schedulers = pytest.importorskip("monai.networks.schedulers")
    scheduler = schedulers.DDPMScheduler(
        num_train_timesteps=1000, schedule="scaled_linear_beta", beta_start=0.0005, beta_end=0.0195,
        clip_sample=False, prediction_type=prediction,
    )  # fmt: skip
    inferer = importlib.import_module("monai.inferers").DiffusionInferer(scheduler)

    def loss(job: Any, x: Tensor) -> Tensor:
        noise, t = torch.randn_like(x), torch.randint(0, job.inferer.scheduler.num_train_timesteps, (len(x),))
        out = job.inferer(inputs=x, diffusion_model=job.net, noise=noise, timesteps=t)
        if prediction == "epsilon":
            return nn.functional.mse_loss(out.float(), noise.float())
        return nn.functional.mse_loss(out.float(), job.scheduler.get_velocity(x, noise, t))

    def own(job: Any, noised: Tensor, sigma: Tensor) -> Tensor:
        return torch.cat([of_steps(job, image[None], level) for image, level in zip(noised, sigma, strict=True)])

    def of_steps(job: Any, image: Tensor, level: Tensor) -> Tensor:
        alphas = job.scheduler.alphas_cumprod
        t = (((1 - alphas) / alphas).sqrt().log() - level.log()).abs().argmin()
        x_t = alphas[t].sqrt() * image
        return job.scheduler.step(job.net(x_t, t[None]), t, x_t)[1]

    return PackageJob(loss, own, net=monai_net(dims), inferer=inferer, scheduler=scheduler)


def monai_flow(dims: int, *, l1: bool = False, num: int = 1000, **options: Any) -> PackageJob:
    """The tutorial of MAISI, which trains rectified flow with L1; others with a squared error."""
    schedulers = pytest.importorskip("monai.networks.schedulers")
    scheduler = schedulers.RFlowScheduler(num_train_timesteps=num, spatial_dim=dims, **options)
    scheduler.set_timesteps(10, input_img_size_numel=8**dims)

    def loss(job: Any, x: Tensor) -> Tensor:
        noise, t = torch.randn_like(x), job.inferer.scheduler.sample_timesteps(x)
        out = job.inferer(inputs=x, diffusion_model=job.net, noise=noise, timesteps=t)
        return (out - (x - noise)).abs() if l1 else (out - (x - noise)).square()

    def own(job: Any, noised: Tensor, sigma: Tensor) -> Tensor:
        t = num * sigma.double() / (1 + sigma.double())
        x_t = (noised / column(1 + sigma, noised)).float()
        out = job.net(x=x_t, timesteps=t.float())
        steps = zip(out, t.tolist(), x_t, strict=True)
        return torch.stack([job.inferer.scheduler.step(velocity, time, image)[1] for velocity, time, image in steps])

    inferer = importlib.import_module("monai.inferers").DiffusionInferer(scheduler)
    return PackageJob(loss, own, net=monai_net(dims), inferer=inferer)


# torchcfm


def torchcfm(kind: str, *, sigma: float = 0.0) -> PackageJob:
    """Its CIFAR-10 example: `net(t, x_t)` learns the matcher's velocity."""
    name = f"{kind}ConditionalFlowMatcher"
    package = pytest.importorskip("torchcfm")
    unet = importlib.import_module("torchcfm.models.unet.unet").UNetModelWrapper(
        dim=(3, 8, 8), num_res_blocks=1, num_channels=32, channel_mult=[1, 1], num_heads=1, attention_resolutions="4"
    )

    def loss(job: Any, x: Tensor) -> Tensor:
        t, x_t, u_t = job.matcher.sample_location_and_conditional_flow(torch.randn_like(x), x)
        return (job.net(t, x_t) - u_t).square()

    def own(job: Any, noised: Tensor, level: Tensor) -> Tensor:
        # the matcher's own mean and flow at two known ends are linear in both: solved for the data
        is_cosine = name.startswith("Variance")
        t = 1 - 2 / math.pi * level.double().atan() if is_cosine else 1 / (1 + level.double())
        t_ = t.reshape(-1, 1, 1, 1)
        one, zero = torch.ones_like(t_), torch.zeros_like(t_)
        mean, flow = job.matcher.compute_mu_t, job.matcher.compute_conditional_flow
        a, s = mean(zero, one, t_), mean(one, zero, t_)
        p, q = flow(zero, one, t_, a), flow(one, zero, t_, s)
        x_t = a * noised
        out = job.net(t.float(), x_t.float())
        if name.startswith("Target"):  # its noise is drawn by `sample_xt`; flow = (data - x_t) / (1 - t)
            return (x_t + (1 - t_) * out).float()
        return ((q * x_t - s * out) / (a * q - s * p)).float()

    return PackageJob(loss, own, net=unet, matcher=getattr(package, name)(sigma=sigma))


# Meta's flow_matching


class Velocity(nn.Module):
    """A network of the user's own, for packages that bring none."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 3, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(16, 16, 1)) for _ in range(3))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        hidden = self.first(x) + t.to(x).reshape(-1, 1, 1, 1)
        for block in self.blocks:
            hidden = torch.tanh(block(hidden))
        return self.last(hidden)


def meta_flow(scheduler: str, **options: Any) -> PackageJob:
    """Its image example: `path.sample`, and the squared error of `dx_t`."""
    paths = pytest.importorskip("flow_matching.path")
    schedulers = importlib.import_module("flow_matching.path.scheduler")
    wrapper = importlib.import_module("flow_matching.utils").ModelWrapper
    is_condot = scheduler == "CondOTProbPath"
    path = paths.CondOTProbPath() if is_condot else paths.AffineProbPath(getattr(schedulers, scheduler)(**options))

    def loss(job: Any, x: Tensor) -> Tensor:
        sample = job.path.sample(t=torch.rand(len(x)) * 0.998 + 1e-3, x_0=torch.randn_like(x), x_1=x)
        return (job.net(sample.x_t, sample.t) - sample.dx_t).square()

    def own(job: Any, noised: Tensor, sigma: Tensor) -> Tensor:
        t = job.path.scheduler.snr_inverse(1 / sigma.double())
        x_t = column(job.path.scheduler(t).alpha_t, noised).double() * noised
        out = job.net(x_t.float(), t.float())
        return job.path.velocity_to_target(velocity=out, x_t=x_t, t=t.reshape(-1, 1, 1, 1)).float()

    return PackageJob(loss, own, net=wrapper(Velocity()), path=path)


@dataclass(eq=False, repr=False, kw_only=True)
class AffineDenoiser(NetworkDenoiser):
    """What a user writes for a scheduler without a name: any of the package's, by its own functions."""

    path: Any

    def __call__(self, noised: Tensor, sigma: Tensor) -> Tensor:
        t = self.path.scheduler.snr_inverse(1 / sigma.to(noised))
        x_t = column(self.path.scheduler(t).alpha_t, noised) * noised
        return self.path.velocity_to_target(velocity=self.predict(x_t, t), x_t=x_t, t=column(t, noised))


def affine_denoiser(job: Any) -> AffineDenoiser:
    return AffineDenoiser(job.net, path=job.path)


# k-diffusion


def k_denoiser(kind: str) -> PackageJob:
    """Its train.py: a wrapper's `loss(reals, noise, sigma)`, the wrapper around its image model."""
    package = k_diffusion()
    inner = package.models.ImageDenoiserModelV1(
        c_in=3, feats_in=16, depths=(1, 1), channels=(16, 16), self_attn_depths=(False, False)
    )
    if kind == "SimpleLossDenoiser":
        return _k_job(package.layers.SimpleLossDenoiser(inner, sigma_data=0.5))
    if kind == "Denoiser":
        return _k_job(package.Denoiser(inner, sigma_data=0.5))
    if kind == "VDenoiser":
        return _k_job(package.external.VDenoiser(Velocity()))
    return _k_job(getattr(package.external, kind)(Velocity(), ALPHAS, quantize=True))


def _k_job(wrapper: nn.Module) -> PackageJob:
    def loss(job: Any, x: Tensor) -> Tensor:
        noise, sigma = torch.randn_like(x), (1.2 * torch.randn(len(x)) - 1.2).exp()
        if hasattr(job.model, "sigmas"):
            sigma = job.model.sigmas[torch.randint(0, len(job.model.sigmas), (len(x),))]
        return job.model.loss(x, noise, sigma)

    return PackageJob(loss, lambda job, noised, sigma: job.model(noised, sigma), model=wrapper)


# denoising_diffusion_pytorch


def lucidrains_gaussian(objective: str, *, learned: bool = False, **options: Any) -> PackageJob:
    """Its README: `diffusion(images)` is the loss of images in [0, 1]."""
    package = lucidrains()
    net = package.Unet(dim=8, dim_mults=(1, 2), channels=3, learned_variance=learned, attn_dim_head=4, attn_heads=1)
    kind = package.LearnedGaussianDiffusion if learned else package.GaussianDiffusion
    diffusion = kind(net, image_size=8, timesteps=1000, objective=objective, **options)

    def own(job: Any, noised: Tensor, sigma: Tensor) -> Tensor:
        alphas = job.diffusion.alphas_cumprod
        t = (((1 - alphas) / alphas).sqrt().log() - sigma.log()[:, None]).abs().argmin(1)
        x_t = noised * column(alphas[t].sqrt(), noised)
        if learned:  # the estimate that its sampling uses
            return job.diffusion.p_mean_variance(x=x_t, t=t, clip_denoised=False)[3]
        return job.diffusion.model_predictions(x_t, t).pred_x_start

    return PackageJob(lambda job, x: job.diffusion(x), own, diffusion=diffusion)


def lucidrains_elucidated(**options: Any) -> PackageJob:
    package = lucidrains()
    net = package.Unet(dim=8, dim_mults=(1, 2), channels=3, learned_sinusoidal_cond=True, attn_dim_head=4, attn_heads=1)
    diffusion = package.ElucidatedDiffusion(net, image_size=8, **options)
    return PackageJob(
        lambda job, x: job.diffusion(x),
        lambda job, noised, sigma: job.diffusion.preconditioned_network_forward(noised, sigma),
        diffusion=diffusion,
    )


NET, VP = {"net": "net"}, {"net": "net", "schedule": "inferer.scheduler"}
FLOW, COSINE = {**NET, "schedule": "flow:data"}, {**NET, "schedule": "cosine:data"}
INNER = {"net": "model.inner_model"}
K_LAYER = {"layer": "inner_model.u_net.u_blocks.1"}
MODEL, ELUCIDATED = {"net": "diffusion.model"}, {"net": "diffusion.net", "schedule": "edm:inner"}
GREY, VOLUME, UNIT = {"shape": (1, 8, 8)}, {"shape": (1, 8, 8, 8)}, {"in_unit_interval": True}
MAISI: dict[str, Any] = {"l1": True, "use_discrete_timesteps": False, "sample_method": "logit-normal",
                         "use_timestep_transform": True, "base_img_size_numel": 64}  # fmt: skip


def _family(name: str, make: Callable[..., PackageJob], *args: Any, give: dict[str, Any], **rest: Any) -> PackageFamily:
    """The keywords of the family's own fields are its, the others are those of `make`."""
    own = {key: rest.pop(key) for key in list(rest) if key in PackageFamily.__dataclass_fields__}
    return PackageFamily(name, partial(make, *args, **rest), give, **own)


PACKAGE_FAMILIES = [
    _family("MONAI DiffusionModelUNet, DDPMScheduler", monai_ddpm, 2, give=NET, **GREY),
    _family("MONAI DiffusionModelUNet, DDPMScheduler, 3D", monai_ddpm, 3, give=NET, **VOLUME),
    _family("MONAI DDPMScheduler, v", monai_ddpm, 2, "v_prediction", give=NET, **GREY),
    _family("MONAI RFlowScheduler in an inferer", monai_flow, 2, give=VP, **GREY),
    _family("MONAI RFlowScheduler in an inferer, 3D", monai_flow, 3, give=VP, **VOLUME),
    _family("MONAI MAISI (RFlowScheduler, L1, logit-normal and transformed times)", monai_flow, 3, give=VP,
            says="confirmed on 3 training steps by the signs", **VOLUME, **MAISI),
    _family("MONAI RFlowScheduler with 500 times", monai_flow, 2, num=500, give=VP, **GREY),
    _family("torchcfm ConditionalFlowMatcher, sigma=0", torchcfm, "", give=FLOW),
    _family("torchcfm ConditionalFlowMatcher, sigma=0.1: not verified", torchcfm, "", sigma=0.1, give=FLOW,
            says="not verified"),
    _family("torchcfm TargetConditionalFlowMatcher", torchcfm, "Target", give=FLOW),
    _family("torchcfm VariancePreservingConditionalFlowMatcher", torchcfm, "VariancePreserving", give=COSINE),
    _family("torchcfm ExactOptimalTransportConditionalFlowMatcher", torchcfm, "ExactOptimalTransport", give=FLOW),
    _family("Meta flow_matching CondOTProbPath", meta_flow, "CondOTProbPath", give=FLOW),
    _family("Meta flow_matching AffineProbPath, CondOTScheduler", meta_flow, "CondOTScheduler", give=FLOW),
    _family("Meta flow_matching AffineProbPath, CosineScheduler", meta_flow, "CosineScheduler", give=COSINE),
    *(
        _family(f"Meta flow_matching AffineProbPath, {kind}", meta_flow, kind, give={"denoiser": affine_denoiser},
                **more)
        for kind, more in (("VPScheduler", {}), ("LinearVPScheduler", {}), ("PolynomialConvexScheduler", {"n": 2}))
    ),
    _family("k-diffusion SimpleLossDenoiser", k_denoiser, "SimpleLossDenoiser", give=K_LAYER),
    _family("k-diffusion Denoiser", k_denoiser, "Denoiser", give=K_LAYER),
    _family("k-diffusion VDenoiser", k_denoiser, "VDenoiser", give={**INNER, "schedule": "cosine:v"}),
    _family("k-diffusion VDenoiser, the wrapper", k_denoiser, "VDenoiser", give={}),
    *(
        _family(f"k-diffusion {kind}", k_denoiser, kind,
                give={**INNER, "schedule": partial(VPDenoiser, alphas_cumprod=ALPHAS, prediction=prediction)})
        for kind, prediction in (("DiscreteEpsDDPMDenoiser", "epsilon"), ("DiscreteVDDPMDenoiser", "v_prediction"))
    ),
    _family("k-diffusion DiscreteEpsDDPMDenoiser, the wrapper", k_denoiser, "DiscreteEpsDDPMDenoiser", give={}),
    *(
        _family(f"denoising_diffusion_pytorch GaussianDiffusion, {objective}", lucidrains_gaussian, objective,
                give=MODEL, **UNIT)
        for objective in ("pred_noise", "pred_x0", "pred_v")
    ),
    _family("denoising_diffusion_pytorch GaussianDiffusion, min-SNR weights", lucidrains_gaussian, "pred_noise",
            min_snr_loss_weight=True, give=MODEL, **UNIT),
    # Its loss compares with the noise as it was before it was permuted: no convention of the input fits the target.
    _family("denoising_diffusion_pytorch GaussianDiffusion, immiscible", lucidrains_gaussian, "pred_v", immiscible=True,
            says="not verified", give=MODEL, **UNIT),
    _family("denoising_diffusion_pytorch LearnedGaussianDiffusion", lucidrains_gaussian, "pred_noise", learned=True,
            give=MODEL, **UNIT),
    _family("denoising_diffusion_pytorch LearnedGaussianDiffusion, pred_v said, noise trained", lucidrains_gaussian,
            "pred_v", learned=True, give=MODEL, **UNIT),
    _family("denoising_diffusion_pytorch ElucidatedDiffusion", lucidrains_elucidated, give=ELUCIDATED, **UNIT),
    _family("denoising_diffusion_pytorch ElucidatedDiffusion, sigma_data=1", lucidrains_elucidated, sigma_data=1.0,
            give={"net": "diffusion.net", "schedule": "edm:inner:std1"}, **UNIT),
]  # fmt: skip


def rows() -> list[PackageFamily]:
    """The families that are confirmed, for the table; no package is imported."""
    return [f for f in PACKAGE_FAMILIES if not f.fault and f.says.startswith("confirmed")]
