"""What examples in docstrings may use without making it: a small network, its images, and a check."""

from typing import Any

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _names_in_examples(doctest_namespace: dict[str, Any]) -> None:
    from unimodal_monitor import Monitor, ProbeSet
    from unimodal_monitor.theory.mlp import MLPDenoiser
    from unimodal_monitor.theory.molrg import MoLRG

    torch.set_num_threads(1)
    data = MoLRG()
    net = MLPDenoiser(data.dim, data.std)
    probe_set = ProbeSet.from_datasets(data.sample(100, seed=1), data.sample(300, seed=2))
    check = Monitor(net, probe_set, layer="blocks.1", reporters=()).check(0)
    doctest_namespace |= {"net": net, "probe_set": probe_set, "check": check, "MoLRG": MoLRG}
