"""The call of the job's own module."""

import pytest
import torch
from torch import Tensor, nn

from unimodal_monitor.denoisers import EDMDenoiser, Network, weights_used
from unimodal_monitor.denoisers.network import holding_weights

IMAGES = torch.arange(2 * 3 * 2 * 2, dtype=torch.float32).reshape(2, 3, 2, 2)
TIME = torch.tensor([10.0, 20.0])


class Shift(nn.Module):
    """Adds time and weight to the images."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x + self.weight * t.to(x.dtype).reshape(-1, 1, 1, 1)


class TimeFirst(Shift):
    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return super().forward(x, t)


class TimeLast(Shift):
    def forward(self, hidden_states: Tensor, encoder_hidden_states: Tensor, timestep: Tensor) -> Tensor:
        assert encoder_hidden_states.shape == (2, 5)
        return super().forward(hidden_states, timestep)


class TimeByKeyword(Shift):
    def forward(self, x: Tensor, *, sigma: Tensor) -> Tensor:
        return super().forward(x, sigma)


class AnyArguments(Shift):
    def forward(self, *args: Tensor) -> Tensor:
        return super().forward(*args)


EXPECTED = IMAGES + TIME.reshape(-1, 1, 1, 1)


@pytest.mark.parametrize(
    ("module", "condition"),
    [
        (Shift(), None),
        (TimeFirst(), None),
        (TimeLast(), {"encoder_hidden_states": torch.zeros(1, 5)}),
        (TimeByKeyword(), None),
        (AnyArguments(), None),
        (torch.compile(TimeFirst(), backend="eager"), None),
    ],
    ids=["x t", "t x", "x c t", "x *, t", "*args", "compiled"],
)
def test_images_and_time_reach_the_right_parameters(module, condition):
    """The order is read from the signature, whatever it is."""
    torch.testing.assert_close(Network(module, condition=condition)(IMAGES, TIME), EXPECTED)


def test_compiled_module_is_unwrapped():
    """Hooks that come after compilation would be ignored (pytorch #117758)."""
    module = Shift()
    assert Network(torch.compile(module, backend="eager")).module is module


class Reads(nn.Module):
    """Puts its prediction where `form` says."""

    def __init__(self, form) -> None:
        super().__init__()
        self.form = form

    def forward(self, x, t):
        return self.form(x + 1)


class Output:
    def __init__(self, sample: Tensor) -> None:
        self.sample = sample


@pytest.mark.parametrize(
    "form",
    [
        lambda x: x,
        Output,
        lambda x: (x, None),
        lambda x: [x],
        lambda x: {"logvar": None, "sample": x},
        lambda x: torch.cat([x, 7 * x], dim=1),
        lambda x: (torch.cat([x, 7 * x], dim=1),),
    ],
    ids=["tensor", ".sample", "tuple", "list", "dict", "learned variance", "learned variance in tuple"],
)
def test_prediction_is_found_in_the_output(form):
    """Tensor, output object, sequence, dict, with or without a learned variance behind it."""
    torch.testing.assert_close(Network(Reads(form))(IMAGES, TIME), IMAGES + 1)


@pytest.mark.parametrize(
    ("form", "message"), [(lambda x: x.mean(1), "put out \\(2, 2, 2\\)"), (lambda x: None, "put out NoneType")]
)
def test_output_that_is_no_image_is_an_error(form, message):
    """A loss or a missing output must not become a feature."""
    with pytest.raises(ValueError, match=message):
        Network(Reads(form))(IMAGES, TIME)


def test_averaged_weights_are_used_while_there_are_any():
    """The module's own weights are neither used nor changed then, and are used again without an average."""
    module, averages = Shift(), [{"weight": torch.tensor(3.0, dtype=torch.float64)}, None]
    network = Network(module, weights=lambda: averages[0])
    assert network.weights_used == "ema"
    torch.testing.assert_close(network(IMAGES, TIME), IMAGES + 3 * TIME.reshape(-1, 1, 1, 1))
    assert module.weight == 1
    averages.reverse()
    assert weights_used(EDMDenoiser(network)) == "raw"
    torch.testing.assert_close(network(IMAGES, TIME), EXPECTED)


def test_weights_of_a_foreign_denoiser_are_raw():
    """A user's own denoiser says nothing about its weights."""
    assert weights_used(lambda noised, sigma: noised) == "raw"


def test_hooks_fire_under_averaged_weights():
    """Features of averaged weights come from the same hooks."""
    module, seen = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), []
    module.forward = lambda x, t: module[1](module[0](x))
    module[0].register_forward_hook(lambda *args: seen.append(args[2]))
    zeros = {name: torch.zeros_like(p) for name, p in module.named_parameters()}
    Network(module, weights=lambda: zeros)(torch.ones(3, 2), torch.ones(3))
    assert (seen[0] == 0).all()


