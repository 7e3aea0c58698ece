"""GenPercept: its answer recomputed by diffusers' modules, the places of its parts, refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from publishing import SCHEDULER, write_json, write_prompt, write_unet, write_vae
from torch import Tensor

from stepsight import checkpoint
from stepsight.conversion.dit import Wishes
from stepsight.conversion.families.export import export_folder
from stepsight.conversion.importing import import_published
from stepsight.conversion.write import write
from stepsight.errors import UserError
from stepsight.pipeline.dense import DensePipeline
from stepsight.seeding import generator
from stepsight.tasks.base import resize

MODELS, BASE = "weights/genpercept-models", "pretrained_weights/stable-diffusion-2-1"
SCHEDULER_FILE = "hf_configs/scheduler_beta_1.0_1.0/scheduler_config.json"
BETAS = SCHEDULER | {
    "_class_name": "DDIMSchedulerCustomized",
    "beta_start": 1.0,
    "beta_end": 1.0,
    "power_beta_curve": 1.0,
    "skip_prk_steps": True,
}


class Published(NamedTuple):
    root: Path
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    prompt: Tensor

    @torch.no_grad()
    def answers(self, image: Tensor) -> Tensor:
        """Decoded "1 3 h w" of a picture "1 3 h w" in [-1, 1]."""
        seen = self.vae.encode(image).latent_dist.mean * 0.18215
        latent = -self.unet(seen, 1, self.prompt).sample
        return self.vae.decode(latent / 0.18215).sample


def made(root: Path, *names: str) -> Published:
    """The folder that GenPercept's scripts run in, with U-Nets of these names, the same weights."""
    torch.manual_seed(0)
    base = root / BASE
    write_json(root / SCHEDULER_FILE, BETAS)
    write_json(base / "model_index.json", {"_class_name": "StableDiffusionPipeline"})
    vae, prompt = write_vae(base / "vae"), write_prompt(base)
    unet = write_unet(root / MODELS / names[0], 4)
    for other in names[1:]:
        shutil.copytree(root / MODELS / names[0], root / MODELS / other)
    return Published(root, unet, vae, prompt)


def opened(path: Path, run: Path, **wishes: Any) -> DensePipeline:
    write(import_published(path, Wishes(**wishes)), run)
    return DensePipeline.from_pretrained(run)


def picture(height: int, width: int) -> Tensor:
    draw = generator("picture")
    return torch.randint(0, 256, (height, width, 3), generator=draw, dtype=torch.uint8)


@pytest.mark.parametrize("size", [(47, 155), (30, 40)])
def test_depth_is_that_of_diffusers_modules_whatever_the_seed(size, tmp_path: Path):
    published, image = made(tmp_path / "root", "unet_depth_v2"), picture(*size)
    pipeline = opened(published.root, tmp_path / "run").at(48)
    assert [step.condition for step in pipeline.diffusion.steps(1)] == [1.0]
    height, width = pipeline.working_size("depth", size)
    assert (height, width) == (int(size[0] * 48 / size[1]), 48)
    seen = resize(image.movedim(-1, 0)[None].float(), (height, width)).round() / 127.5 - 1
    theirs = published.answers(seen).mean(1, keepdim=True).clamp(-1, 1)
    ours = [pipeline(image.numpy(), seed=seed).values for seed in (0, 1)]
    assert torch.equal(*ours)
    assert (ours[0] - resize((theirs + 1) / 2, size)).abs().max() < 1e-5


def test_disparity_is_near_at_one_and_normals_have_three_channels(tmp_path: Path):
    names, image = ("unet_disparity_v2", "unet_normal_v2"), picture(32, 32)
    published = made(tmp_path / "root", *names)
    theirs = published.answers(image.movedim(-1, 0)[None] / 127.5 - 1).clamp(-1, 1)
    run = opened(published.root, tmp_path / "disparity", family="genpercept-disparity").at(0)
    near = (1 / run(image.numpy()).values - 1 / 11) / (1 / 1.3 - 1 / 11)
    mean = published.answers(image.movedim(-1, 0)[None] / 127.5 - 1).mean(1, keepdim=True)
    assert (near - (mean.clamp(-1, 1) + 1) / 2).abs().max() < 1e-5
    run = opened(published.root, tmp_path / "normals", family="genpercept-normals").at(0)
    ours = run(image.numpy(), "normals").values * torch.tensor([1, -1, -1])[:, None, None]
    assert (ours * theirs.norm(dim=1, keepdim=True) - theirs).abs().max() < 1e-5


