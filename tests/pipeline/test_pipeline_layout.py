"""Channels and rows follow from tasks and codec; several passes; a VAE kept beside its run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn import member_noise
from torch import Tensor

from stepsight import checkpoint
from stepsight.coding import Layout, build_network
from stepsight.config import RunConfig, from_dict
from stepsight.errors import UserError
from stepsight.models.codec import Codec, Described, Pixels, described_codec
from stepsight.models.config import CodecSettings
from stepsight.pipeline.dense import DensePipeline
from stepsight.pipeline.inputs import content_keys
from stepsight.seeding import generator
from stepsight.tasks.table import build_tasks
from stepsight.types import Batch

SEPARATE: dict[str, Any] = {"flow": {"components": "separate", "cost_volume": False}}
LATENTS = Described("four latents, 8 pixels a cell", 8, 4)


def config_of(tasks: Mapping[str, Any], **groups: Any) -> RunConfig:
    model = {"name": "split-8"} | groups.pop("model", {})
    return from_dict({"model": model, "tasks": dict(tasks), **groups})


def layout_of(tasks: Mapping[str, Any], codec: Pixels | Described | None = None) -> Layout:
    return Layout.of(build_tasks(config_of(tasks).tasks), codec or Pixels())


def batch_of(rows: int, size: tuple[int, int] = (16, 24)) -> Batch:
    draw = generator("layout batch", *size)
    first, second = (2 * torch.rand(rows, 3, *size, generator=draw) - 1 for _ in range(2))
    keys = [f"image{row}" for row in range(rows)]
    return Batch(first, keys, ["toys"] * rows, second=second)


def pipeline_of(tasks: Mapping[str, Any], codec: Codec | None = None, **groups) -> DensePipeline:
    config = config_of(tasks, **groups)
    built = build_tasks(config.tasks)
    net = build_network(config, built, codec or Pixels()).eval().requires_grad_(False)
    draw = generator("layout weights")
    for parameter in net.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    return DensePipeline(net, built, config, dict.fromkeys(built, (16, 24)), codec=codec)


# ---------------------------------------------------------------------------- layouts


@pytest.mark.parametrize(
    ("tasks", "pixels", "latents"),
    [  # channels of target and condition
        ({"depth": {}}, (1, 3), (4, 4)),
        ({"depth": {"prompt": "valid"}}, (1, 6), (4, 8)),
        ({"flow": {"cost_volume": False}}, (2, 6), (4, 8)),
        (SEPARATE, (1, 6), (4, 8)),
        ({"semantic": {}}, (7, 3), (12, 4)),
        ({"image": {}}, (3, 0), (4, 0)),
        ({"image": {}, "amodal": {}}, (3, 6), (4, 8)),
        ({"depth": {}, "semantic": {}, "amodal": {}}, (7, 6), (12, 8)),
    ],
)
def test_a_backbone_has_the_channels_that_its_tasks_need_at_most(tasks, pixels, latents):
    for codec, expected in ((Pixels(), pixels), (LATENTS, latents)):
        found = layout_of(tasks, codec)
        assert (found.target, found.cond) == expected


def test_every_task_has_its_label_rows():
    found = layout_of({"depth": {}, **SEPARATE, "image": {"classes": 5}, "amodal": {}})
    assert dict(found.rows) == {"depth": 0, "flow": 1, "image": 3, "amodal": 8}
    assert found.labels == 9
    spans = [found.span(task) for task in found.rows]
    assert spans == [slice(0, 1), slice(1, 3), slice(3, 8), slice(8, 9)]


def test_features_are_of_one_kind():
    assert layout_of({"depth": {}, "flow": {"radius": 3}}).features == 3 * 49
    tasks = build_tasks(config_of({"flow": {"radius": 3}}).tasks)
    other = build_tasks(config_of({"flow": {"radius": 2}}).tasks)["flow"]
    with pytest.raises(UserError, match="features of different kinds"):
        Layout.of({"flow": tasks["flow"], "another": other}, Pixels())


@pytest.mark.parametrize("routed", ["shared", "per_task"])
def test_the_network_has_the_layouts_channels(routed):
    own = {"name": "DiT-Ti/2", "input": routed}
    config = config_of({"semantic": {}, **SEPARATE}, model=own)
    net: Any = build_network(config, build_tasks(config.tasks), LATENTS)
    weight = net.x_embedder.proj.weight  # "o i 2 2", or one a label row "r o (i 2 2)"
    inputs = weight.shape[-1] // 4 if routed == "per_task" else weight.shape[1]
    assert inputs == 12 + 8 and len(weight) == (3 if routed == "per_task" else 64)
    assert net.final_layer.linear.out_features == 4 * 12
    assert net.y_embedder.embedding_table.num_embeddings == 4


@pytest.mark.parametrize(("codec", "picture"), [(Pixels(), 3), (LATENTS, 4)])
def test_a_split_backbone_reads_the_picture_in_its_space(codec, picture):
    """Whole, apart from the task's further images; and it looks again in pixels alone."""
    config = config_of({"depth": {}, "semantic": {}, "flow": {}, "image": {"classes": 2}})
    tasks = build_tasks(config.tasks)
    net: Any = build_network(config, tasks, codec)
    layout = Layout.of(tasks, codec)
    assert layout.cond == 2 * picture and net.picture == picture
    assert net.encoder.input.in_channels == net.input_images.in_channels == 4 * picture
    assert net.looks == (codec is not LATENTS) == (layout.looked == tasks["flow"].look_channels)
    one, seven = (4, 12) if codec is LATENTS else (1, 7)
    two, three = (4, 4) if codec is LATENTS else (2, 3)
    assert layout.used == (one, seven, two, three, three)
    assert net.used.sum(dim=1).tolist() == [*layout.used, layout.target]