def test_forward_that_is_cut_short_leaves_the_modules_own_weights():
    """Features end a forward early by an exception; the averaged tensors must not stay behind."""
    module = Shift()
    own = module.weight

    def stop(*args):
        raise InterruptedError

    module.register_forward_hook(stop)
    with pytest.raises(InterruptedError):
        Network(module, weights=lambda: {"weight": torch.tensor(3.0)})(IMAGES, TIME)
    assert module.weight is own


def test_half_precision_module_gets_half_images_and_exact_time():
    """Under bf16-true the images are cast; a time of 0.998 would become 1, so the time is not."""

    class Half(Shift):
        def forward(self, x, t):
            assert (x.dtype, t.dtype) == (torch.bfloat16, torch.float32)
            return x * self.weight

    assert Network(Half().bfloat16())(IMAGES, TIME).dtype == torch.float32


class Conditioned(nn.Module):
    def forward(self, x, t, y, extra):
        assert extra.pop("table").shape == (2, 4)
        return x + y.reshape(-1, 1, 1, 1)


def test_condition_is_expanded_and_survives_a_network_that_changes_it():
    """Meta's U-Net writes into the dict that it is given."""
    condition = {"y": torch.tensor([7]), "extra": {"table": torch.zeros(1, 4)}}
    network = Network(Conditioned(), condition=condition)
    for _ in range(2):
        torch.testing.assert_close(network(IMAGES, TIME), IMAGES + 7)
    assert condition["extra"]["table"].shape == (1, 4)


def test_averaged_weights_are_read_once_for_all_calls_in_a_block():
    """Reading them may copy the whole network; behind the block they are read anew."""
    reads = []

    def averaged():
        reads.append(1)
        return {"weight": torch.tensor(float(len(reads)))}

    network = Network(Shift(), weights=averaged)
    with holding_weights(EDMDenoiser(network)):
        for _ in range(3):
            torch.testing.assert_close(network(IMAGES, TIME), EXPECTED)
    assert len(reads) == 1
    torch.testing.assert_close(network(IMAGES, TIME), IMAGES + 2 * TIME.reshape(-1, 1, 1, 1))


def test_weights_are_let_go_when_the_block_fails():
    """The next check must not see those of this one."""
    values = [torch.tensor(3.0), torch.tensor(1.0)]
    network = Network(Shift(), weights=lambda: {"weight": values.pop(0)})
    with pytest.raises(InterruptedError), holding_weights(EDMDenoiser(network)):
        raise InterruptedError
    torch.testing.assert_close(network(IMAGES, TIME), EXPECTED)


def test_nothing_is_held_of_a_foreign_denoiser():
    """A user's own denoiser has no weights that the package knows."""
    with holding_weights(lambda noised, sigma: noised):
        pass


class Convolution(nn.Module):
    """Keeps the memory format of its last input."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.was_last = x.is_contiguous(memory_format=torch.channels_last)
        return self.convolution(x)


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_images_are_laid_out_as_the_convolutions_are(memory_format):
    """A network in channels_last gets its images so and has nothing to rearrange; the prediction is the same."""
    torch.manual_seed(0)
    module = Convolution()
    expected = Network(module)(IMAGES, TIME)
    module.to(memory_format=memory_format)
    torch.testing.assert_close(Network(module)(IMAGES, TIME), expected)
    assert module.was_last == (memory_format is torch.channels_last)
