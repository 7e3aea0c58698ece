"""Inpainting folders: diffusers' own pipeline under an empty mask, fine-tuning, refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from publishing import PARTS, SCHEDULER, write_json, write_prompt, write_unet, write_vae

from stepsight import checkpoint
from stepsight.coding import Layout
from stepsight.conversion.adapt import adapt
from stepsight.conversion.families.export import export_folder
from stepsight.conversion.importing import import_published
from stepsight.conversion.write import write
from stepsight.errors import UserError
from stepsight.models.unet import TextUNet
from stepsight.pipeline.dense import DensePipeline
from stepsight.seeding import generator
from stepsight.tasks.config import DepthSettings
from stepsight.tasks.table import build_tasks

SIDE = 32


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "published"
    index = {"_class_name": "StableDiffusionInpaintPipeline", "_diffusers_version": "0.30.0"}
    write_unet(path / "unet", 9, sample_size=SIDE // 8)
    write_vae(path / "vae")
    write_json(path / "model_index.json", {**index, "requires_safety_checker": False, **PARTS})
    write_json(path / "scheduler/scheduler_config.json", SCHEDULER)
    write_prompt(path)
    return path


def opened(path: Path, run: Path) -> DensePipeline:
    write(import_published(path), run)
    return DensePipeline.from_pretrained(run)


@torch.no_grad()
def test_it_is_diffusers_unet_where_the_mask_is_zero(folder: Path, tmp_path: Path):
    net = opened(folder, tmp_path / "run").net
    peer = UNet2DConditionModel.from_pretrained(folder / "unet")
    assert isinstance(net, TextUNet) and isinstance(peer, UNet2DConditionModel)
    picture, x = torch.randn(2, 2, 4, 4, 4)
    time, label, mask = torch.tensor([999.0, 1.0]), torch.tensor([0, 1]), torch.zeros(2, 1, 4, 4)
    theirs = peer(torch.cat([x, mask, picture], 1), time, net.prompt[label]).sample
    assert (net(x, picture, time, label) - theirs).abs().max() < 1e-5 * theirs.abs().max()


def test_it_sees_the_picture_at_its_own_size(folder: Path, tmp_path: Path):
    pipeline, draw = opened(folder, tmp_path / "run"), generator("picture")
    images = torch.randint(0, 256, (2, SIDE, SIDE, 3), generator=draw, dtype=torch.uint8)
    assert pipeline.working_size("image", (375, 1242)) == (SIDE, SIDE)
    first, again, other = (
        pipeline(image.numpy(), "image", nfe=2, class_id=0, key="one").values
        for image in (images[0], images[0], images[1])
    )
    assert torch.equal(first, again) and (first - other).abs().max() > 1e-2


def test_what_is_fine_tuned_from_it_starts_with_its_weights(folder: Path, tmp_path: Path):
    pipeline = opened(folder, tmp_path / "run")
    layout = Layout.of(build_tasks({"depth": DepthSettings()}), pipeline.codec)
    net = layout.build(pipeline.config.model)
    weights = adapt(checkpoint.read(tmp_path / "run"), net, layout, pipeline.codec)
    old = pipeline.net.state_dict()
    assert weights.keys() == net.state_dict().keys()
    assert all(torch.equal(weights[name], old[name]) for name in weights if name != "prompt")


def test_it_is_not_exported_and_others_are_refused(folder: Path, tmp_path: Path):
    write(import_published(folder), tmp_path / "run")
    with pytest.raises(UserError, match="9 input channels, of which 8"):
        export_folder(checkpoint.read(tmp_path / "run"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    write_unet(folder / "unet", 4)
    with pytest.raises(UserError, match="has 9 input channels, this one 4"):
        import_published(folder)
