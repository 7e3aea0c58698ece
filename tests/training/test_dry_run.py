"""What is said of a run before it starts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from stepsight.coding import build_network
from stepsight.config import from_dict
from stepsight.errors import UserError
from stepsight.evaluation.records import cost_of, forward_flops, picture_flops
from stepsight.models.codec import Pixels
from stepsight.tasks.table import build_tasks
from stepsight.training.planning.dry_run import describe, lines


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
    run = config("split-8", (16, 16), images=640, batch=16)
    found = describe(run)
    tasks = build_tasks(run.tasks)
    net = build_network(run, tasks, Pixels())
    assert found["params_total"] == sum(p.numel() for p in net.parameters())
    assert sum(found["params_by_group"].values()) == found["params_total"]
    assert found["params_by_group"].keys() == {n.split(".")[0] for n, _ in net.named_parameters()}
    assert found["flops_forward"] == forward_flops(lab.pipeline(run), "flow")  # the dearest task
    costs = [cost_of(lab.pipeline(run), task) for task in tasks]
    rows = 1 + 0.25 * (1 + 0.25 / 3)  # starts or noised truth, and walks
    assert found["flops_train_per_image"] == int(3 * picture_flops(costs, rows))
    assert found["flops_train"] == 640 * found["flops_train_per_image"]
    assert found["input"] == [16, 2 + 6, 16, 16] and found["output"] == [16, 2, 16, 16]
    assert found["tasks"] == {"depth": {"channels": 1}, "flow": {"channels": 2}}


def test_memory_counts_weights_moments_and_activations():
    muon, adamw = (
        describe(config("split-8", optimizer=name, precision="float32"))
        for name in ("muon", "adamw")
    )
    kept = adamw["memory_bytes_activations"]  # more than the gradients, which come as they go
    assert kept > 0 and adamw["memory_bytes"] == kept + 4 * 4 * adamw["params_total"]
    assert kept < muon["memory_bytes"] < adamw["memory_bytes"]
    halved = describe(config("split-8", micro_batch="8", precision="float32"))
    assert halved["memory_bytes_activations"] == pytest.approx(kept / 2, rel=0.01)
    larger = describe(config("split-8", (128, 128), precision="float32"))[
        "memory_bytes_activations"
    ]
    assert larger > 3 * kept


@pytest.mark.parametrize("name", ["split-32", "split-64", "DiT-S/8", "DiT-XL/2"])
def test_the_largest_networks_are_described_in_no_time(name):
    began = time.perf_counter()
    found = describe(config(name))
    assert time.perf_counter() - began < 20  # the first one imports timm
    assert found["params_total"] > 1e5 and found["flops_forward"] > found["params_total"]
    if name == "DiT-XL/2":
        assert found["params_total"] == pytest.approx(675e6, rel=0.02)  # the paper's table 1


def test_a_task_of_two_passes_costs_twice_and_keeps_twice():
    """A DiT encodes nothing that tasks could share; of noised truth alone every row is one call."""
    own = {"model": {"name": "DiT-Ti/8"}, "data": {"scenes": {"size": [32, 32]}}}
    rows = {"start": 0, "rollout": 0, "denoise": 1}
    own |= {"training": {"rows": rows, "loss": "squared", "precision": "float32"}}
    flows = [{"components": one, "cost_volume": False} for one in ("joint", "separate")]
    single, both = (describe(from_dict(own | {"tasks": {"flow": flow}})) for flow in flows)
    assert both["flops_train_per_image"] == 2 * 3 * both["flops_forward"]
    mixed = describe(from_dict(own | {"tasks": {"flow": flows[1], "depth": {}}}))
    assert mixed["flops_train_per_image"] == 3 * 3 * mixed["flops_forward"]  # with all its truths
    ratio = both["memory_bytes_activations"] / single["memory_bytes_activations"]
    assert ratio == pytest.approx(2, rel=0.05)


def test_training_flops_are_those_that_a_batch_takes(lab, tmp_path):
    """torch's own count of a forward pass: the picture is read once, walks come on top. The scores
    of what flow sees anew are no product of the network's."""
    run = lab.begin(lab.config(rows={"deep": 0.0}), tmp_path)
    objective = run.objective
    parts = objective.read(run.feed, run.feed.draw(0), 0, range(8))
    prepared = objective.prepare(parts, 0, range(8))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        objective.errors(*prepared)
    (stream,) = run.feed.mixture.streams
    assert counter.get_total_flops() == pytest.approx(8 * objective.flops(stream), rel=1e-6)
    costs = [cost_of(run.pipeline, task) for task in run.pipeline.tasks]
    apart = sum(one.encode + 1.25 * one.call for one in costs)
    assert objective.flops(stream) < 0.9 * apart and min(one.shared for one in costs) > 0


def test_the_ladder_ends_where_the_paper_does():
    found = describe(config("DiT-a6/2", (32, 32)))
    assert found["params_total"] == pytest.approx(1.86e9, rel=0.005)  # its largest dense model
    assert found["params_active"] == found["params_total"]


def test_of_experts_a_sample_passes_some():
    tasks = ("depth", "flow", "amodal", "semantic")
    dense = describe(config("DiT-B/2", tasks=tasks))
    began = time.process_time()
    found = describe(config("DiT-B/2-8E2A", tasks=tasks))
    assert time.process_time() - began < 10  # about 1
    experts = 12 * (2 * 4 * 768**2 + 5 * 768)  # an MLP a block
    routers = 12 * 8 * 768
    assert found["params_total"] == dense["params_total"] + 7 * experts + routers
    assert found["params_active"] == dense["params_total"] + experts + routers
    assert dense["flops_forward"] < found["flops_forward"] < 2 * dense["flops_forward"]
    calls = 1 + 0.25 * (1 + 0.25 / 3)  # of each of four tasks: starts or noised truth, and walks
    trained = found["flops_train_per_image"] / (3 * 4 * found["flops_forward"])
    assert trained == pytest.approx(calls, rel=0.01)  # a condition is encoded once for them
    assert found["memory_bytes"] > 4 * 4 * found["params_total"]


PROGRAM = """
import sys
from pathlib import Path
from stepsight.cli import train

status = train.main(sys.argv[2:])
lines = Path("/proc/self/status").read_text().splitlines()  # getrusage counts who forked it as well
Path(sys.argv[1]).write_text(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
sys.exit(status)
"""


@pytest.mark.slow
def test_weights_too_large_for_this_machine_are_described_without_being_made(tmp_path):
    """11 GB of them. Of a process of its own, as memory is given back late; most of it imports."""
    used = tmp_path.parent / "kilobytes"
    command = [sys.executable, "-c", PROGRAM, str(used), "--dry-run", "--json", "--model.name"]
    run = subprocess.run([*command, "DiT-XL/2-8E2A"], cwd=tmp_path, capture_output=True, check=True)
    found = json.loads(run.stdout)
    keys = {"params_total", "params_active", "flops_forward", "flops_train_per_image"}
    assert found.keys() > keys | {"memory_bytes"} and 4 * found["params_total"] > 11e9
    assert int(used.read_text()) < 2.5e6
    assert not list(Path(tmp_path).iterdir())


def test_people_and_programs_read_the_same():
    found = describe(config("split-32"))
    text = "\n".join(lines(json.loads(json.dumps(found))))
    assert f"{found['params_total']:,}" in text and "split-32" in text
    assert "64x64" in text and "depth: 1 channels" in text
    assert all(f"{count:,}" in text for count in found["params_by_group"].values())


def test_a_size_that_does_not_fit_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"data\.scenes\.size: H=60 .* 56 or 64"):
        describe(config("split-32", (60, 64)))
