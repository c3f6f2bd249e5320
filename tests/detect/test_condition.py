"""No label reaches the network: what stands in its place, and when it is asked for."""

import pytest
import torch
from diffusers_jobs import ADM, Job, Precond, SiT, denoised, dit, scheduler, text_unet, unet

from unimodal_monitor.detect.find import find_denoiser


def test_dit_is_given_its_null_class_and_its_noise_is_taken_from_the_learned_variance():
    """The table has one row more than classes; the row's id is the number of classes."""
    denoiser = find_denoiser(Job(transformer=dit(), scheduler=scheduler()))
    label = denoiser.call.condition["class_labels"]
    assert (label.tolist(), label.dtype) == ([10], torch.int64)
    denoised(denoiser)


def test_label_embedder_with_dropout_has_a_null_class():
    """DiT, SiT, REPA, minRF: argument `y`."""
    denoiser = find_denoiser(Job(net=SiT()), net="net", schedule="flow:data")
    assert denoiser.call.condition["y"].tolist() == [10]
    denoised(denoiser)


@pytest.mark.parametrize("given", [{"null_class": 3}, {"condition": {"class_labels": torch.tensor([3])}}])
def test_class_conditional_unet_gets_one_class_for_all(given):
    """No label of an image reaches the network."""
    denoiser = find_denoiser(Job(net=unet(num_class_embeds=10), scheduler=scheduler()), **given)
    assert denoiser.call.condition["class_labels"].tolist() == [3]
    denoised(denoiser)


def test_text_conditional_unet_takes_the_given_embedding():
    """One embedding of the empty prompt serves any batch."""
    job = Job(net=text_unet(), scheduler=scheduler())
    denoised(find_denoiser(job, condition={"encoder_hidden_states": torch.zeros(1, 4, 6)}))


@pytest.mark.parametrize(
    ("parts", "kwargs", "message"),
    [
        ({"net": unet(num_class_embeds=10)}, {"schedule": "edm"}, "UNet2DModel takes class_labels.*null_class="),
        ({"net": unet(num_class_embeds=10)}, {"schedule": "edm", "null_class": 10}, "classes 0 to 9"),
        ({"net": SiT(dropout=0.0)}, {"net": "net", "schedule": "flow"}, "SiT takes y.*null_class="),
        ({"net": ADM()}, {"net": "net", "schedule": "edm"}, "ADM takes y.*null_class="),
        ({"net": text_unet()}, {"schedule": "edm"}, "needs encoder_hidden_states.*empty prompt"),
        ({"net": unet()}, {"schedule": "edm", "condition": {"cross": 1}}, "condition has cross.*takes sample"),
        ({"net": Precond()}, {"null_class": 1, "net": "net.model.conv_in"}, "null_class=1, but the forward of Conv2d"),
    ],
)
def test_condition_without_a_certain_null_is_asked_for(parts, kwargs, message):
    """The message names the argument to give."""
    kwargs = {"schedule": "edm", **kwargs}
    with pytest.raises(ValueError, match=message):
        find_denoiser(Job(**parts), **kwargs)
