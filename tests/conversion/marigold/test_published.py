"""Folders of Marigold and E2E-FT answer as their authors' code does, and come back from exports."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor

from stepsight import checkpoint
from stepsight.cli import main as command
from stepsight.conversion.dit import Wishes
from stepsight.conversion.families import FAMILIES
from stepsight.conversion.families.export import export_folder
from stepsight.conversion.importing import import_published
from stepsight.conversion.write import write
from stepsight.errors import UserError
from stepsight.pipeline.dense import DensePipeline
from stepsight.schedule import named_schedule

Folder = Callable[..., Path]
END_TO_END = ("e2e-ft-depth", "e2e-ft-normals")


def picture(height: int = 47, width: int = 75) -> Tensor:
    draw = torch.Generator().manual_seed(3)
    return torch.randint(256, (height, width, 3), generator=draw, dtype=torch.uint8)


def opened(source: Path, out: Path, family: str | None = None) -> DensePipeline:
    write(import_published(source, Wishes(family=family)), out)
    return DensePipeline.from_pretrained(out)


@torch.no_grad()
def one_step(folder: Path, image: Tensor) -> Tensor:
    """E2E-FT on a picture at its own size, by diffusers' modules: "b 3 h w" before it is read."""
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    prompt = load_file(folder / "empty_text_embedding.safetensors")["empty_text_embedding"]
    x = image.movedim(-1, 0)[None].float() / 127.5 - 1
    z = vae.encode(x).latent_dist.mean * vae.config.scaling_factor
    zeros = torch.zeros_like(z)
    answer = unet(torch.cat([z, zeros], 1), 999, encoder_hidden_states=prompt).sample
    sigma = named_schedule("scaled_linear").sigma(torch.ones(()))
    return vae.decode(-sigma * answer / vae.config.scaling_factor).sample


@pytest.mark.parametrize("family", END_TO_END)
def test_end_to_end_models_answer_zeros_in_one_step(
    family: str, diffusers_folder: Folder, tmp_path: Path
):
    folder = diffusers_folder("MarigoldPipeline", "v1.0")
    pipeline, image = opened(folder, tmp_path / "run", family).at(0), picture()
    task = family.removeprefix("e2e-ft-")
    decoded, size = one_step(folder, image), image.shape[:2]
    found = pipeline(image.numpy(), task).values
    assert torch.equal(found, pipeline(image.numpy(), task, seed=1).values)
    if task == "depth":
        depth = decoded.mean(1, keepdim=True).clamp(-1, 1)
        depth = (depth - depth.min()) / (depth.max() - depth.min())
        expected = F.interpolate(depth, size=size, mode="bilinear", antialias=True)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    else:
        turned = F.normalize(decoded, dim=1) * torch.tensor([1, -1, -1])[:, None, None]
        expected = F.interpolate(turned, size=size, mode="bilinear", antialias=True)
        assert F.cosine_similarity(found, expected).min() > 1 - 1e-5


@pytest.mark.parametrize("family", [*END_TO_END, "marigold-depth"])
def test_exports_come_back_with_equal_bits_and_meaning(
    family: str, diffusers_folder: Folder, tmp_path: Path
):
    first = opened(diffusers_folder("MarigoldPipeline", "v1.0"), tmp_path / "run", family)
    saved = checkpoint.read(tmp_path / "run")
    (told,) = export_folder(saved, tmp_path / "out")
    assert "read by the code that it was published with" in told  # diffusers has no such class
    again = opened(tmp_path / "out", tmp_path / "again")
    assert (again.name, again.profile) == (first.name, first.profile)
    assert again.config.diffusion == first.config.diffusion
    index, original = (
        json.loads((tmp_path / where / "model_index.json").read_text())
        for where in ("out", "published")
    )
    parts = {"text_encoder": [None, None], "tokenizer": [None, None]}
    assert index == original | parts


