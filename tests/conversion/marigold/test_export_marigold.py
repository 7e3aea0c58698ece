"""Our U-Nets as Marigold folders: diffusers opens them and answers as we do."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from drawn import member_noise
from torch import Tensor

from stepsight import checkpoint
from stepsight.bench.peers.marigold import marigold
from stepsight.config import RunConfig
from stepsight.conversion.families.export import export_folder
from stepsight.conversion.importing import import_published
from stepsight.conversion.write import Converted, write
from stepsight.diffusion.config import DiffusionSettings
from stepsight.errors import UserError
from stepsight.models.config import CodecSettings, ModelSettings
from stepsight.pipeline.dense import DensePipeline
from stepsight.pipeline.inputs import content_keys
from stepsight.seeding import generator
from stepsight.tasks.config import DepthSettings, NormalsSettings
from stepsight.types import Batch

Folder = Callable[..., Path]
HEIGHT, WIDTH = 64, 96
CLASSES = {"depth": "MarigoldDepthPipeline", "normals": "MarigoldNormalsPipeline"}


def trained(folder: Path, run: Path, **changes: Any) -> checkpoint.Checkpoint:
    """A run whose weights are no import's, with `changes` of its configuration."""
    converted = import_published(folder)
    draw = generator("weights")
    weights = {
        name: value + 0.01 * torch.randn(value.shape, generator=draw)
        for name, value in converted.weights.items()
    }
    config = replace(converted.config, **changes)
    sizes = {task: (HEIGHT, WIDTH) for task in config.tasks}
    own = {"config": config, "weights": weights, "sizes": sizes, "profile": None, "meta": {}}
    write(replace(converted, **own, family=""), run)
    return checkpoint.read(run)


@pytest.mark.parametrize("task", ["depth", "normals"])
def test_diffusers_answers_as_we_do(
    task: str, diffusers_folder: Folder, published_members, tmp_path: Path
):
    saved = trained(diffusers_folder(CLASSES[task], "v1.1"), tmp_path / "run")
    notes = export_folder(saved, tmp_path / "out")
    assert notes == [f"pipe = {CLASSES[task]}.from_pretrained({str(tmp_path / 'out')!r})"]

    image = torch.rand(1, 3, HEIGHT, WIDTH, generator=generator("image"))
    batch = Batch(2 * image - 1, keys=["one"], sources=["test"])
    pipeline = DensePipeline.from_pretrained(tmp_path / "run")
    ours = pipeline.sample(batch, task, nfe=4, members=2)[:, 0].clip(-1, 1)
    latents = member_noise((4, 8, 12), content_keys(batch.image), range(2))
    theirs: Tensor = published_members(tmp_path / "out", task, image, latents, 4)
    ours = (ours + 1) / 2 if task == "depth" else F.normalize(ours, dim=1)
    assert (ours - theirs).abs().max() < 1e-4


def test_diffusers_opens_them_as_they_are(diffusers_folder: Folder, tmp_path: Path):
    """Without a text encoder of its user's: the folder's own answers the empty prompt's bits."""
    pytest.importorskip("transformers")
    saved = trained(diffusers_folder("MarigoldDepthPipeline", "v1.1"), tmp_path / "run")
    export_folder(saved, tmp_path / "out")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of their own deprecations
        pipe = marigold("depth").from_pretrained(str(tmp_path / "out"))
        pipe.set_progress_bar_config(disable=True)
        picture = torch.rand(1, 3, HEIGHT, WIDTH, generator=generator("image"))
        answer = pipe(picture, num_inference_steps=1, output_type="pt").prediction
    assert answer.shape == (1, 1, HEIGHT, WIDTH) and answer.isfinite().all()
    assert torch.equal(pipe.empty_text_embedding, saved.tensors(checkpoint.BACKBONE)["prompt"][:1])


def test_exports_are_imported_as_they_were(diffusers_folder: Folder, tmp_path: Path):
    saved = trained(diffusers_folder(default_denoising_steps=7), tmp_path / "run")
    export_folder(saved, tmp_path / "out")
    index = json.loads((tmp_path / "out/model_index.json").read_text())
    assert index["default_denoising_steps"] == 7
    assert index["default_processing_resolution"] == WIDTH
    assert (index["scale_invariant"], index["shift_invariant"]) == (True, True)

    again: Converted = import_published(tmp_path / "out")
    weights = saved.tensors(checkpoint.BACKBONE)
    weights["prompt"] = weights["prompt"][:1].expand(2, -1, -1)  # of the task, for the null row too
    assert again.weights.keys() == weights.keys()
    assert all(torch.equal(again.weights[name], value) for name, value in weights.items())
    expected: RunConfig = saved.config
    assert replace(again.config, codec=expected.codec) == expected
    assert again.codec is not None and again.codec.name == saved.meta["codec"]


def test_metric_depth_is_told(diffusers_folder: Folder, tmp_path: Path):
    tasks = {"depth": DepthSettings(space="linear", range="metric")}
    export_folder(trained(diffusers_folder(), tmp_path / "run", tasks=tasks), tmp_path / "out")
    index = json.loads((tmp_path / "out/model_index.json").read_text())
    assert (index["scale_invariant"], index["shift_invariant"]) == (False, False)


def test_one_step_models_say_how_to_call_them(diffusers_folder: Folder, tmp_path: Path):
    folder = diffusers_folder(scheduler="v1.1")
    diffusion = replace(import_published(folder).config.diffusion, objective="end_to_end")
    saved = trained(folder, tmp_path / "run", diffusion=diffusion)
    assert "latents=torch.zeros" in export_folder(saved, tmp_path / "out")[-1]


LINEAR = DepthSettings(space="linear")
TURNED = NormalsSettings(axes="right_up_back")
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"tasks": {"depth": DepthSettings(space="log")}}, "tasks.depth.space=linear"),
    ({"tasks": {"normals": NormalsSettings()}}, "tasks.normals.axes=right_up_back"),
    ({"tasks": {"depth": LINEAR, "normals": TURNED}}, "has tasks depth, normals"),
    ({"diffusion": DiffusionSettings()}, "rectified_flow"),
]


@pytest.mark.parametrize("changes, said", REFUSED, ids=[said for _, said in REFUSED])
def test_what_marigold_would_read_otherwise_is_refused(
    changes: dict[str, Any], said: str, diffusers_folder: Folder, tmp_path: Path
):
    saved = trained(diffusers_folder(), tmp_path / "run", **changes)
    with pytest.raises(UserError, match=said):
        export_folder(saved, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_backbones_are_refused(diffusers_folder: Folder, tmp_path: Path):
    pixels = {"model": ModelSettings("split-8"), "codec": CodecSettings()}
    converted = import_published(diffusers_folder())
    config = replace(converted.config, **pixels)
    write(replace(converted, config=config, codec=None), tmp_path / "run")
    with pytest.raises(UserError, match="split-8 on pixels"):
        export_folder(checkpoint.read(tmp_path / "run"), tmp_path / "out")
