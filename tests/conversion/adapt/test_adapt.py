"""Weights for other tasks: old tasks answer as before, and new ones start where it is said."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stepsight import checkpoint
from stepsight.checkpoint import CheckpointError
from stepsight.conversion.adapt import adapt
from stepsight.tasks.table import build_tasks

DIT, SPLIT, UNET = "DiT-Ti/4", "split-8", "unet-tiny"
PLAIN_FLOW: dict[str, Any] = {"flow": {"cost_volume": False}}


# ---------------------------------------------------------------------------- old tasks


@pytest.mark.parametrize(
    ("name", "model"),
    [
        (SPLIT, {}),
        (DIT, {}),
        (DIT, {"input": "per_task", "learned_variance": True, "qk_norm": True}),
        ("DiT-Ti/8-4E2A", {"shared_experts": 1}),
    ],
)
def test_for_the_same_tasks_nothing_changes(make, save, name, model):
    tasks = {"depth": {}, "flow": {"components": "separate"}, "semantic": {}}
    old, new = (make(name, tasks, seed, **model) for seed in ("old", "new"))
    weights = adapt(save(old), new.net, new.layout, new.codec)
    own = old.net.state_dict()
    assert weights.keys() == own.keys()
    assert all(torch.equal(weights[key], own[key]) for key in own)


@pytest.mark.parametrize(
    ("name", "routed"), [(SPLIT, "shared"), (DIT, "shared"), (DIT, "per_task")]
)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"depth": {}}, {"depth": {}, "normals": {}}),  # more outputs
        ({"depth": {}}, {"amodal": {}, "depth": {}}),  # another place, more condition images
        ({"depth": {}}, {"depth": {}, "flow": {}}),  # features
        ({"flow": {}, "depth": {}}, {"depth": {}, "semantic": {}, "flow": {}}),
        (PLAIN_FLOW, {"amodal": {}, "flow": {}}),  # features it did not have
    ],
)
def test_a_task_more_leaves_the_others_as_they_were(make, start, name, routed, before, after):
    if name == SPLIT and before is PLAIN_FLOW:
        pytest.skip("features stand for the second frame, which such a backbone then does not see")
    old = make(name, before, input=routed)
    new = start(old, make(name, after, "new", input=routed))
    x, cond = old.inputs()
    noisy, _ = new.inputs()  # what is new holds noise as well, as it does in sampling
    noisy[:, : old.layout.target] = x
    for task in before:
        features = None
        if task == "flow":
            features = torch.randn(2, new.layout.features, *(side // 2 for side in x.shape[2:]))
        images = cond[:, : 3 * build_tasks(old.config.tasks)[task].images]
        expected = old.answer(task, x, images, features if old.layout.features else None)
        found = new.answer(task, noisy, images, features)
        assert expected.abs().max() > 0.05
        torch.testing.assert_close(found[:, : old.layout.target], expected, atol=2e-6, rtol=1e-5)
        assert not found[:, old.layout.target :].any()


def test_of_a_unet_as_well_whose_condition_comes_first(make, start):
    old = make(UNET, {"depth": {}})
    new = start(old, make(UNET, {"normals": {}, "amodal": {}, "depth": {}}, "new"))
    x, cond = old.inputs(images=1)
    expected = old.answer("depth", x, cond)
    found = new.answer("depth", x, cond)
    torch.testing.assert_close(found[:, :1], expected, atol=2e-6, rtol=1e-5)
    assert not found[:, 1:].any()


@pytest.mark.parametrize("name", [SPLIT, DIT])
def test_a_task_less_leaves_the_others_as_they_were(make, start, name):
    old = make(name, {"semantic": {}, "flow": {}, "depth": {}})
    new = start(old, make(name, {"depth": {}}, "new"))
    x, cond = new.inputs(images=1)
    expected = old.answer("depth", x, cond)  # channels that are gone were zero
    torch.testing.assert_close(new.answer("depth", x, cond), expected[:, :1], atol=2e-6, rtol=1e-5)


def test_rows_go_by_name_and_new_tasks_start_from_the_null_row(make, start):
    old = make(DIT, {"depth": {}, "flow": {"components": "separate"}})
    new = start(
        old, make(DIT, {"normals": {}, "flow": {"components": "separate"}, "depth": {}}, "new")
    )
    expected = old.table[[3, 1, 2, 0, 3]]  # old: depth, u, v, null; new: normals, u, v, depth, null
    assert torch.equal(new.table, expected)


def test_a_task_with_other_rows_is_new(make, start):
    old = make(DIT, {"flow": {}, "depth": {}})
    new = start(old, make(DIT, {"flow": {"components": "separate"}, "depth": {}}, "new"))
    assert torch.equal(new.table, old.table[[2, 2, 1, 2]])


def test_a_split_backbone_sees_what_is_new_only_after_training(make, start):
    """Features, further images and what a call looks at start at zero; the picture is as it was."""
    old = make(SPLIT, {"depth": {}})
    new = start(old, make(SPLIT, {"depth": {}, "flow": {}}, "new"))
    fresh = [new.net.input_images, new.net.input_features, new.net.input_coarse]
    for module in [*fresh, new.net.input_looked]:
        assert not any(p.any() for p in module.parameters())
    parts = dict(old.net.encoder.named_parameters())
    for name, p in new.net.encoder.named_parameters():
        assert torch.equal(p, parts[name])


# ---------------------------------------------------------------------------- inputs


def test_one_convolution_becomes_a_copy_for_each_task(make, start):
    old = make(DIT, {"depth": {}, "normals": {}})
    new = start(old, make(DIT, {"depth": {}, "normals": {}, "semantic": {}}, "n", input="per_task"))
    assert len(new.kernel) == 3
    assert all(torch.equal(one, new.kernel[0]) for one in new.kernel)
    x, cond = old.inputs(images=1)
    for task in ("depth", "normals"):
        expected = old.answer(task, x, cond)
        found = new.answer(task, x, cond)[:, :3]
        torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)


def test_a_new_task_starts_from_the_mean_of_the_others_convolutions(make, start):
    old = make(DIT, {"depth": {}, "normals": {}}, input="per_task")
    new = start(old, make(DIT, {"normals": {}, "semantic": {}}, "new", input="per_task"))
    before, after = old.kernel, new.kernel
    width = 6 * before.shape[-1] // 6
    slots = before.shape[-1] // 6  # 3 of the target, 3 of the condition
    target, cond = after[:, :, : 3 * slots], after[:, :, 7 * slots :]
    fitted = torch.cat([target, cond], dim=2)
    assert fitted.shape[-1] == width and not after[:, :, 3 * slots : 7 * slots].any()
    torch.testing.assert_close(fitted, torch.stack([before[1], before.mean(dim=0)]))


# ---------------------------------------------------------------------------- refusals


def refused(saved: checkpoint.Checkpoint, new: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        weights = adapt(saved, new.net, new.layout, new.codec)
        checkpoint.load_weights(new.net, weights, saved.path)
    return str(caught.value)


def test_convolutions_of_several_tasks_do_not_become_one(make, save):
    old = make(DIT, {"depth": {}, "normals": {}}, input="per_task")
    assert "x_embedder.proj.weight is" in refused(save(old), make(DIT, {"depth": {}}, "new"))


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (SPLIT, "split-32", "missing encoder.middle.1.norm1.weight"),
        (DIT, "DiT-Mi/4", "x_embedder.proj.weight is"),
        (DIT, "DiT-Ti/2", "x_embedder.proj.weight is"),
        ("DiT-Ti/2", "DiT-Ti/8", "final_layer.linear.weight is"),
        (DIT, SPLIT, "missing time.mlp.0.weight"),
    ],
)
@pytest.mark.parametrize("routed", ["shared", "per_task"])
def test_another_backbone_is_refused_with_what_differs(make, save, before, after, said, routed):
    if routed == "per_task" and SPLIT in (before, after):
        pytest.skip("a split backbone has one input for all tasks")
    tasks = {"depth": {}, "normals": {}}
    old, new = make(before, {"depth": {}}, input=routed), make(after, tasks, "new", input=routed)
    message = refused(save(old), new)
    assert "holds another model" in message and said in message


def test_another_codec_is_refused(make, save):
    old = make(SPLIT, {"depth": {}})
    saved = save(old, codec="AutoencoderKL-0123456789ab")
    message = refused(saved, make(SPLIT, {"depth": {}}, "new"))
    assert "trained in the latents of AutoencoderKL-0123456789ab, this run has pixels" in message
    assert "codec.path" in message
