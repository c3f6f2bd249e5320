"""What a monitor says where there are no labels."""

import json

import pytest
import torch
from tiny_job import TinyDenoiser, blobs

from unimodal_monitor import EDMDenoiser, Monitor, Network, ProbeSet
from unimodal_monitor.alarm import Alarm, AlarmState


@pytest.fixture
def make_monitor():
    """Of one network, with 60 members and 200 held-out points whose labels were taken away."""
    torch.manual_seed(0)
    network = TinyDenoiser()
    sets = blobs(60, seed=1)[0], blobs(200, seed=2)[0]
    return lambda **options: Monitor(EDMDenoiser(Network(network)), ProbeSet.from_datasets(*sets), **options)


def test_without_labels_the_monitor_takes_the_alarm_without_labels(make_monitor):
    """Unless the user gives one."""
    assert make_monitor().alarm == Alarm.without_labels()
    assert make_monitor(alarm=Alarm()).alarm == Alarm()


def test_without_labels_an_untrained_network_is_watched_from_the_first_check(make_monitor):
    """Armed, with the peak and the gap in the evidence; no hump is waited for."""
    check = make_monitor().check(10)
    assert check.state is AlarmState.ARMED
    assert "the peak stands at 100% of its best" in check.evidence
    assert "the denoising gap is" in check.evidence


def test_without_labels_a_monitor_goes_on_from_its_state(make_monitor):
    """Through JSON, with several layers in the network of which one is judged."""
    first, second = make_monitor(), make_monitor()
    first.check(10)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.check(20).state is AlarmState.ARMED
    assert second.alarm.num_checks == 2
