"""Lotus folders: the answer recomputed by diffusers' modules, exports, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from publishing import PARTS, SCHEDULER, write_json, write_prompt, write_unet, write_vae
from safetensors.torch import load_file
from torch import Tensor

from stepsight import checkpoint
from stepsight.conversion.dit import Wishes
from stepsight.conversion.families import find_family
from stepsight.conversion.families.export import export_folder, export_marigold
from stepsight.conversion.importing import import_published
from stepsight.conversion.write import write
from stepsight.errors import UserError
from stepsight.execution.noise import normal
from stepsight.pipeline.dense import DensePipeline
from stepsight.pipeline.inputs import content_keys, single
from stepsight.seeding import generator

PROJECTION = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 4}
SAMPLE = SCHEDULER | {"prediction_type": "sample"}


class Published(NamedTuple):
    path: Path
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    prompt: Tensor

    @torch.no_grad()
    def answers(self, image: Tensor, drawn: Tensor, noise: Tensor | None) -> Tensor:
        """Decoded and clipped "1 3 h w" of a picture "1 3 h w" in [-1, 1]."""
        posterior = self.vae.encode(image).latent_dist
        seen = (posterior.mean + posterior.std * drawn) * 0.18215
        given = seen if noise is None else torch.cat([seen, noise], dim=1)
        told = torch.tensor([[math.sin(1), 0.0, math.cos(1), 1.0]])
        latent = self.unet(given, 999, self.prompt, class_labels=told).sample
        return self.vae.decode(latent / 0.18215).sample.clamp(-1, 1)


@pytest.fixture
def lotus(tmp_path: Path) -> Callable[..., Published]:
    """Writes a folder: (its name, "G" or "D", entries of the U-Net's configuration)."""

    def make(name: str, kind: str, **unet: Any) -> Published:
        torch.manual_seed(0)
        path, channels = tmp_path / name, 8 if kind == "G" else 4
        path.mkdir()
        index = {"_class_name": f"Lotus{kind}Pipeline", "requires_safety_checker": False, **PARTS}
        write_json(path / "model_index.json", index)
        write_json(path / "scheduler/scheduler_config.json", SAMPLE)
        net = write_unet(path / "unet", channels, **(PROJECTION | unet))
        return Published(path, net, write_vae(path / "vae"), write_prompt(path))

    return make


def opened(path: Path, run: Path, **wishes: Any) -> DensePipeline:
    write(import_published(path, Wishes(**wishes)), run)
    return DensePipeline.from_pretrained(run)


def picture(height: int, width: int) -> Tensor:
    draw = generator("picture")
    return torch.randint(0, 256, (height, width, 3), generator=draw, dtype=torch.uint8)


CASES = [
    ("lotus-depth-g-v1-0", "G", "depth"),
    ("lotus-depth-d-v1-0", "D", "depth"),
    ("lotus-disparity-g", "G", "depth"),
    ("lotus-normal-d-v1-1", "D", "normals"),
]


@pytest.mark.parametrize(("name", "kind", "task"), CASES)
@pytest.mark.parametrize("size", [(47, 155), (30, 40)])
def test_answers_are_those_of_diffusers_modules(
    name: str, kind: str, task: str, size: tuple[int, int], lotus, tmp_path: Path
):
    published: Published = lotus(name, kind)
    pipeline, image = opened(published.path, tmp_path / "run").at(0), picture(*size)
    seen = single(image.numpy(), pipeline.task(task)).image
    keys, zero = content_keys(seen), torch.zeros(1, dtype=torch.int64)
    shape = (4, size[0] // 8, size[1] // 8)
    drawn = normal(("posterior", 5), torch.stack([keys, zero], 1), shape)
    noise = normal(("sample", 5), torch.stack([keys, zero, zero], 1), shape)
    theirs = published.answers(seen, drawn, noise if kind == "G" else None)
    theirs = F.interpolate(theirs, size=size, mode="nearest-exact")
    ours = pipeline(image.numpy(), task, seed=5).values
    assert ours.shape[-2:] == size
    if task == "normals":
        assert (ours + F.normalize(theirs, dim=1)).abs().max() < 1e-3
        return
    theirs = (theirs.mean(1, keepdim=True) + 1) / 2  # the mean of what is clipped
    if "disparity" in name:
        ours = (1 / ours - 1 / 11) / (1 / 1.3 - 1 / 11)
    assert (ours - theirs).abs().max() < 1e-5


def test_the_seed_moves_noise_and_the_draw_of_the_posterior_and_nothing_else(lotus, tmp_path: Path):
    pipeline, image = (
        opened(lotus("lotus-depth-d", "D").path, tmp_path / "d").at(0),
        picture(32, 32),
    )
    draws = [pipeline(image.numpy(), seed=seed).values for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    pipeline.profile = replace(pipeline.profile, posterior="mean")
    mean = [pipeline(image.numpy(), seed=seed).values for seed in (0, 1)]
    assert torch.equal(*mean)  # it starts from no noise
    with pytest.raises(UserError, match="one model call"):
        pipeline(image.numpy(), nfe=2)


@pytest.mark.parametrize("kind", ["G", "D"])
def test_the_longer_side_is_brought_to_768_pixels(kind: str, lotus, tmp_path: Path):
    pipeline = opened(lotus("lotus-depth", kind).path, tmp_path / "run")
    assert pipeline.working_size("depth", (375, 1242)) == (231, 768)
    assert pipeline.working_size("depth", (241, 319)) == (580, 768)


@pytest.mark.parametrize("kind", ["G", "D"])
def test_what_is_exported_is_imported_as_it_was(kind: str, lotus, tmp_path: Path):
    published: Published = lotus("lotus-normal", kind)
    first = import_published(published.path)
    assert any("normals point left, up and back" in one for one in first.assumed)
    write(first, tmp_path / "run")
    with pytest.raises(UserError, match=f"published as a Lotus{kind}Pipeline"):
        export_marigold(checkpoint.read(tmp_path / "run"), tmp_path / "marigold")
    export_folder(checkpoint.read(tmp_path / "run"), tmp_path / "out")
    assert json.loads((tmp_path / "out/unet/config.json").read_text())["in_channels"] == (
        8 if kind == "G" else 4
    )
    file = "unet/diffusion_pytorch_model.safetensors"
    ours, theirs = load_file(tmp_path / "out" / file), load_file(published.path / file)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())
    again = import_published(tmp_path / "out")
    assert (again.family, again.profile) == (first.family, first.profile)
    assert again.config.tasks == first.config.tasks
    assert again.config.diffusion == first.config.diffusion
    assert again.weights.keys() == first.weights.keys()
    assert all(torch.equal(again.weights[name], value) for name, value in first.weights.items())


def test_a_target_that_was_learned_has_no_place_in_an_export(lotus, tmp_path: Path):
    first = import_published(lotus("lotus-depth", "D").path)
    first.weights["unet.conv_in.weight"][:, -1] = 1.0
    write(first, tmp_path / "run")
    with pytest.raises(UserError, match="published with 4 input channels"):
        export_folder(checkpoint.read(tmp_path / "run"), tmp_path / "out")


def spoilt_index(path: Path) -> None:
    file = path / "model_index.json"
    write_json(file, json.loads(file.read_text()) | {"default_answer": 3})


def spoilt_scheduler(path: Path) -> None:
    write_json(path / "scheduler/scheduler_config.json", SAMPLE | {"surprise": 1})


def spoilt_unet(path: Path) -> None:
    file = path / "unet/config.json"
    write_json(file, json.loads(file.read_text()) | {"surprise": 1})


def without_vae(path: Path) -> None:
    (path / "vae/config.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoilt_index, "default_answer is 3"),
        (spoilt_scheduler, "surprise"),
        (spoilt_unet, "surprise"),
        (without_vae, "lacks vae/config.json"),
    ],
)
def test_what_is_unknown_or_missing_is_refused(spoil, said: str, lotus):
    path = lotus("lotus-depth", "G").path
    spoil(path)
    with pytest.raises(UserError, match=said):
        import_published(path)


def test_other_networks_and_folders_without_a_name_are_refused(lotus):
    with pytest.raises(UserError, match="is told by 'projection' of 4 numbers"):
        path = lotus("lotus-depth", "G", projection_class_embeddings_input_dim=6).path
        import_published(path)
    path = lotus("checkpoint-9", "D").path
    with pytest.raises(UserError, match="lotus-depth-d share, and nothing tells"):
        import_published(path)
    assert import_published(path, Wishes(family="lotus-depth-d")).family == "lotus-depth-d"
    with pytest.raises(UserError, match="not of lotus-depth-g"):
        import_published(path, Wishes(family="lotus-depth-g"))


@pytest.mark.parametrize(
    ("name", "kind", "family"),
    [
        ("lotus-depth-g-v1-0", "G", "lotus-depth-g"),
        ("lotus-depth-g-v2-1-disparity", "G", "lotus-disparity-g"),
        ("lotus-depth-d-v2-0-disparity", "D", "lotus-disparity-d"),
        ("lotus-normal-g-v1-1", "G", "lotus-normal-g"),
        ("lotus-normal-d-v1-1", "D", "lotus-normal-d"),
    ],
)
def test_the_published_names_tell_what_is_predicted(name: str, kind: str, family: str, lotus):
    assert find_family(lotus(name, kind).path).name == family


def test_a_name_of_two_quantities_tells_none(lotus):
    with pytest.raises(UserError, match="nothing tells which it is"):
        find_family(lotus("lotus-depth-and-normal-g", "G").path)


def test_what_no_file_says_is_told(lotus):
    said = " ".join(import_published(lotus("lotus-depth", "G").path).assumed)
    assert "by the name of the folder" in said and "level 999" in said
