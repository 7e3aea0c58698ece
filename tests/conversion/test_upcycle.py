"""Upcycling: what a mixture of copies answers at the moment it is made."""

from __future__ import annotations

import pytest
import torch

from stepsight import checkpoint
from stepsight.coding import build_network
from stepsight.config import from_dict
from stepsight.conversion.upcycle import upcycle
from stepsight.conversion.write import Converted, write
from stepsight.errors import UserError
from stepsight.models.codec import Pixels
from stepsight.pipeline.dense import DensePipeline
from stepsight.seeding import generator
from stepsight.tasks.table import build_tasks


def made(folder, name="DiT-Ti/4", **model):
    """A run folder with a random backbone whose every part matters."""
    tasks = {"depth": {}, "flow": {}}
    config = from_dict({"model": {"name": name, "gate_init": 0.0, **model}, "tasks": tasks})
    net = build_network(config, build_tasks(config.tasks), Pixels())
    draw = generator("upcycle tests")
    weights = {n: 0.2 * torch.randn(p.shape, generator=draw) for n, p in net.state_dict().items()}
    sizes = {task: (16, 16) for task in tasks}
    write(Converted(config, weights, sizes, Pixels(), {"training_flops": 5.0}), folder)
    return checkpoint.read(folder)


def answer(pipeline):
    draw = generator("upcycle input")
    x, cond = (torch.randn(3, c, 16, 16, generator=draw) for c in (2, 6))
    features = torch.randn(3, pipeline.layout.features, 8, 8, generator=draw)
    with torch.inference_mode():
        return pipeline.net(x, cond, torch.tensor([1.0, 400.0, 999.0]), torch.arange(3), features)


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    saved = made(tmp_path_factory.mktemp("dense") / "run")
    return saved, answer(DensePipeline.from_pretrained(saved.path))


@pytest.mark.parametrize(("experts", "active"), [(2, 1), (4, 2), (8, 2), (4, 4)])
@pytest.mark.parametrize("shared", [0, 1, 2])
def test_renormalised_weights_keep_the_dense_answer(dense, tmp_path, experts, active, shared):
    saved, before = dense
    write(upcycle(saved, experts, active, "renormalised", shared), tmp_path / "mixed")
    mixed = DensePipeline.from_pretrained(tmp_path / "mixed")
    assert mixed.config.model.name == f"DiT-Ti/4-{experts}E{active}A"
    assert answer(mixed) == pytest.approx(before, rel=1e-5, abs=1e-5 * float(before.abs().max()))


def test_softmax_weights_shrink_the_share_of_the_experts(dense, tmp_path):
    """The paper's rule; with all experts active the weights sum to one and nothing changes."""
    saved, before = dense
    converted = upcycle(saved, 4, 2, "softmax")
    assert any("sum to about 2/4" in note for note in converted.notes)
    write(converted, tmp_path / "some")
    write(upcycle(saved, 4, 4, "softmax"), tmp_path / "all")
    some = answer(DensePipeline.from_pretrained(tmp_path / "some"))
    assert (some - before).norm() > 1e-2 * before.norm()
    every = answer(DensePipeline.from_pretrained(tmp_path / "all"))
    assert every == pytest.approx(before, rel=1e-4, abs=1e-5 * float(before.abs().max()))


def test_the_copies_are_copies_and_the_router_differs_by_block(dense):
    saved, _ = dense
    weights = upcycle(saved, 4, 2).weights
    own = saved.tensors(checkpoint.BACKBONE)
    for expert in range(4):
        found = weights["blocks.1.moe.experts.fc1.weight"][expert]
        assert torch.equal(found, own["blocks.1.mlp.fc1.weight"])
    gates = [weights[f"blocks.{block}.moe.gate.weight"] for block in range(2)]
    assert not torch.equal(*gates) and gates[0].abs().max() <= 1 / 8
    assert not any(".mlp." in name for name in weights if name.startswith("blocks"))
    assert torch.equal(gates[0], upcycle(saved, 4, 2).weights["blocks.0.moe.gate.weight"])


def test_under_mup_the_answer_is_kept_and_the_router_starts_as_a_new_one(tmp_path):
    """Of a model twice as wide as the base, whose routers start at 1 / sqrt(2) of standard's."""
    saved = made(tmp_path / "dense", "DiT-128x2/4", parametrisation="mup")
    before = answer(DensePipeline.from_pretrained(saved.path))
    write(upcycle(saved, 4, 2), tmp_path / "mixed")
    mixed = DensePipeline.from_pretrained(tmp_path / "mixed")
    assert answer(mixed) == pytest.approx(before, rel=1e-4, abs=1e-4 * float(before.abs().max()))
    torch.manual_seed(0)
    new = build_network(mixed.config, build_tasks(mixed.config.tasks), Pixels())
    routers = [net.get_submodule("blocks.0.moe.gate").weight for net in (mixed.net, new)]
    for weight in routers:
        assert 0.95 / 16 < weight.abs().max() <= 1 / 16


def test_the_compute_of_the_dense_model_is_inherited(dense, tmp_path):
    write(upcycle(dense[0], 4, 2), tmp_path / "mixed")
    meta = checkpoint.read(tmp_path / "mixed").meta
    assert (meta["training_flops"], meta["inherited_flops"]) == (0.0, 5.0)


@pytest.mark.parametrize(
    ("experts", "active", "shared"), [(1, 1, 0), (4, 5, 0), (4, 0, 0), (4, 2, -1)]
)
def test_numbers_that_cannot_be(dense, experts, active, shared):
    with pytest.raises(UserError, match=f"--experts {experts} --top-k {active}"):
        upcycle(dense[0], experts, active, shared=shared)


@pytest.mark.parametrize("name", ["split-8", "DiT-Ti/4-2E1A"])
def test_only_a_dense_dit_can_be_upcycled(tmp_path, name):
    with pytest.raises(UserError, match="only a dense DiT"):
        upcycle(made(tmp_path / "run", name), 4, 2)
