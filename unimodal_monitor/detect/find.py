"""Finds a job's network, noise schedule, averaged weights and null condition, or asks for the argument to give."""

from collections.abc import Mapping, Sequence

from torch import nn

from unimodal_monitor.denoisers.base import Denoiser, unwrap
from unimodal_monitor.denoisers.network import forward_parameters
from unimodal_monitor.detect.attributes import class_names, is_ema, resolve, walk
from unimodal_monitor.detect.condition import null_condition
from unimodal_monitor.detect.ema import find_average
from unimodal_monitor.detect.schedule import FLOW_TIMES, find_adapter

KNOWN_NETWORKS = {
    *("UNet1DModel", "UNet2DModel", "UNet2DConditionModel", "DiTTransformer2DModel", "PixArtTransformer2DModel"),
    *FLOW_TIMES,
}


def find_denoiser(
    owner: nn.Module,
    *,
    net: nn.Module | str | None = None,
    schedule: object | str | None = None,
    ema: object | str | bool | None = None,
    condition: Mapping[str, object] | None = None,
    null_class: int | None = None,
    callbacks: Sequence[object] = (),
) -> Denoiser:
    """The denoiser of a job; what is not given is searched in the job's module.

    Args:
        owner: LightningModule, or any module that contains the network.
        net: Network or its dotted name; None for the only diffusers U-Net or DiT, or taker of `sigma`.
        schedule: Scheduler or its dotted name, which may end in a prediction and a factor of time
            ("scheduler:v:x0.25"); a word ("edm", "flow:data:x1000", "cosine:v", see `adapter_named`); or a function
            `(net, *, weights, condition) -> Denoiser` (`partial(FlowDenoiser, shift=3.0)`); None for the only one.
        ema: False for raw weights; True if averaged ones must be found; LitEma, AveragedModel, EMAModel, a copy of the
            network, or a dotted name of one; None for the only ones found, or else raw weights.
        condition: Keyword arguments of the network that mean "no condition".
        null_class: Class id that means "no class".
        callbacks: The trainer's callbacks, searched for Lightning's WeightAveraging.

    Raises:
        ValueError: If something is not found, or more than once; begins with the argument to give.

    >>> class Net(nn.Linear):
    ...     def forward(self, x, sigma):
    ...         return super().forward(x)
    >>> denoiser = find_denoiser(nn.ModuleDict({"encoder": nn.Linear(2, 2), "net": Net(2, 2)}))
    >>> type(denoiser).__name__, denoiser.network, denoiser.weights_used
    ('EDMDenoiser', Net(in_features=2, out_features=2, bias=True), 'raw')
    """
    path, module = find_network(owner, net=net)
    adapter = find_adapter(owner, module, schedule=schedule)
    weights = find_average(owner, module, path=path, ema=ema, callbacks=callbacks)
    null = null_condition(module, condition=condition, null_class=null_class)
    return adapter(module, weights=weights, condition=null)


def find_network(owner: nn.Module, *, net: nn.Module | str | None = None) -> tuple[str, nn.Module]:
    """Dotted name of the job's network ("" if it has none) and the network without torch.compile's wrapper."""
    if net is None:
        return _only_network(owner)
    module = resolve(owner, net, argument="net") if isinstance(net, str) else net
    if not isinstance(module, nn.Module):
        raise ValueError(f"net={net!r} is of type {type(module).__name__}; need a module or its dotted name")
    modules = owner.named_modules(remove_duplicate=False)
    paths = [net] if isinstance(net, str) else (path for path, known in modules if unwrap(known) is unwrap(module))
    return next(iter(paths), ""), unwrap(module)


def _only_network(owner: nn.Module) -> tuple[str, nn.Module]:
    found: dict[nn.Module, str] = {}
    for path, value in walk(owner, stop=lambda path, value: is_ema(path, value) or _is_network(value)):
        if isinstance(value, nn.Module) and _is_network(value) and not is_ema(path, value):
            found.setdefault(unwrap(value), path)
    trained = {module: path for module, path in found.items() if any(p.requires_grad for p in module.parameters())}
    if any(parameter.requires_grad for parameter in owner.parameters()):
        found = trained  # a frozen teacher or base beside the trained network is not what the job trains
    if len(found) == 1:
        return next((path, module) for module, path in found.items())
    networks = ", ".join(f"{path} ({type(module).__name__})" for module, path in found.items()) or "none"
    children = ", ".join(f"{name} ({type(unwrap(child)).__name__})" for name, child in owner.named_children())
    raise ValueError(
        f"net: the diffusion networks found in {type(owner).__name__} are {networks};"
        f" name one, net='...': {children or 'an attribute'} or a submodule"
    )


def _is_network(value: object) -> bool:
    if not isinstance(value, nn.Module):
        return False
    module, names = unwrap(value), class_names(unwrap(value))
    sigma = forward_parameters(module).get("sigma")
    takes_sigma = sigma is not None and sigma.default is sigma.empty and next(module.parameters(), None) is not None
    return bool(names & KNOWN_NETWORKS) or (takes_sigma and "LightningModule" not in names)
