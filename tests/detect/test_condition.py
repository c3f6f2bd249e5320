"""No label reaches the network: what stands in its place, and when it is asked for."""

import pytest
import torch
from diffusers_jobs import ADM, Job, Precond, SiT, denoised, dit, scheduler, text_unet, unet

from unimodal_monitor.detect.find import find_denoiser

THREE, TEXT = torch.tensor([3]), torch.ones(1, 4, 6)


@pytest.mark.parametrize(
    ("net", "kwargs", "name", "expected"),
    [
        (dit(), {}, "class_labels", torch.tensor([10])),
        (SiT(), {"net": "net"}, "y", torch.tensor([10])),
        (unet(num_class_embeds=10), {"null_class": 3}, "class_labels", THREE),
        (unet(num_class_embeds=10), {"condition": {"class_labels": THREE}}, "class_labels", THREE),
        (text_unet(), {"condition": {"encoder_hidden_states": TEXT}}, "encoder_hidden_states", TEXT),
    ],
    ids=["DiT", "SiT", "class by id", "class as condition", "text"],
)
def test_network_gets_the_same_condition_for_every_image(net, kwargs, name, expected):
    """The extra row of a class table, as of DiT, SiT, REPA, minRF; otherwise what the user gives."""
    seen = []
    net.register_forward_pre_hook(lambda *call: seen.append(call[2][name]), with_kwargs=True)
    denoised(find_denoiser(Job(net=net, scheduler=scheduler()), **kwargs))
    torch.testing.assert_close(seen[0], expected.expand(2, *expected.shape[1:]))


@pytest.mark.parametrize(
    ("parts", "kwargs", "message"),
    [
        ({"net": unet(num_class_embeds=10)}, {}, "^null_class: UNet2DModel takes class_labels.*null_class="),
        ({"net": unet(num_class_embeds=10)}, {"null_class": 10}, "^null_class=10.*classes 0 to 9"),
        ({"net": SiT(dropout=0.0)}, {"net": "net"}, "^null_class: SiT takes y.*null_class="),
        ({"net": ADM()}, {"net": "net"}, "^null_class: ADM takes y.*null_class="),
        ({"net": text_unet()}, {}, "^condition: .* needs encoder_hidden_states.*empty prompt"),
        ({"net": unet()}, {"condition": {"cross": 1}}, "^condition has cross.*takes sample"),
        ({"net": Precond()}, {"null_class": 1, "net": "net.model.conv_in"}, "^null_class=1.*forward of Conv2d"),
    ],
)
def test_condition_without_a_known_null_is_asked_for(parts, kwargs, message):
    """The message begins with the argument to give."""
    with pytest.raises(ValueError, match=message):
        find_denoiser(Job(**parts), **{"schedule": scheduler(), **kwargs})