def test_one_of_several_is_named(tmp_path: Path):
    root = made(tmp_path / "root", "unet_depth_v2", "unet_normal_v2").root
    with pytest.raises(UserError, match="several U-Nets: name one of genpercept-depth, genpercept"):
        import_published(root)
    assert import_published(root, Wishes(family="genpercept-depth")).config.tasks.keys() == {
        "depth"
    }
    with pytest.raises(UserError, match="has no U-Net of genpercept-disparity"):
        import_published(root, Wishes(family="genpercept-disparity"))


def test_a_unet_is_found_beside_its_base_or_told_where_that_is(tmp_path: Path):
    root = made(tmp_path / "root", "unet_depth_v2").root
    whole = import_published(root)
    inside = import_published(root / MODELS / "unet_depth_v2")
    assert inside.family == "genpercept-depth"
    alone = (root / MODELS / "unet_depth_v2").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="holds a UNet2DConditionModel without its pipeline"):
        import_published(alone)
    with pytest.raises(UserError, match="with --vae"):
        import_published(alone, Wishes(family="genpercept-depth"))
    with pytest.raises(UserError, match="with --scheduler"):
        import_published(alone, Wishes(family="genpercept-depth", vae=root / BASE))
    where = {"vae": root / BASE, "scheduler": root / SCHEDULER_FILE}
    told = import_published(alone, Wishes(family="genpercept-depth", **where))
    for other in (inside, told):
        assert all(torch.equal(other.weights[name], x) for name, x in whole.weights.items())
        assert other.config == whole.config and other.profile == whole.profile
    with pytest.raises(UserError, match="--size"):
        import_published(root, Wishes(size=(64, 64)))


def test_what_is_exported_is_imported_as_it_was(tmp_path: Path):
    first = import_published(made(tmp_path / "root", "unet_depth_v2").root)
    write(first, tmp_path / "run")
    said = export_folder(checkpoint.read(tmp_path / "run"), tmp_path / "out")
    assert "put its text_encoder/ and tokenizer/ beside" in said[0]
    assert json.loads((tmp_path / "out/unet/config.json").read_text())["in_channels"] == 4
    index = json.loads((tmp_path / "out/model_index.json").read_text())
    assert index["_class_name"] == "GenPerceptPipeline"
    again = import_published(tmp_path / "out")
    assert (again.family, again.profile) == (first.family, first.profile)
    assert again.config.tasks == first.config.tasks
    assert again.config.diffusion == first.config.diffusion
    assert again.weights.keys() == first.weights.keys()
    assert all(torch.equal(again.weights[name], value) for name, value in first.weights.items())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"beta_start": 0.00085}, "beta_start is 0.00085"),
        ({"prediction_type": "epsilon"}, "prediction_type is 'epsilon'"),
        ({"power_beta_curve": 2.0}, "power_beta_curve is 2.0"),
        ({"surprise": 1}, "surprise"),
        ({"timestep_spacing": "sideways"}, "timestep_spacing"),
    ],
)
def test_other_schedulers_are_refused(change: dict[str, Any], said: str, tmp_path: Path):
    root = made(tmp_path / "root", "unet_depth_v2").root
    write_json(root / SCHEDULER_FILE, BETAS | change)
    with pytest.raises(UserError, match=said):
        import_published(root)


def test_the_variant_with_another_head_is_refused(tmp_path: Path):
    root = made(tmp_path / "root", "unet_disparity_dpt_head_v2").root
    with pytest.raises(UserError, match="DPT head is not supported"):
        import_published(root / MODELS / "unet_disparity_dpt_head_v2")
    with pytest.raises(UserError, match="name one of none .* with a DPT head"):
        import_published(root)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rgb_blending": False}, "rgb_blending is False"),
        ({"default_denoising_steps": 10}, "default_denoising_steps is 10"),
        ({"customized_head": ["genpercept", "DPTNeckHead"]}, "DPT head is not supported"),
        ({"surprise": 1}, "surprise is 1"),
    ],
)
def test_other_pipelines_of_its_class_are_refused(
    change: dict[str, Any], said: str, tmp_path: Path
):
    write(import_published(made(tmp_path / "root", "unet_depth_v2").root), tmp_path / "run")
    export_folder(checkpoint.read(tmp_path / "run"), tmp_path / "out")
    file = tmp_path / "out/model_index.json"
    write_json(file, json.loads(file.read_text()) | change)
    with pytest.raises(UserError, match=said):
        import_published(tmp_path / "out")


def test_unknown_keys_of_the_network_are_refused(tmp_path: Path):
    root = made(tmp_path / "root", "unet_depth_v2").root
    file = root / MODELS / "unet_depth_v2/config.json"
    write_json(file, json.loads(file.read_text()) | {"surprise": 1})
    with pytest.raises(UserError, match="surprise"):
        import_published(root)
