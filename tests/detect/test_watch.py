"""A job's own training steps confirm a denoiser, settle it otherwise, or refuse it."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from unimodal_monitor.denoisers import EDMDenoiser, FlowDenoiser, PathDenoiser, VPDenoiser, as_denoiser
from unimodal_monitor.detect.watch import Watch

LINEAR = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)


class Net(nn.Module):
    """A small network whose output depends on its time."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, x, t):
        return self.last(torch.tanh(self.first(x) + 0.01 * t.to(x).reshape(-1, 1, 1, 1)))


class Schedule:
    alphas_cumprod = LINEAR
    prediction_type = "epsilon"


class Owner(nn.Module):
    def __init__(self, **parts):
        super().__init__()
        self.net = Net()
        vars(self).update(parts)


def column(values, x):
    return values.to(x).reshape(-1, 1, 1, 1)


def vp(target, factor=1.0):
    def loss(net, x):
        noise, t = torch.randn_like(x), torch.randint(0, 1000, (len(x),))
        a, s = column(LINEAR[t].sqrt(), x), column((1 - LINEAR[t]).sqrt(), x)
        wanted = {"epsilon": noise, "sample": x, "v_prediction": a * noise - s * x}[target]
        return net(a * x + s * noise, t * factor) - wanted

    return loss


def flow(net, x, *, mirrored=False, scale=1.0, sign=1.0):
    noise, t = torch.randn_like(x), torch.rand(len(x))
    s = column(t, x)
    return net((1 - s) * x + s * noise, scale * (1 - t if mirrored else t)) - sign * (noise - x)


def cosine(net, x):
    noise, t = torch.randn_like(x), torch.rand(len(x))
    a, s = column((math.pi / 2 * t).cos(), x), column((math.pi / 2 * t).sin(), x)
    return net(a * x + s * noise, t) - math.pi / 2 * (a * noise - s * x)


def edm(net, x, std=0.5):
    sigma = (1.2 * torch.randn(len(x)) - 1.2).exp()
    s, root = column(sigma, x), column((sigma**2 + std**2).sqrt(), x)
    noised = x + s * torch.randn_like(x)
    return std**2 / root**2 * noised + s * std / root * net(noised / root, sigma.log() / 4) - x


def denoiser(net, x):
    sigma = (1.2 * torch.randn(len(x)) - 1.2).exp()
    return net(x + column(sigma, x) * torch.randn_like(x), sigma) - x


