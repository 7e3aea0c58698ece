"""What is said of a run before it starts."""

from __future__ import annotations

import json
import time

import pytest

from stepsight.config import from_dict
from stepsight.errors import UserError
from stepsight.evaluation.run import forward_flops
from stepsight.pipeline import build_network
from stepsight.tasks.table import build_tasks
from stepsight.training.dry_run import describe, lines


def config(name: str, size=(64, 64), tasks=("depth", "flow"), **training):
    return from_dict(
        {
            "model": {"name": name},
            "tasks": {task: {} for task in tasks},
            "data": {"scenes": {"size": list(size)}},
            "training": training,
        }
    )


def test_numbers_agree_with_the_network_and_with_each_other(lab):
    run = config("hourglass-32", (16, 16), images=640, batch=16)
    found = describe(run)
    tasks = build_tasks(run.tasks)
    net = build_network(run, tasks)
    assert found["params_total"] == sum(p.numel() for p in net.parameters())
    assert sum(found["params_by_group"].values()) == found["params_total"]
    assert found["params_by_group"].keys() == {n.split(".")[0] for n, _ in net.named_parameters()}
    assert found["flops_forward"] == forward_flops(lab.pipeline(run), "flow")  # the dearest task
    assert found["flops_train_per_image"] == 3 * found["flops_forward"]
    assert found["flops_train"] == 640 * found["flops_train_per_image"]
    assert found["input"] == [16, 2 + 6, 16, 16] and found["output"] == [16, 2, 16, 16]
    assert found["tasks"] == {"depth": {"channels": 1}, "flow": {"channels": 2}}


def test_memory_counts_weights_moments_and_activations():
    muon, adamw = (describe(config("hourglass-32", optimizer=name)) for name in ("muon", "adamw"))
    kept = adamw["memory_bytes_activations"]
    assert kept > 0 and adamw["memory_bytes"] == kept + 5 * 4 * adamw["params_total"]
    assert kept < muon["memory_bytes"] < adamw["memory_bytes"]
    halved = describe(config("hourglass-32", accumulate=2))["memory_bytes_activations"]
    assert halved == pytest.approx(kept / 2, rel=0.01)
    larger = describe(config("hourglass-32", (128, 128)))["memory_bytes_activations"]
    assert larger > 3 * kept


@pytest.mark.parametrize("name", ["hourglass-64", "hourglass-256", "DiT-S/8", "DiT-XL/2"])
def test_the_largest_networks_are_described_in_no_time(name):
    began = time.perf_counter()
    found = describe(config(name))
    assert time.perf_counter() - began < 20  # the first one imports timm
    assert found["params_total"] > 1e5 and found["flops_forward"] > found["params_total"]
    if name == "DiT-XL/2":
        assert found["params_total"] == pytest.approx(675e6, rel=0.02)  # the paper's table 1


def test_people_and_programs_read_the_same():
    found = describe(config("hourglass-64"))
    text = "\n".join(lines(json.loads(json.dumps(found))))
    assert f"{found['params_total']:,}" in text and "hourglass-64" in text
    assert "64x64" in text and "depth: 1 channels" in text
    assert all(f"{count:,}" in text for count in found["params_by_group"].values())


def test_a_size_that_does_not_fit_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"data\.scenes\.size: H=60 .* 56 or 64"):
        describe(config("hourglass-64", (60, 64)))
