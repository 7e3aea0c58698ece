"""GeoWizard against diffusers' modules walking two rows, and what is refused of its folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from PIL import Image
from publishing import rewrite
from safetensors.torch import load_file
from torch import Tensor

from stepsight import checkpoint
from stepsight.conversion.clip import prompt_of, split_word
from stepsight.conversion.dit import Wishes
from stepsight.conversion.families.export import export_folder
from stepsight.conversion.importing import import_published
from stepsight.conversion.vision import from_transformers
from stepsight.conversion.write import write
from stepsight.errors import UserError
from stepsight.models.joint import JointAttention
from stepsight.models.vision import ImageEncoder
from stepsight.pipeline.dense import DensePipeline
from stepsight.seeding import generator

Folder = Callable[..., Path]
IMAGE = (torch.rand(23, 40, 3, generator=generator("picture")) * 255).to(torch.uint8).numpy()
NOISE = torch.randn(1, 4, 3, 6, generator=generator("noise"))  # of 27x48 pixels


def opened(folder: Path, run: Path, domain: str | None = None) -> DensePipeline:
    write(import_published(folder, Wishes(domain=domain)), run)
    return DensePipeline.from_pretrained(run)


def told(folder: Path, version: int, picture: Tensor, domain: str) -> tuple[Tensor, Tensor]:
    """What cross-attention reads, and the numbers of both rows, worked out by hand."""
    places = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    numbers = torch.cat([places.sin(), places.cos()], dim=1)
    if version == 2:
        return prompt_of(folder, (domain, "geometry")), numbers
    kind = F.one_hot(torch.tensor(["indoor", "outdoor", "object"].index(domain)), 3).float()
    more = torch.cat([kind.sin(), kind.cos()]).expand(2, -1)
    encoder = ImageEncoder(16, 8, 12, 1, 2, 24, 16)
    stored = load_file(folder / "image_encoder/model.safetensors")
    encoder.net.load_state_dict(from_transformers(stored))
    return encoder(picture)[:, None], torch.cat([numbers, more], dim=1)


@torch.no_grad()
def by_diffusers(folder: Path, version: int, domain: str) -> tuple[np.ndarray, Tensor]:
    """Depth "h w" in [0, 1] and normals "3 h w" of IMAGE, seen at 27x48, in two steps."""
    unet: Any = UNet2DConditionModel.from_pretrained(folder / "unet")
    vae: Any = AutoencoderKL.from_pretrained(folder / "vae")
    scheduler: Any = DDIMScheduler.from_pretrained(folder / "scheduler")
    for name, module in unet.named_modules():
        if name.endswith("attn1"):
            module.set_processor(JointAttention(2))
    small = np.array(Image.fromarray(IMAGE).resize((48, 27), Image.Resampling.BICUBIC))
    picture = torch.from_numpy(small).permute(2, 0, 1)[None] / 127.5 - 1
    scale = vae.config.scaling_factor
    seen = (vae.encode(picture).latent_dist.mode() * scale).repeat(2, 1, 1, 1)
    prompt, numbers = told(folder, version, picture, domain)
    x = NOISE.repeat(2, 1, 1, 1)
    scheduler.set_timesteps(2)
    for t in scheduler.timesteps:
        given = torch.cat([seen, x], 1), t, prompt.expand(2, -1, -1), numbers
        x = scheduler.step(unet(*given).sample, t, x).prev_sample
    depth, normals = vae.decode(x / scale).sample
    depth = (depth.mean(0).clamp(-1, 1) + 1) / 2
    depth = (depth - depth.min()) / (depth.max() - depth.min())
    shown = Image.fromarray(depth.numpy()).resize((40, 23), Image.Resampling.BICUBIC)
    normals = F.interpolate(F.normalize(normals, dim=0)[None], (23, 40), mode="nearest")[0]
    return np.asarray(shown).clip(0, 1), normals


@pytest.mark.parametrize(("version", "domain"), [(1, "outdoor"), (1, "indoor"), (2, "indoor")])
def test_depth_and_normals_are_those_of_two_rows_that_attend_to_each_other(
    version: int,
    domain: str,
    geowizard: Folder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    folder = geowizard(version)
    pipeline = opened(folder, tmp_path / "run", domain).at(48)
    depth, normals = by_diffusers(folder, version, domain)
    monkeypatch.setattr("stepsight.pipeline.members.normal", lambda *_: NOISE)
    ours = pipeline(IMAGE, "depth", nfe=2, members=1).values[0, 0]
    np.testing.assert_allclose(ours.numpy(), depth, atol=3e-5)
    ours = pipeline(IMAGE, "normals", nfe=2, members=1).values[0]
    assert (ours - normals).norm(dim=0).mean() < 1e-4


def test_members_are_whole_and_lie_in_the_range_of_depth(geowizard: Folder, tmp_path: Path):
    pipeline = opened(geowizard(), tmp_path / "run").at(48)
    assert (pipeline.profile.members, pipeline.profile.nfe) == (10, 10)
    depth = pipeline(IMAGE, "depth", nfe=1, members=3)
    assert depth.uncertainty is not None
    assert depth.values.amin() >= 0 and depth.values.amax() <= 1
    one = [pipeline(IMAGE, "normals", nfe=1, members=1, seed=seed).values for seed in range(2)]
    assert not torch.equal(*one)


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_exported_is_imported_as_it_was(version: int, geowizard: Folder, tmp_path: Path):
    folder = geowizard(version)
    pipeline = opened(folder, tmp_path / "run", "object" if version == 1 else None)
    notes = export_folder(checkpoint.read(tmp_path / "run"), tmp_path / "back")
    assert notes == [] if version == 1 else "put its text_encoder/ and tokenizer/" in notes[0]
    again = opened(tmp_path / "back", tmp_path / "again")
    assert again.profile == pipeline.profile and again.config.tasks == pipeline.config.tasks
    for task in ("depth", "normals"):
        ours, theirs = (
            one.at(32)(IMAGE, task, nfe=1, members=1).values for one in (pipeline, again)
        )
        assert torch.equal(ours, theirs)
    files = ["unet/diffusion_pytorch_model"] + ["image_encoder/model"] * (version == 1)
    for file in files:
        before, after = (
            load_file(one / f"{file}.safetensors") for one in (folder, tmp_path / "back")
        )
        assert before.keys() == after.keys()
        assert all(torch.equal(after[name], value) for name, value in before.items())
    with pytest.raises(UserError, match="was exported for"):
        import_published(tmp_path / "back", Wishes(domain="outdoor"))


def test_the_kind_of_picture_is_said_or_assumed(geowizard: Folder):
    folder = geowizard()
    silent, said = (import_published(folder, Wishes(domain=one)) for one in (None, "indoor"))
    assert "pictures are indoor (--domain outdoor or object)" in silent.assumed
    assert not any("--domain" in one for one in said.assumed)
    assert torch.equal(silent.weights["switch"], said.weights["switch"])
    outdoor = import_published(folder, Wishes(domain="outdoor"))
    assert not torch.equal(outdoor.weights["switch"], said.weights["switch"])
    with pytest.raises(UserError, match=r"--domain indor: unknown. Did you mean 'indoor'"):
        import_published(folder, Wishes(domain="indor"))


def test_words_fall_into_the_tokens_that_pairs_make(geowizard: Folder):
    ranks = {("a", "b"): 1, ("b", "a"): 0, ("ba", "b</w>"): 2, ("a", "ba"): 3}
    assert split_word("abab", ranks) == ["a", "bab</w>"]
    assert split_word("aba", {}) == ["a", "b", "a</w>"]
    folder = geowizard(2)
    assert prompt_of(folder, ("indoor", "geometry")).shape == (1, 4, 16)
    assert prompt_of(folder, ("object", "geometry")).shape == (1, 9, 16)  # in six letters


@pytest.mark.parametrize(
    ("file", "changes", "said"),
    [
        ("model_index.json", {"steps": 3}, "steps is 3"),
        ("image_encoder/config.json", {"pooling": "mean"}, "pooling is 'mean'"),
        ("image_encoder/config.json", {"hidden_act": "relu"}, "hidden_act relu"),
        ("feature_extractor/preprocessor_config.json", {"do_pad": True}, "do_pad is True"),
        (
            "feature_extractor/preprocessor_config.json",
            {"crop_size": {"height": 8, "width": 8}},
            "sees squares of 16 pixels",
        ),
        ("feature_extractor/preprocessor_config.json", {"image_std": [1, 0, 1]}, "image_std are"),
        ("feature_extractor/preprocessor_config.json", {"image_mean": "x"}, "not as those of"),
        ("unet/config.json", {"class_embed_type": None}, "is told by 'projection' of 10 numbers"),
    ],
)
def test_files_that_say_something_else_are_refused(
    file: str, changes: dict[str, Any], said: str, geowizard: Folder
):
    folder = geowizard()
    rewrite(folder / file, **changes)
    with pytest.raises(UserError, match=said):
        import_published(folder)


@pytest.mark.parametrize(
    ("version", "file"),
    [
        (1, "image_encoder/config.json"),
        (1, "image_encoder/model.safetensors"),
        (2, "text_encoder/config.json"),
        (2, "tokenizer/merges.txt"),
    ],
)
def test_a_part_that_is_missing_is_named(version: int, file: str, geowizard: Folder):
    folder = geowizard(version)
    (folder / file).unlink()
    with pytest.raises(UserError, match=file.partition("/")[0]):
        import_published(folder)
