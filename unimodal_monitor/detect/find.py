"""Find a job's network, noise schedule, averaged weights and null condition, or say which of them to give."""

from collections.abc import Mapping, Sequence

from torch import nn

from unimodal_monitor.denoisers.base import Denoiser
from unimodal_monitor.denoisers.network import Network, forward_parameters, unwrap
from unimodal_monitor.detect.attributes import class_names, is_ema, resolve, walk
from unimodal_monitor.detect.condition import null_condition
from unimodal_monitor.detect.ema import find_average
from unimodal_monitor.detect.schedule import find_adapter

KNOWN_NETWORKS = {"UNet2DModel", "UNet2DConditionModel", "DiTTransformer2DModel"}


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
    """The denoiser of a job; whatever is not given is looked for in the job's module.

    Args:
        owner: the LightningModule, or any module that holds the network.
        net: the network or its dotted name; None for the only diffusers U-Net or DiT, or taker of `sigma`.
        schedule: a scheduler or its dotted name, a word ("edm", "flow", "flow:data", either flow with ":x1000"), or
            a function from `Network` to `Denoiser`; None for the only one found.
        ema: False for raw weights, True if averaged ones must be found, or where they are: LitEma, AveragedModel,
            EMAModel, a copy of the network, or a dotted name; None for the only ones found, or else raw weights.
        condition: keyword arguments that condition the network on nothing.
        null_class: the class id that means "no class".
        callbacks: the trainer's, searched for Lightning's WeightAveraging.

    Raises:
        ValueError: if something is not found, or not alone: names what was found and which argument to give.
    """
    path, module = find_network(owner, net=net)
    adapter = find_adapter(owner, module, schedule=schedule)
    weights = find_average(owner, module, path=path, ema=ema, callbacks=callbacks)
    null = null_condition(module, condition=condition, null_class=null_class)
    return adapter(Network(module, weights=weights, condition=null))


def find_network(owner: nn.Module, *, net: nn.Module | str | None = None) -> tuple[str, nn.Module]:
    """The job's network, unwrapped of torch.compile, and its dotted name in the owner ("" if it has none there).

    Raises:
        ValueError: as `find_denoiser`.
    """
    if isinstance(net, str):
        named = resolve(owner, net, argument="net")
        if not isinstance(named, nn.Module):
            raise ValueError(f"net={net!r} is of type {type(named).__name__}; the name of a module would do")
        return net, unwrap(named)
    if isinstance(net, nn.Module):
        modules = owner.named_modules(remove_duplicate=False)
        return next((path for path, module in modules if unwrap(module) is unwrap(net)), ""), unwrap(net)
    if net is not None:
        raise ValueError(f"net is of type {type(net).__name__}; a module or its dotted name would do")
    return _only_network(owner)


def _only_network(owner: nn.Module) -> tuple[str, nn.Module]:
    def stop(path: str, value: object) -> bool:
        return is_ema(path, value) or _is_network(value)

    found: dict[nn.Module, str] = {}
    for path, value in walk(owner, stop=stop):
        if isinstance(value, nn.Module) and _is_network(value) and not is_ema(path, value):
            found.setdefault(unwrap(value), path)
    if len(found) == 1:
        module, path = next(iter(found.items()))
        return path, module
    if found:
        names = ", ".join(f"{path} ({type(module).__name__})" for module, path in found.items())
        raise ValueError(f"net: {type(owner).__name__} has {len(found)} networks, {names}; name one: net='...'")
    children = ", ".join(f"{name} ({type(unwrap(child)).__name__})" for name, child in owner.named_children())
    raise ValueError(
        f"net: no diffusion network that the monitor knows by itself in {type(owner).__name__};"
        f" name it: net='...', out of {children or 'its attributes'} or their submodules"
    )


def _is_network(value: object) -> bool:
    if not isinstance(value, nn.Module):
        return False
    module, names = unwrap(value), class_names(unwrap(value))
    takes_sigma = "sigma" in forward_parameters(module) and next(module.parameters(), None) is not None
    return bool(names & KNOWN_NETWORKS) or (takes_sigma and "LightningModule" not in names)