def watched(loss, denoiser_of, *, reduce=torch.square, images=None, num_steps=4, hide=False, dtype=None, **parts):
    """The verification after some steps of Adam; the images are 2 batch - 1 in the network."""
    torch.manual_seed(0)
    owner = Owner(**parts)
    optimizer, watch = torch.optim.Adam(owner.parameters(), 1e-3), Watch(owner, denoiser_of(owner.net))
    for step in range(num_steps):
        batch_images = torch.rand(8, 3, 1, 1) + 0.3 * torch.rand(8, 3, 8, 8) if images is None else images
        batch = None if hide else {"image": batch_images, "label": torch.zeros(8)}
        with watch.recording(batch), torch.autocast("cpu", dtype, enabled=dtype is not None):
            reduce(loss(owner.net, 2 * batch_images - 1)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if watch.settle(is_last=step == num_steps - 1) is not None:
            break
    return watch.verification


def vp_denoiser(**options):
    return lambda net: VPDenoiser(net, alphas_cumprod=LINEAR, **options)


RIGHT = {
    "epsilon": (vp("epsilon"), vp_denoiser()),
    "sample": (vp("sample"), vp_denoiser(prediction="sample")),
    "v": (vp("v_prediction"), vp_denoiser(prediction="v_prediction")),
    "rescaled": (vp("epsilon", 0.25), vp_denoiser(times=torch.arange(1000) * 0.25)),
    "flow": (flow, FlowDenoiser),
    "cosine": (cosine, lambda net: PathDenoiser(net, path="cosine")),
    "EDM inner": (edm, lambda net: PathDenoiser(net, path="edm")),
    "EDM outer": (denoiser, EDMDenoiser),
}


@pytest.mark.parametrize("hide", [False, True], ids=["batch of images", "images unknown, as of latents"])
@pytest.mark.parametrize("case", RIGHT)
def test_right_denoiser_is_confirmed(case, hide):
    verification = watched(*RIGHT[case], hide=hide)
    assert verification.text == "confirmed on 3 training steps"


@pytest.mark.parametrize("reduce", [torch.abs, lambda error: (error**2 + 0.01).sqrt()], ids=["L1", "pseudo-Huber"])
@pytest.mark.parametrize("case", ["epsilon", "v", "flow"])
def test_loss_that_is_not_squared_is_read_by_its_signs(case, reduce):
    verification = watched(*RIGHT[case], reduce=reduce)
    assert verification.text == "confirmed on 3 training steps by the signs of the loss's gradient"


@pytest.mark.parametrize(
    ("loss", "denoiser_of", "word"),
    [
        (vp("v_prediction"), vp_denoiser(), "schedule:v"),
        (vp("epsilon", 0.001), vp_denoiser(), "schedule:epsilon:x0.001"),
        (lambda net, x: flow(net, x, scale=1000.0), FlowDenoiser, "flow:x1000"),
        (lambda net, x: flow(net, x, mirrored=True, sign=-1), FlowDenoiser, "flow:data"),
        (lambda net, x: flow(net, x, sign=-1), FlowDenoiser, "flow:to_data"),
        (cosine, FlowDenoiser, "cosine"),
        (edm, EDMDenoiser, "edm:inner"),
    ],
)
def test_wrong_denoiser_is_settled_by_the_name_of_the_right_one(loss, denoiser_of, word):
    verification = watched(loss, denoiser_of, schedule=Schedule())
    assert (verification.state, verification.word) == ("settled", word)


def test_what_no_name_agrees_with_is_refused():
    """A target of its own: three times the noise minus the image."""

    def loss(net, x):
        noise, t = torch.randn_like(x), torch.rand(len(x))
        s = column(t, x)
        return net((1 - s) * x + s * noise, t) - 3 * noise + x

    verification = watched(loss, FlowDenoiser)
    assert verification.state == "refused"
    assert "no named schedule agrees" in verification.text


def test_other_draws_of_the_same_shape_are_not_taken_for_the_noise():
    """Such as a second noise that the step draws, after or before its own."""

    def loss(net, x):
        noise, t = torch.randn_like(x), torch.rand(len(x))
        torch.randn_like(x)
        s = column(t, x)
        return net((1 - s) * x + s * noise, t) - (noise - x)

    assert watched(loss, FlowDenoiser).text == "confirmed on 3 training steps"


@pytest.mark.parametrize("extra", ["input", "offset", "pair"])
def test_right_denoiser_is_never_refused_for_noise_upon_the_noise(extra):
    """Input perturbation, offset noise, and I-CFM with a sigma of 0.1: close, and then not verified at worst."""

    def loss(net, x):
        noise, t = torch.randn_like(x), torch.rand(len(x))
        s = column(t, x)
        if extra == "offset":
            noise = noise + 0.1 * torch.randn(len(x), 3, 1, 1)
        more = {"input": 0.1 * s, "pair": 0.1, "offset": 0.0}[extra] * torch.randn_like(x)
        return net((1 - s) * x + s * noise + more, t) - (noise - x)

    assert watched(loss, FlowDenoiser).state in ("confirmed", "not verified")


def test_half_precision_is_confirmed():
    assert watched(*RIGHT["flow"], dtype=torch.bfloat16).text == "confirmed on 3 training steps"


def test_what_cannot_be_read_is_not_verified():
    """A loss of its own, too few steps, a denoiser of the user's own."""

    def odd(net, x):
        return net(x, torch.rand(len(x))).tanh() - 0.1 * x.roll(1, 0)

    assert watched(odd, FlowDenoiser).state == "not verified"
    assert watched(flow, FlowDenoiser, num_steps=2).text == "not verified (too few training steps could be read: 1)"
    own = watched(flow, lambda net: as_denoiser(lambda noised, sigma: noised, net=net))
    assert own.text == "not verified (it calls its network in a way of its own)"


def test_failure_of_the_recording_never_reaches_the_training(monkeypatch):
    """Neither in a hook, nor in the reading of what was recorded."""

    monkeypatch.setattr("unimodal_monitor.detect.record._first_tensor", lambda output: output.nothing)
    text = watched(flow, FlowDenoiser).text
    assert text.startswith("not verified (the training steps could not be read: AttributeError")
    monkeypatch.undo()
    monkeypatch.setattr("unimodal_monitor.detect.watch.Convention", lambda *_: 1 / 0)
    assert "could not be read: ZeroDivisionError" in watched(flow, FlowDenoiser).text


def test_images_and_noise_that_are_paired_anew_are_matched():
    """Optimal transport: 40 images of a batch, of which the input of number i holds others than number i."""

    def transported(net, x):
        noise, t = torch.randn_like(x), torch.rand(len(x))
        x, noise = x[torch.randint(len(x), (len(x),))], noise[torch.randperm(len(x))]
        s = column(t, x)
        return net((1 - s) * x + s * noise, t) - (noise - x)

    torch.manual_seed(0)
    images = torch.rand(40, 3, 1, 1) + 0.3 * torch.rand(40, 3, 8, 8)
    assert watched(transported, FlowDenoiser, images=images).text == "confirmed on 3 training steps"
    wrong = watched(transported, lambda net: PathDenoiser(net, path="cosine"), images=images)
    assert (wrong.state, wrong.word) == ("settled", "flow")


@pytest.mark.parametrize(
    "change",
    [
        lambda x: torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(-1), x),
        lambda x: x * (0.8 + 0.4 * torch.rand(len(x), 1, 1, 1)) + 0.1 * torch.rand(len(x), 3, 1, 1),
    ],
    ids=["flips", "brightness"],
)
def test_images_that_the_step_augments_contradict_nothing(change):
    """The batch is not what the network sees: the noise alone tells."""
    assert watched(lambda net, x: flow(net, change(x)), FlowDenoiser).text == "confirmed on 3 training steps"
    wrong = watched(lambda net, x: flow(net, change(x)), lambda net: PathDenoiser(net, path="cosine"))
    assert (wrong.state, wrong.word) == ("settled", "flow")


