"""Every key of a configuration file that an importer opens is used or refused, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from geowizards import add_words, geowizard
from latent_diffusion import depthfm, pix2gestalt
from planting import files_read, refusal, unrefused
from publishing import publish, rewrite

from stepsight import checkpoint
from stepsight.conversion.dit import Wishes
from stepsight.conversion.families import FAMILIES
from stepsight.conversion.families.export import export_folder
from stepsight.conversion.importing import import_published
from stepsight.conversion.write import write
from stepsight.errors import UserError
from stepsight.models.config import CodecSettings
from stepsight.models.vae import VAE

TOLD = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 4}
PROPERTIES = {"target_names": ["albedo"], "albedo": {"prediction_space": "linear"}}
CHANNELS = {"GenPerceptPipeline": 4, "LotusDPipeline": 4, "StableDiffusionPipeline": 4}
CHANNELS |= {"StableDiffusionInpaintPipeline": 9}
# GeoWizard's code resizes in its own way, and takes nothing of that from the processor.
UNREAD = [("size",)]


def published(path: Path, name: str) -> Path:
    """A tiny folder of a family."""
    if name == "geowizard":
        folder = geowizard(path, 1)
        rewrite(folder / "feature_extractor/preprocessor_config.json", size={"shortest_edge": 16})
        return folder
    kind = FAMILIES[name].classes[0]
    index: dict[str, Any] = {"_class_name": kind}
    if name == "marigold-iid":
        index["target_properties"] = PROPERTIES
    unet = TOLD if name.startswith("lotus") else {}
    publish(path, index, {"in_channels": CHANNELS.get(kind, 8), **unet})
    if name.startswith("genpercept"):
        rewrite(path / "scheduler/scheduler_config.json", beta_start=1.0, beta_end=1.0)
    return path


@pytest.mark.parametrize("name", FAMILIES)
def test_a_folder_of_a_family_has_no_key_that_is_passed_over(name: str, tmp_path: Path):
    left = unrefused(published(tmp_path / "published", name), Wishes(family=name))
    assert [place for _, place in left] == (UNREAD if name == "geowizard" else [])


def test_nor_has_one_with_a_text_encoder(tmp_path: Path):
    folder = geowizard(tmp_path / "published", 2)
    read = {"/".join(file.parts[-2:]) for file in files_read(folder, Wishes())}
    assert {"text_encoder/config.json", "vae/config.json", "unet/config.json"} <= read
    assert unrefused(folder, Wishes()) == []


def test_nor_has_an_export(tmp_path: Path):
    folder = published(tmp_path / "published", "marigold-depth")
    write(import_published(folder), tmp_path / "run")
    export_folder(checkpoint.read(tmp_path / "run"), tmp_path / "out")
    assert tmp_path / "out/stepsight-family.json" in files_read(tmp_path / "out", Wishes())
    assert unrefused(tmp_path / "out", Wishes()) == []


def test_nor_have_a_unet_and_a_scheduler_apart(tmp_path: Path):
    base = published(tmp_path / "published", "genpercept-depth")
    (base / "unet").rename(tmp_path / "unet_depth_v2")
    scheduler = base / "scheduler/scheduler_config.json"
    wishes = Wishes(family="genpercept-depth", vae=base, scheduler=scheduler)
    assert unrefused(tmp_path / "unet_depth_v2", wishes) == []


@pytest.mark.parametrize("write_file", [depthfm, pix2gestalt])
def test_nor_have_files_beside_weights(write_file: Any, tmp_path: Path):
    assert unrefused(write_file(tmp_path), Wishes()) == []


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("unet", {"time_cond_proj_dim": 16}),
        ("unet", {"dual_cross_attention": True}),
        ("unet", {"class_embeddings_concat": True}),
        ("unet", {"encoder_hid_dim": 8}),
        ("unet", {"addition_embed_type": "text"}),
        ("unet", {"num_class_embeds": 3}),
        ("unet", {"out_channels": 5}),
        ("unet", {"tokens": 2}),
        ("unet", {"_class_name": "UNet2DModel"}),
        ("vae", {"latents_mean": [0.0] * 4}),
        ("text_encoder", {"hidden_act": "relu"}),
        ("text_encoder", {"hidden_size": 8}),
        ("text_encoder", {"vocab_size": 8}),
        ("text_encoder", {"num_hidden_layers": 1}),
        ("text_encoder", {"model_type": "t5"}),
    ],
)
def test_values_of_other_networks_are_refused(
    part: str, change: dict[str, Any], folder_of_words: Path
):
    assert refusal(folder_of_words, Wishes()) == ""
    file = folder_of_words / part / "config.json"
    text = file.read_text()
    rewrite(file, **change)
    said = refusal(folder_of_words, Wishes())
    file.write_text(text)
    assert next(iter(change)) in said


@pytest.fixture(scope="module")
def folder_of_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Marigold whose prompt its text encoder computes."""
    folder = published(tmp_path_factory.mktemp("marigold") / "published", "marigold-depth")
    (folder / "empty_text_embedding.safetensors").unlink()
    add_words(folder)
    return folder


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": 13},
        {"image_size": 224},
        {"patch_size": 14},
        {"projection_dim": 8},
        {"num_hidden_layers": 2},
        {"intermediate_size": 8},
        {"hidden_act": "relu"},
    ],
)
def test_an_image_encoder_of_other_sizes_is_refused(change: dict[str, Any], tmp_path: Path):
    folder = geowizard(tmp_path / "published", 1)
    rewrite(folder / "image_encoder/config.json", **change)
    assert next(iter(change)) in refusal(folder, Wishes())


def test_further_parts_of_a_pipeline_are_refused_if_they_are_there(folder_of_words: Path):
    index = folder_of_words / "model_index.json"
    rewrite(index, controlnet=[None, None])
    assert refusal(folder_of_words, Wishes()) == ""
    rewrite(index, controlnet=["diffusers", "ControlNetModel"])
    said = refusal(folder_of_words, Wishes())
    rewrite(index, controlnet=None)
    assert "model_index.json: controlnet" in said


def test_two_classes_of_one_scheduler_are_refused(folder_of_words: Path):
    index = folder_of_words / "model_index.json"
    rewrite(index, scheduler=["diffusers", "LCMScheduler"])
    said = refusal(folder_of_words, Wishes())
    rewrite(index, scheduler=["diffusers", "DDIMScheduler"])
    assert "names a LCMScheduler, scheduler_config.json is of a DDIMScheduler" in said


def test_an_autoencoder_that_does_not_double_sides_is_refused(tmp_path: Path):
    torch.manual_seed(0)
    levels = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    levels |= {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}
    AutoencoderTiny(**levels).save_pretrained(tmp_path)  # type: ignore[arg-type]
    VAE.open(tmp_path, CodecSettings())
    for change in ({"upsampling_scaling_factor": 4}, {"planted": 1}):
        rewrite(tmp_path / "config.json", **change)
        with pytest.raises(UserError, match=next(iter(change))):
            VAE.open(tmp_path, CodecSettings())
        rewrite(tmp_path / "config.json", **dict.fromkeys(change))
