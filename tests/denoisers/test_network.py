"""The call of the job's own network, through the denoiser that adds nothing to it."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from unimodal_monitor.denoisers import EDMDenoiser

IMAGES = torch.arange(2 * 3 * 2 * 2, dtype=torch.float32).reshape(2, 3, 2, 2)
TIME = torch.tensor([10.0, 20.0])
TIMES = TIME.reshape(-1, 1, 1, 1)


def network(forward) -> nn.Module:
    module = nn.Module()
    module.forward = forward
    return module


def shifted(x: Tensor, t: Tensor) -> Tensor:
    return x + t.reshape(-1, 1, 1, 1)


class Shift(nn.Module):
    """Adds time and weight to the images."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return shifted(x, self.weight * t)


NETWORKS = {
    "x t": network(lambda x, t: shifted(x, t)),
    "t x": network(lambda t, x: shifted(x, t)),
    "x text t": network(lambda x, text=None, timestep=None: shifted(x, timestep)),
    "x *, t": network(lambda x, *, sigma: shifted(x, sigma)),
    "*args": network(lambda *args: shifted(*args)),
    "compiled": torch.compile(network(lambda t, x: shifted(x, t)), backend="eager"),
}


@pytest.mark.parametrize("net", NETWORKS.values(), ids=NETWORKS)
def test_images_and_time_reach_the_right_parameters(net):
    """The order is read from the signature. A compiled network, which ignores hooks (pytorch #117758), is unwrapped."""
    denoiser = EDMDenoiser(net)
    assert type(denoiser.network) is nn.Module
    torch.testing.assert_close(denoiser(IMAGES, TIME), IMAGES + TIMES)


FORMS = {
    "tensor": lambda x: x,
    ".sample": lambda x: SimpleNamespace(sample=x),
    "tuple": lambda x: (x, None),
    "list": lambda x: [x],
    "dict": lambda x: {"logvar": None, "sample": x},
    "learned variance": lambda x: torch.cat([x, 7 * x], dim=1),
    "learned variance in tuple": lambda x: (torch.cat([x, 7 * x], dim=1),),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_prediction_is_found_in_the_output(form):
    """Tensor, output object, sequence or dict, with or without a learned variance behind it."""
    denoiser = EDMDenoiser(network(lambda x, t: form(x + 1)))
    torch.testing.assert_close(denoiser(IMAGES, TIME), IMAGES + 1)


@pytest.mark.parametrize(("output", "message"), [(IMAGES[0], r"returned \(3, 2, 2\)"), (None, "returned NoneType")])
def test_output_that_is_no_image_is_an_error(output, message):
    """A loss or a missing output must not become a feature."""
    with pytest.raises(ValueError, match=message):
        EDMDenoiser(network(lambda x, t: output))(IMAGES, TIME)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({}, r"^net: Module, called with images \(2, 3, 2, 2\), times and no condition, raised AttributeError: "),
        ({"text": torch.ones(1, 4)}, r"text \(1, 4\), raised RuntimeError: .*; .*transform=.*condition="),
        ({"text": {"a": torch.ones(1, 4), "b": 1}}, r"text \(a \(1, 4\), b int\), raised AttributeError: .*condition="),
    ],
)
def test_error_of_the_network_says_what_it_was_called_with(condition, message):
    """Such as of latents that the training step packs, or of a prompt that was not given."""
    net = network(lambda x, t, text=None: x + text.reshape(-1, 3))
    with pytest.raises(ValueError, match=message):
        EDMDenoiser(net, condition=condition)(IMAGES, TIME)


def test_averaged_weights_are_used_while_there_are_any():
    """The network's own weights are neither used nor changed then, and are used again without an average."""
    net, averages = Shift(), [{"weight": torch.tensor(3.0, dtype=torch.float64)}, None]
    denoiser = EDMDenoiser(net, weights=lambda: averages[0])
    assert denoiser.weights_used == "ema"
    torch.testing.assert_close(denoiser(IMAGES, TIME), IMAGES + 3 * TIMES)
    assert net.weight == 1
    averages.reverse()
    assert denoiser.weights_used == "raw"
    torch.testing.assert_close(denoiser(IMAGES, TIME), IMAGES + TIMES)


def test_hooks_fire_under_averaged_weights_and_may_cut_the_forward_short():
    """Features of averaged weights come from the same hooks; the averaged tensors do not stay behind."""
    net, seen = Shift(), []
    own = net.weight

    def stop(module, inputs, output):
        seen.append(output)
        raise InterruptedError

    net.register_forward_hook(stop)
    with pytest.raises(InterruptedError):
        EDMDenoiser(net, weights=lambda: {"weight": torch.tensor(3.0)})(IMAGES, TIME)
    torch.testing.assert_close(seen[0], IMAGES + 3 * TIMES)
    assert net.weight is own


def test_averaged_weights_are_read_once_for_all_calls_in_a_block():
    """Reading them may copy the whole network; after the block they are read anew, even if it fails."""
    values = [torch.tensor(1.0), torch.tensor(2.0)]
    denoiser = EDMDenoiser(Shift(), weights=lambda: {"weight": values.pop(0)})
    with pytest.raises(InterruptedError), denoiser.holding_weights():
        for _ in range(3):
            torch.testing.assert_close(denoiser(IMAGES, TIME), IMAGES + TIMES)
        raise InterruptedError
    torch.testing.assert_close(denoiser(IMAGES, TIME), IMAGES + 2 * TIMES)


def test_half_precision_network_gets_half_images_and_exact_time():
    """A time of 0.998 would become 1 in bfloat16, so it is not cast."""
    net, seen = Shift().bfloat16(), []
    net.register_forward_pre_hook(lambda _, args: seen.extend(tensor.dtype for tensor in args))
    assert EDMDenoiser(net)(IMAGES, TIME).dtype == torch.float32
    assert seen == [torch.bfloat16, torch.float32]


def test_condition_is_expanded_and_survives_a_network_that_changes_it():
    """Meta's U-Net writes into the dict that it gets."""

    def forward(x, t, y, extra):
        assert extra.pop("table").shape == (2, 4)
        return x + y.reshape(-1, 1, 1, 1)

    condition = {"y": torch.tensor([7]), "extra": {"table": torch.zeros(1, 4)}}
    denoiser = EDMDenoiser(network(forward), condition=condition)
    for _ in range(2):
        torch.testing.assert_close(denoiser(IMAGES, TIME), IMAGES + 7)


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_images_have_the_memory_format_of_the_convolutions(memory_format):
    """A network in channels_last need not rearrange them; the prediction is the same."""
    net, seen = nn.Conv2d(3, 3, 3, padding=1), []
    expected = net(IMAGES)
    net.to(memory_format=memory_format)
    net.register_forward_pre_hook(lambda _, args: seen.append(args[0].is_contiguous(memory_format=memory_format)))
    net.forward = lambda x, t: nn.functional.conv2d(x, net.weight, net.bias, padding=1)
    torch.testing.assert_close(EDMDenoiser(net)(IMAGES, TIME), expected)
    assert seen == [True]