@pytest.mark.parametrize("first", ["conditioning", "image"])
def test_image_of_the_batch_is_the_one_that_explains_the_input(first):
    """ControlNet's batches hold another image; a posterior is drawn beside the noise."""
    torch.manual_seed(0)
    owner = Owner()
    optimizer, watch = torch.optim.Adam(owner.parameters(), 1e-3), Watch(owner, FlowDenoiser(owner.net))
    for _ in range(4):
        images, other = torch.rand(8, 3, 8, 8), torch.rand(8, 3, 8, 8)
        batch = {"image": images, "conditioning": other} if first == "image" else (other, images)
        with watch.recording(batch):
            torch.randn_like(images)
            flow(owner.net, images).square().mean().backward()
            torch.randn_like(images)
        optimizer.step()
    assert watch.settle().text == "confirmed on 3 training steps"
    assert all(row.is_joint for row in watch.recorder.rows)
    torch.testing.assert_close(watch.recorder.rows[-8].image, images[0].flatten().double())


@pytest.mark.parametrize("kind", ["offset", "numpy", "loader"])
def test_noise_that_is_not_drawn_as_a_whole_is_known_from_the_image(kind):
    """Offset noise, which adds a draw for each channel; noise of NumPy, which is not seen; noise in the batch."""
    torch.manual_seed(0)
    random, owner = np.random.default_rng(0), Owner()
    watch, optimizer = Watch(owner, FlowDenoiser(owner.net)), torch.optim.Adam(owner.parameters(), 1e-3)
    for _ in range(4):
        images = torch.rand(8, 3, 1, 1) + 0.3 * torch.rand(8, 3, 8, 8)
        outside = torch.from_numpy(random.normal(size=images.shape)).float()
        with watch.recording((images, outside) if kind == "loader" else images):
            inside = torch.randn_like(images) + 0.1 * torch.randn(8, 3, 1, 1) if kind == "offset" else None
            noise, t = outside if inside is None else inside, torch.rand(8)
            x, s = 2 * images - 1, column(t, images)
            (owner.net((1 - s) * x + s * noise, t) - (noise - x)).square().mean().backward()
        optimizer.step()
    assert watch.settle().text == "confirmed on 3 training steps"


def test_images_of_several_sizes_are_read_at_one_of_them():
    """Buckets of aspect ratios."""
    torch.manual_seed(0)
    owner = Owner()
    watch, optimizer = Watch(owner, FlowDenoiser(owner.net)), torch.optim.Adam(owner.parameters(), 1e-3)
    for step in range(10):
        images = torch.rand(8, 3, 8, 8 + 4 * (step % 2))
        with watch.recording(images):
            flow(owner.net, images).square().mean().backward()
        optimizer.step()
        if watch.settle() is not None:
            break
    assert watch.settle().text == "confirmed on 3 training steps"


@pytest.mark.parametrize(
    ("part", "reduce"),
    [
        (lambda x_t, output: output + 0.03 * x_t, torch.abs),
        (lambda x_t, output: output.clamp(-0.3, 0.3), torch.abs),
        (lambda x_t, output: output.clamp(-0.3, 0.3), torch.square),
    ],
    ids=["input added outside", "clamped, L1", "clamped, squared"],
)
def test_signs_that_agree_in_part_confirm_nothing(part, reduce):
    """What the job makes of the output outside of the network is not in the denoiser."""

    def loss(net, x):
        noise, t = torch.randn_like(x), torch.rand(len(x))
        s = column(t, x)
        x_t = (1 - s) * x + s * noise
        return part(x_t, net(x_t, t)) - (noise - x)

    assert not watched(loss, FlowDenoiser, reduce=reduce).text.startswith("confirmed")


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("reduce", [torch.square, torch.abs])
def test_call_for_a_regularizer_beside_the_loss_contradicts_nothing(order, reduce):
    """The network is called twice with gradients; the other call is at time zero, of clean images."""

    def loss(net, x):
        def regularizer():
            return 0.1 * net(x, torch.zeros(len(x)))

        first = regularizer() if order == "before" else 0
        error = flow(net, x)
        return torch.cat([error, first if order == "before" else regularizer()])

    assert watched(loss, FlowDenoiser, reduce=reduce).text.startswith("confirmed on 3 training steps")