def test_a_convolution_for_each_class_is_refused():
    own = {"name": "DiT-Ti/2", "input": "per_task"}
    config = config_of({"depth": {}, "image": {}}, model=own)
    with pytest.raises(UserError, match="per_task: task image has 8 classes"):
        build_network(config, build_tasks(config.tasks), Pixels())


# ---------------------------------------------------------------------------- several passes


def given(pipeline: DensePipeline, run: Callable[[], Any]) -> list[tuple[Tensor, ...]]:
    """The arguments x, encoded condition, time and label of every call of the network."""
    seen: list[tuple[Tensor, ...]] = []
    hook = pipeline.net.register_forward_pre_hook(lambda _, arguments: seen.append(arguments))
    run()
    hook.remove()
    return seen


def test_both_passes_of_all_members_start_from_noise_of_their_own():
    pipeline, batch = pipeline_of(SEPARATE), batch_of(2)
    (call,) = given(pipeline, lambda: pipeline.sample(batch, "flow", nfe=1, members=2, seed=3))
    x, cond, _, label = call
    assert label.tolist() == [0, 0, 1, 1] * 2  # "(e p b)"
    pictures = content_keys(batch.image)
    assert torch.equal(x, member_noise((1, 16, 24), pictures, range(2), seed=3, runs=2))
    for part in cond:  # encoded
        assert torch.equal(part[:4], part[4:]) and torch.equal(part[:2], part[2:4])
    # The first pass has the noise of a task with one.
    single = pipeline_of({"depth": {}})
    (alone,) = given(single, lambda: single.sample(batch, "depth", nfe=1, members=2, seed=3))
    assert torch.equal(alone[0], x.unflatten(0, (2, 2, 2))[:, 0].flatten(0, 1))


@pytest.mark.parametrize("chunk_size", [1, 3, 8])
def test_the_passes_make_up_the_target_whatever_the_batch(chunk_size):
    """Labels tell them apart: with a table of equal rows both components see one network."""
    pipeline, batch = pipeline_of(SEPARATE), batch_of(2)
    found = pipeline.sample(batch, "flow", nfe=2, members=3, chunk_size=chunk_size)
    assert found.shape == (3, 2, 2, 16, 24)
    torch.testing.assert_close(
        found, pipeline.sample(batch, "flow", nfe=2, members=3), atol=1e-5, rtol=1e-5
    )
    merged = pipeline.predict(batch, "flow", nfe=2, members=3, chunk_size=chunk_size)
    assert merged.values.shape == (2, 2, 16, 24)
    swapped = pipeline_of(SEPARATE)
    table: Any = swapped.net.label.embedding_table.weight  # type: ignore[union-attr]
    table[[0, 1]] = table[[1, 0]]
    assert (swapped.sample(batch, "flow", nfe=2, members=3) - found).abs().max() > 1e-3


# ---------------------------------------------------------------------------- classes


def test_a_class_is_asked_for_and_chooses_the_row():
    pipeline = pipeline_of({"depth": {}, "image": {"classes": 5}})
    blank = torch.zeros(16, 24, 3, dtype=torch.uint8).numpy()
    for wrong in (None, -1, 5):
        with pytest.raises(UserError, match="task image needs class_id, 0 to 4"):
            pipeline(blank, "image", class_id=wrong)
    calls = given(pipeline, lambda: pipeline(blank, "image", class_id=2, nfe=1, members=2))
    assert calls[0][3].tolist() == [3, 3]  # after the row of depth
    batch = batch_of(1)
    batch.class_id = torch.tensor([2])
    assert not pipeline.code(batch, "image").cond.any()  # it looks at nothing
    found = [pipeline(blank, "image", class_id=one, nfe=1, members=1).values for one in (2, 4)]
    assert found[0].shape == (1, 3, 16, 24) and not torch.equal(found[0], found[1])


# ---------------------------------------------------------------------------- codecs


