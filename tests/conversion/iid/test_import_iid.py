"""Marigold's intrinsic decompositions against diffusers' U-Net, and what is refused of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from publishing import publish, rewrite
from safetensors.torch import load_file
from torch import Tensor

from stepsight import checkpoint
from stepsight.conversion.families.export import export_folder
from stepsight.conversion.importing import import_published
from stepsight.conversion.write import write
from stepsight.errors import UserError
from stepsight.pipeline.dense import DensePipeline
from stepsight.seeding import generator
from stepsight.types import Batch

NAMES = ("albedo", "shading", "residual")
LIGHTING: dict[str, Any] = {
    "target_names": [*NAMES],
    "albedo": {"prediction_space": "linear", "up_to_scale": False},
    "shading": {"prediction_space": "linear", "up_to_scale": True},
    "residual": {"prediction_space": "linear", "up_to_scale": True},
}
APPEARANCE: dict[str, Any] = {
    "target_names": ["albedo", "material"],
    "albedo": {"prediction_space": "srgb"},
    "material": {
        "prediction_space": "stack",
        "sub_target_names": ["roughness", "metallicity", None],
    },
    "roughness": {"prediction_space": "linear", "up_to_scale": False},
}
INDEX = {
    "_class_name": "MarigoldIntrinsicsPipeline",
    "default_denoising_steps": 2,
    "default_processing_resolution": 32,
    "prediction_type": "intrinsics",
}
IMAGE = (torch.rand(23, 40, 3, generator=generator("picture")) * 255).to(torch.uint8)


def published(path: Path, properties: dict[str, Any] = LIGHTING) -> Path:
    targets = 4 * len(properties["target_names"])
    unet = {"in_channels": 4 + targets, "out_channels": targets}
    return publish(path, {**INDEX, "target_properties": properties}, unet)


def opened(folder: Path, run: Path) -> DensePipeline:
    write(import_published(folder), run)
    return DensePipeline.from_pretrained(run)


@torch.no_grad()
def by_diffusers(folder: Path, noise: Tensor, steps: int) -> Tensor:
    """Clipped answers "t 3 h w" of diffusers' parts to IMAGE, seen as it is and padded to 24x40."""
    unet: Any = UNet2DConditionModel.from_pretrained(folder / "unet")
    vae: Any = AutoencoderKL.from_pretrained(folder / "vae")
    scheduler: Any = DDIMScheduler.from_pretrained(folder / "scheduler")
    prompt = load_file(folder / "empty_text_embedding.safetensors")["empty_text_embedding"]
    image = IMAGE.permute(2, 0, 1)[None] / 255 * 2 - 1
    image = torch.nn.functional.pad(image, (0, 0, 0, 1), mode="replicate")
    seen = vae.encode(image).latent_dist.mode() * vae.config["scaling_factor"]
    scheduler.set_timesteps(steps)
    x = noise
    for t in scheduler.timesteps:
        answer = unet(torch.cat([seen, x], 1), t, encoder_hidden_states=prompt).sample
        x = scheduler.step(answer, t, x).prev_sample
    pictures = vae.decode(x.unflatten(1, (-1, 4))[0] / vae.config["scaling_factor"]).sample
    return pictures[..., :23, :40].clamp(-1, 1)


@pytest.mark.parametrize("properties", [LIGHTING, APPEARANCE], ids=["lighting", "appearance"])
def test_each_target_is_what_diffusers_answers(
    properties: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = published(tmp_path / "published", properties)
    pipeline = opened(folder, tmp_path / "run").at(0)
    noise = torch.randn(1, 4 * len(properties["target_names"]), 3, 5)
    monkeypatch.setattr("stepsight.pipeline.members.normal", lambda *_: noise)
    expected = by_diffusers(folder, noise, 2)
    assert pipeline.profile.nfe == 2 and pipeline.profile.members == 1
    for place, name in enumerate(properties["target_names"]):
        values = pipeline(IMAGE.numpy(), name).values[0]
        assert values.shape == (3, 23, 40) and (values.amin() >= 0) and (values.amax() <= 1)
        torch.testing.assert_close(values, (expected[place] + 1) / 2, atol=3e-5, rtol=0)


def test_what_is_exported_is_imported_as_it_was(tmp_path: Path):
    pipeline = opened(published(tmp_path / "published"), tmp_path / "run")
    export_folder(checkpoint.read(tmp_path / "run"), tmp_path / "back")
    again = opened(tmp_path / "back", tmp_path / "again")
    assert again.profile == pipeline.profile and again.config.tasks == pipeline.config.tasks
    for name in NAMES:
        ours, theirs = (one(IMAGE.numpy(), name, members=2) for one in (pipeline, again))
        assert torch.equal(ours.values, theirs.values)
    file = "unet/diffusion_pytorch_model.safetensors"
    before, after = (load_file(tmp_path / one / file) for one in ("published", "back"))
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ({**LIGHTING, "target_names": ["albedo", "gloss", "residual"]}, "gloss is unknown"),
        ({**LIGHTING, "gloss": {}}, "gloss is not among target_names"),
        ({**LIGHTING, "albedo": {"prediction_space": "log"}}, "not supported"),
        ({**LIGHTING, "albedo": {"gamma": 2.2}}, "not supported"),
        ({**APPEARANCE, "roughness": {"gamma": 2.2}}, "gamma is unknown"),
        ({"albedo": {}}, "with target_names"),
    ],
)
def test_properties_that_mean_nothing_here_are_refused(
    properties: dict[str, Any], said: str, tmp_path: Path
):
    folder = published(tmp_path / "published")
    rewrite(folder / "model_index.json", target_properties=properties)
    with pytest.raises(UserError, match=said):
        import_published(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prediction_type": "depth"}, "predicts depth"),
        ({"scale_invariant": True}, "scale_invariant is True"),
        ({"target_properties": APPEARANCE}, "has 12 input channels, this one 16"),
    ],
)
def test_folders_of_something_else_are_refused(changes: dict[str, Any], said: str, tmp_path: Path):
    folder = published(tmp_path / "published")
    rewrite(folder / "model_index.json", **changes)
    with pytest.raises(UserError, match=said):
        import_published(folder)


def test_what_a_joint_target_cannot_do_is_refused(tmp_path: Path):
    pipeline = opened(published(tmp_path / "published"), tmp_path / "run")
    with pytest.raises(UserError, match="views mirror bring back one task's"):
        pipeline(IMAGE.numpy(), "albedo", views="mirror", nfe=2)
    batch = Batch(torch.zeros(1, 3, 16, 24), ["key"], ["toys"])
    start = torch.zeros(1, 3, 16, 24)
    with pytest.raises(UserError, match="albedo is denoised together with other tasks"):
        pipeline.at(0).sample(batch, "albedo", nfe=1, members=1, start=start)