def test_network_that_shares_its_work_with_another_by_time_is_not_confirmed():
    """Of two experts each knows a part of the times only; which of them is called is drawn for every step."""
    torch.manual_seed(0)
    owner = Owner()
    owner.early = Net()
    optimizer, watch = torch.optim.Adam(owner.parameters(), 1e-3), Watch(owner, FlowDenoiser(owner.net))
    while watch.settle() is None:
        images = torch.rand(8, 3, 1, 1) + 0.3 * torch.rand(8, 3, 8, 8)
        with watch.recording(images):
            noise, t = torch.randn_like(images), torch.rand(1).expand(8)
            s = column(t, images)
            network = owner.early if float(t[0]) < 0.5 else owner.net
            error = network((1 - s) * images + s * noise, t) - (noise - images)
            error.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert watch.verification.text == "not verified (some training steps call early in place of Net)"


def test_outputs_near_zero_are_waited_for():
    """A last layer that starts at zero, in a warm-up of the learning rate: pi / 2 times the target would agree, too."""
    torch.manual_seed(0)
    owner, states = Owner(), []
    with torch.no_grad():
        for parameter in owner.net.last.parameters():
            parameter.zero_()
    optimizer = torch.optim.Adam(owner.parameters(), 1e-9)
    watch = Watch(owner, PathDenoiser(owner.net, path="cosine", prediction="v_prediction"))
    for step in range(40):
        optimizer.param_groups[0]["lr"] = 1e-9 if step < 20 else 1e-2
        images = torch.rand(8, 3, 8, 8)
        with watch.recording(images):
            cosine(owner.net, images).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        states.append(watch.settle())
    assert states[19] is None
    assert states[-1].word == "cosine"


def test_noise_upon_the_noise_is_not_verified_and_not_refused():
    """Input perturbation: the network sees another noise than the target's."""

    def perturbed(net, x):
        noise, t = torch.randn_like(x), torch.rand(len(x))
        s = column(t, x)
        return net((1 - s) * x + s * (noise + 0.2 * torch.randn_like(x)), t) - (noise - x)

    assert watched(perturbed, FlowDenoiser).state == "not verified"


def test_large_images_are_read_by_a_part_of_their_values():
    """The reading of 3 x 128 x 128 values took 9.6 s and now takes as long as that of small ones."""
    torch.manual_seed(0)
    owner = Owner()
    watch = Watch(owner, FlowDenoiser(owner.net))
    for _ in range(4):
        images = torch.rand(8, 3, 64, 64)
        with watch.recording(images):
            flow(owner.net, images).square().mean().backward()
        torch.optim.SGD(owner.parameters(), 1e-2).step()
    assert watch.settle().state == "confirmed"
    assert watch.recorder.rows[0].noised.numel() <= 2 * 4096


def test_nothing_else_of_the_job_is_taken_out_of_its_compilation():
    """A dispatch mode would make a compiled encoder run uncompiled, with other roundings."""
    calls = []

    def backend(graph, inputs):
        def run(*args):
            calls.append(1)
            return graph(*args)

        return run

    owner = Owner()
    owner.encoder = torch.compile(nn.Conv2d(3, 3, 1), backend=backend)
    watch = Watch(owner, FlowDenoiser(owner.net))
    for _ in range(3):
        images = torch.rand(8, 3, 8, 8)
        with watch.recording(images), torch.no_grad():
            owner.encoder(images)
    assert len(calls) == 3


@pytest.mark.parametrize("wrap", [lambda net: net, lambda net: torch.compile(net, backend="eager"), "in place"])
def test_watching_changes_no_bit_and_leaves_nothing(wrap):
    """Weights and random state after four steps, with and without, also of a compiled network."""

    def train(watching):
        torch.manual_seed(0)
        owner = Owner()
        net = owner.net
        if wrap == "in place":
            net.compile(backend="eager")
        else:
            owner.net = wrap(net)
        watch, optimizer = Watch(owner, FlowDenoiser(net)), torch.optim.Adam(net.parameters(), 1e-3)
        for _ in range(4):
            images = torch.rand(8, 3, 8, 8)
            if watching:
                with watch.recording([images]):
                    flow(owner.net, images).square().mean().backward()
            else:
                flow(owner.net, images).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in owner.modules()]
        assert not any(hooks)
        assert not watching or watch.settle().state == "confirmed"
        return [*net.parameters(), torch.rand(3)]

    for watched_value, value in zip(train(True), train(False), strict=True):
        assert torch.equal(watched_value, value)