def test_in_latents_sizes_count_both_strides(vae_of):
    """8 cells of 2 pixels each: sides are multiples of 16."""
    pipeline = pipeline_of({"depth": {}}, vae_of(0))
    pipeline.sizes["depth"] = (16, 32)
    assert pipeline.working_size("depth", (30, 60)) == (16, 32)
    assert pipeline.working_size("depth", (99, 100)) == (16, 16)


def test_in_latents_targets_are_decoded_from_their_own_channels(vae_of):
    vae = vae_of(0)
    pipeline = pipeline_of({"depth": {}, "semantic": {}}, vae)
    batch = batch_of(2, (16, 16))
    for task, channels in (("depth", 1), ("semantic", 7)):
        calls = given(pipeline, lambda: pipeline.sample(batch, task, nfe=1, members=2))  # noqa: B023
        assert calls[0][0].shape == (4, 12, 8, 8)
        found = pipeline.sample(batch, task, nfe=1, members=2)
        assert found.shape == (2, 2, channels, 16, 16)
    coded = pipeline.code(pipeline.working(batch, "depth"), "depth")
    assert torch.equal(coded.cond, vae.encode(batch.image))


def test_in_latents_a_start_is_encoded_into_its_own_channels(vae_of):
    vae = vae_of(0)
    pipeline, batch = pipeline_of({"depth": {}, "semantic": {}}, vae), batch_of(2, (16, 16))
    start = batch.image[:, :1]
    options: dict[str, Any] = {"nfe": 1, "members": 2, "start": start, "strength": 0.5}
    (call,) = given(pipeline, lambda: pipeline.sample(batch, "depth", **options))
    clean = torch.zeros(4, 12, 8, 8)
    clean[:, :4] = vae.encode(start).repeat(2, 1, 1, 1)
    pictures = content_keys(batch.image)
    noise = torch.zeros(4, 12, 8, 8)  # of the channels that the task has
    noise[:, :4] = member_noise((4, 8, 8), pictures, range(2))
    half = torch.full((4,), 0.5)
    torch.testing.assert_close(call[0], pipeline.diffusion.corrupt(clean, noise, half))


def test_a_cell_counts_only_as_a_whole(vae_of):
    pipeline = pipeline_of({"depth": {}}, vae_of(0))
    batch = batch_of(1, (16, 16))
    batch.depth, batch.depth_valid = batch.image[:, :1] + 3, torch.ones(1, 1, 16, 16).bool()
    batch.depth_valid[..., 5, 7] = False
    coded = pipeline.code(batch, "depth", target=True)
    assert coded.valid is not None and coded.valid.shape == (1, 4, 8, 8)
    assert (coded.valid == 0).nonzero()[:, 2:].unique(dim=0).tolist() == [[2, 3]]


def test_features_come_on_the_grid_of_the_latents(vae_of):
    pipeline = pipeline_of({"flow": {}}, vae_of(0))
    coded = pipeline.code(batch_of(1, (16, 16)), "flow")
    assert coded.features is not None and coded.features.shape == (1, 3 * 81, 8, 8)


def saved(pipeline: DensePipeline, folder: Path) -> Path:
    checkpoint.write(
        folder / "checkpoints",
        1,
        config=pipeline.config,
        meta={"sizes": {"depth": [16, 16]}, "codec": pipeline.codec.name},
        tensors={checkpoint.BACKBONE: dict(pipeline.net.state_dict())},
    )
    return folder


def test_the_copy_in_a_runs_folder_comes_before_the_folder_named(vae_of, tmp_path):
    vae, pixels = vae_of(0), pipeline_of({"depth": {}})
    config = replace(pixels.config, codec=CodecSettings(str(tmp_path / "named")))
    net = build_network(config, pixels.tasks, vae)
    run = saved(DensePipeline(net, pixels.tasks, config, pixels.sizes, codec=vae), tmp_path / "run")
    vae_of(1).save(tmp_path / "named")
    with pytest.raises(checkpoint.CheckpointError, match=f"in the latents of {vae.name}.* holds"):
        DensePipeline.from_pretrained(run)
    vae.save(run / checkpoint.CODEC)
    pipeline = DensePipeline.from_pretrained(run)
    batch = batch_of(1, (16, 16))
    assert torch.equal(pipeline.codec.encode(batch.image), vae.encode(batch.image))


def test_a_codec_is_described_without_its_weights(vae_of, tmp_path):
    vae_of(0).save(tmp_path / "vae")
    for path in (tmp_path / "vae", tmp_path):  # itself, or a pipeline it is part of
        found = described_codec(CodecSettings(str(path)))
        assert (found.downsample, found.channels(3), found.channels(7)) == (2, 4, 12)
    absent = described_codec(CodecSettings(str(tmp_path / "none")))
    assert (absent.downsample, absent.channels(1)) == (8, 4) and "not found" in absent.name
    kept = described_codec(CodecSettings(str(tmp_path / "none")), tmp_path / "vae")
    assert kept.downsample == 2
    assert isinstance(described_codec(CodecSettings()), Pixels)