def test_our_own_end_to_end_models_keep_their_meaning(diffusers_folder: Folder, tmp_path: Path):
    """A run of ours has no publisher, and is seen as we see pictures."""
    converted = import_published(diffusers_folder("MarigoldPipeline"), Wishes(family=END_TO_END[0]))
    converted.meta, converted.profile, converted.family = {}, None, ""
    converted.sizes = {"depth": (48, 64)}
    write(converted, tmp_path / "run")
    first = DensePipeline.from_pretrained(tmp_path / "run")
    export_folder(checkpoint.read(tmp_path / "run"), tmp_path / "out")
    again = opened(tmp_path / "out", tmp_path / "again")
    assert again.profile.own and again.diffusion.settings.objective == "end_to_end"
    image = picture().numpy()
    answers = [one(image, "depth", seed=seed).values for one in (first, again) for seed in (0, 1)]
    assert all(torch.equal(answer, answers[0]) for answer in answers)


@pytest.mark.parametrize(
    ("named", "family"),
    [
        ("marigold-e2e-ft-depth", "e2e-ft-depth"),
        ("marigold-e2e-ft-normals", "e2e-ft-normals"),
        ("marigold-v1-0", "marigold-depth"),
    ],
)
def test_names_of_folders_tell_what_nothing_in_them_does(
    named: str, family: str, diffusers_folder: Folder, tmp_path: Path
):
    shutil.move(diffusers_folder("MarigoldPipeline"), tmp_path / named)
    converted = import_published(tmp_path / named)
    assert converted.family == family
    assert any("by the name of the folder" in sentence for sentence in converted.assumed)
    told = any("normals point right, up and back" in sentence for sentence in converted.assumed)
    assert told == ("normals" in family)


def test_a_family_that_a_folder_cannot_be_of_is_refused(diffusers_folder: Folder):
    folder = diffusers_folder()
    with pytest.raises(UserError, match="of marigold-depth, not of e2e-ft-depth"):
        import_published(folder, Wishes(family="e2e-ft-depth"))
    with pytest.raises(UserError, match="--family marigold-dept: unknown. Did you mean"):
        import_published(folder, Wishes(family="marigold-dept"))


def test_entries_that_mean_nothing_here_are_refused(diffusers_folder: Folder):
    with pytest.raises(UserError, match="model_index.json: fold is 2, which means nothing"):
        import_published(diffusers_folder(fold=2))


def test_the_import_is_told_to_programs(diffusers_folder: Folder, tmp_path: Path, capsys):
    folder = diffusers_folder(default_denoising_steps=4)
    out = str(tmp_path / "run")
    assert command.main(["convert", "import", str(folder), "--out", out, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["family"], found["profile"]["fit"]) == ("marigold-depth", "longest")
    assert "model_index.json has no default_processing_resolution: 768" in found["assumed"]


def test_published_and_our_own_conventions_differ(diffusers_folder: Folder, tmp_path: Path):
    pipeline = opened(diffusers_folder(default_processing_resolution=64), tmp_path / "run")
    ours = pipeline.profiled("stepsight")
    assert pipeline.working_size("depth", (375, 1242)) == (19, 64)
    assert ours.working_size("depth", (375, 1242)) == (32, 104)  # the area of 48 x 64
    assert pipeline.default_setting("depth").members == 1
    assert ours.default_setting("depth").members == 4
    assert (pipeline.tasks["depth"].clip, ours.tasks["depth"].clip) == (True, False)  # pyright: ignore


def test_steps_are_counted_in_the_calls_that_they_cost(diffusers_folder: Folder):
    """PLMS takes its second step twice."""
    folder = diffusers_folder("StableDiffusionPipeline")
    plms = {"_class_name": "PNDMScheduler", "skip_prk_steps": True, "prediction_type": "epsilon"}
    plms |= {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    plms |= {"steps_offset": 1, "set_alpha_to_one": False}
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(plms))
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "PNDMScheduler"]
    (folder / "model_index.json").write_text(json.dumps(index))
    config = import_published(folder).config
    assert (config.diffusion.sampler, config.evaluation.nfe) == ("plms", 51)


def test_every_family_names_an_importer():
    from stepsight.plugins import resolve

    assert all(callable(resolve(row.importer)) for row in FAMILIES.values())
