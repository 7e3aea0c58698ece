"""DepthFM's file: answers by hand with diffusers' modules, refusals, and the way back."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn import member_noise
from latent_diffusion import SIZES, depthfm, network, published, vae
from torch import Tensor

from stepsight import checkpoint
from stepsight.conversion.dit import Wishes
from stepsight.conversion.families import ldm
from stepsight.conversion.families.export import export_folder
from stepsight.conversion.families.ldm_export import export_ldm
from stepsight.conversion.importing import import_published
from stepsight.conversion.write import write
from stepsight.diffusion.config import DiffusionSettings
from stepsight.diffusion.objective import Diffusion
from stepsight.errors import UserError
from stepsight.pipeline.dense import DensePipeline
from stepsight.pipeline.inputs import content_keys
from stepsight.training.dense.checks import check_objective
from stepsight.types import Batch

HEIGHT, WIDTH = 64, 128
PLACES = HEIGHT * WIDTH // 16**2  # that self-attention reads, at the second level


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return depthfm(tmp_path)


def opened(file: Path, out: Path) -> DensePipeline:
    write(import_published(file), out)
    return DensePipeline.from_pretrained(out)


def picture(height: int = HEIGHT, width: int = WIDTH) -> Batch:
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))
    return Batch((image * 255).round() / 127.5 - 1, keys=["one"], sources=["test"])


@torch.no_grad()
def by_hand(file: Path, image: Tensor, noise: Tensor, steps: int) -> Tensor:
    """Members "e h w" of the log depth, as published."""
    unet, codec = network(8), vae()
    for name, module in unet.named_modules():
        if name.endswith("attn1.to_q"):
            module.weight *= math.sqrt(math.log(PLACES) / math.log(4 * PLACES))
    prompt = torch.from_numpy(torch.load(file, weights_only=False)["empty_text_embedding"])
    latent = codec.encode(image).latent_dist.mean * 0.18215
    share = 1 / (1 + (math.tan(math.pi / 2 * 0.4) + 1e-5) ** 2)
    x = math.sqrt(share) * latent + math.sqrt(1 - share) * noise
    for step in range(steps):
        seen = torch.cat([x, latent.expand_as(x)], dim=1)
        text = prompt.expand(len(x), -1, -1)
        x = x + unet(seen, step / steps, encoder_hidden_states=text).sample / steps
    return codec.decode(x / 0.18215).sample.mean(dim=1)


@pytest.mark.parametrize("steps, members", [(1, 1), (3, 2)])
def test_answers_are_those_of_its_code(file: Path, tmp_path: Path, steps: int, members: int):
    pipeline, batch = opened(file, tmp_path / "run"), picture()
    shape = 4, HEIGHT // 8, WIDTH // 8
    noise = member_noise(shape, content_keys(batch.image), range(members), 5)
    theirs = by_hand(file, batch.image, noise, steps)
    ours = pipeline.sample(batch, "depth", nfe=steps, members=members, seed=5)[:, 0, 0]
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()

    depth = theirs.mean(dim=0).exp()
    stretched = (depth - depth.min()) / (depth.max() - depth.min())
    values = pipeline.predict(batch, "depth", nfe=steps, members=members, seed=5).values[0, 0]
    low, high = math.exp(-1), math.e
    assert ((values - low) / (high - low) - stretched).abs().max() < 1e-4


def test_without_noise_paths_lead_from_the_share_of_the_picture(file: Path, tmp_path: Path):
    pipeline, batch = opened(file, tmp_path / "run"), picture()
    still = pipeline.sampling(temperature=0)
    ours = still.sample(batch, "depth", nfe=2, members=1)[:, 0, 0]
    theirs = by_hand(file, batch.image, torch.zeros(1, 4, HEIGHT // 8, WIDTH // 8), 2)
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()
    noisy = pipeline.sample(batch, "depth", nfe=2, members=1)[:, 0, 0]
    assert (noisy - theirs).abs().max() > 1e-2


def test_what_no_file_says(file: Path):
    converted = import_published(file)
    d, profile = converted.config.diffusion, converted.profile
    assert converted.family == "depthfm" and len(converted.assumed) == 4
    assert (d.schedule, d.sampler, d.prediction) == ("rectified_flow", "euler", "v")
    assert d.picture == pytest.approx(math.cos(math.pi / 5), abs=1e-5)
    assert profile is not None and (profile.nfe, profile.members) == (2, 4)
    assert [step.condition for step in Diffusion(d).steps(4)] == [1000, 750, 500, 250]


@pytest.mark.parametrize(
    ("size", "seen"),
    [((47, 155), (64, 128)), ((72, 60), (64, 64)), ((352, 1216), (384, 1216))],
)
def test_sides_are_multiples_of_64(file: Path, tmp_path: Path, size, seen):
    pipeline = opened(file, tmp_path / "run")
    assert pipeline.working_size("depth", size) == seen
    with pytest.raises(UserError, match="31x40 pixels is too narrow"):
        pipeline.working_size("depth", (31, 40))


def test_predictions_return_to_the_picture_s_grid(file: Path, tmp_path: Path):
    pipeline = opened(file, tmp_path / "run")
    values = pipeline.predict(picture(50, 90), "depth", nfe=1, members=1).values
    assert values.shape == (1, 1, 50, 90) and values.isfinite().all()
    assert math.exp(-1) - 1e-6 <= values.min() < values.max() <= math.e + 1e-6


def test_exported_and_imported_again_it_is_the_same(file: Path, tmp_path: Path):
    write(import_published(file), tmp_path / "run")
    saved = checkpoint.read(tmp_path / "run")
    with pytest.raises(UserError, match="exported with --format ldm"):
        export_folder(saved, tmp_path / "folder")
    export_ldm(saved, tmp_path / "out")
    theirs, ours = (torch.load(f, weights_only=False) for f in (file, tmp_path / "out" / file.name))
    assert ours.keys() == theirs.keys() and ours["ldm_hparams"] == theirs["ldm_hparams"]
    assert (ours["empty_text_embedding"] == theirs["empty_text_embedding"]).all()
    assert ours["state_dict"].keys() == theirs["state_dict"].keys()
    assert all(torch.equal(ours["state_dict"][n], x) for n, x in theirs["state_dict"].items())
    again = import_published(tmp_path / "out" / file.name)
    assert again.codec is not None and again.codec.name == saved.meta["codec"]
    first = import_published(file)
    assert again.weights.keys() == first.weights.keys()
    assert all(torch.equal(again.weights[name], x) for name, x in first.weights.items())


def test_the_vae_may_lie_elsewhere(file: Path, tmp_path: Path):
    folder = file.parent / "stable-diffusion-v1-5"
    folder.rename(tmp_path / "elsewhere")
    found = import_published(file)
    assert found.codec is None and "no VAE" in found.notes[-1]
    named = import_published(file, Wishes(vae=tmp_path / "elsewhere" / "vae"))
    assert named.codec is not None and "no VAE" not in named.notes[-1]


def test_heads_may_be_given_by_their_width():
    given = {**SIZES, "in_channels": 8, "num_heads": -1, "num_head_channels": 16}
    config = ldm.unet_config({**given, "use_linear_in_transformer": True}, "here")
    assert config["attention_head_dim"] == [2, 4] and config["use_linear_projection"]
    with pytest.raises(UserError, match="neither num_heads nor"):
        ldm.unet_config({**given, "num_head_channels": -1}, "here")


def hparams(**changes: Any) -> dict[str, Any]:
    return {"ldm_hparams": {**SIZES, "in_channels": 8, **changes}}


def weights(change: Callable[[dict[str, Tensor]], object]) -> dict[str, Any]:
    found = published(network(8))
    change(found)
    return {"state_dict": found}


WRONG: list[tuple[Callable[[], dict[str, Any]], str]] = [
    (lambda: {"noising_step": None}, "has no noising_step"),
    (lambda: {"noising_step": 0}, "noising_step is 0"),
    (lambda: {"temperature": 1.0}, "temperature means nothing"),
    (lambda: {"empty_text_embedding": torch.zeros(1, 2, 16)}, "empty_text_embedding is no array"),
    (lambda: hparams(num_classes=10), "num_classes is 10; only None"),
    (lambda: hparams(surprise=8), "surprise is 8, which means nothing"),
    (lambda: hparams(num_res_blocks=[1, 1]), "num_res_blocks is"),
    (lambda: hparams(out_channels=8), "out_channels is not 4"),
    (lambda: hparams(channel_mult=[1, 3]), "should be"),
    (lambda: weights(lambda w: w.pop("out.2.bias")), "unet.conv_out.bias is missing"),
    (lambda: weights(lambda w: w.pop("output_blocks.1.2.conv.bias")), "conv.bias' is missing"),
    (lambda: weights(lambda w: w.pop("input_blocks.2.0.op.bias")), "0.conv.bias is missing"),
    (lambda: weights(lambda w: w.update(label_emb=torch.ones(1))), "label_emb"),
]


@pytest.mark.parametrize("entries, said", WRONG, ids=[said for _, said in WRONG])
def test_other_files_are_refused(tmp_path: Path, entries, said: str):
    file = depthfm(tmp_path, **entries())
    with pytest.raises(UserError) as caught:
        import_published(file)
    assert said in str(caught.value), str(caught.value)


def test_it_is_not_trained(file: Path):
    with pytest.raises(UserError, match="diffusion.picture .* training starts from noise alone"):
        check_objective(import_published(file).config, begun=True)


@pytest.mark.parametrize("size", [(63, 64), (64, 0)])
def test_a_size_that_its_latents_do_not_have_is_refused(file: Path, size: tuple[int, int]):
    with pytest.raises(UserError, match="--size: .* is not a multiple of"):
        import_published(file, Wishes(size=size))


@pytest.mark.parametrize(
    "settings", [{"picture": 1.0}, {"picture": 0.5, "schedule": "linear", "sampling_shift": 1.0}]
)
def test_paths_from_pictures_are_straight_and_noisy(settings: dict[str, Any]):
    with pytest.raises(UserError, match="diffusion.picture"):
        Diffusion(DiffusionSettings(**settings))
