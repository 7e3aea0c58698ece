"""pix2gestalt's file: answers by hand with diffusers' modules, refusals, and the way back."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import member_noise
from latent_diffusion import PARAMS, SIDE, SIZES, network, pix2gestalt, vae
from torch import Tensor

from stepsight import checkpoint
from stepsight.conversion.families.ldm_export import export_ldm
from stepsight.conversion.foreign import read_tensors
from stepsight.conversion.importing import import_published
from stepsight.conversion.vision import described
from stepsight.conversion.write import write
from stepsight.diffusion.objective import Diffusion
from stepsight.errors import UserError
from stepsight.evaluation.records import forward_flops
from stepsight.execution.noise import normal
from stepsight.pipeline.dense import DensePipeline
from stepsight.pipeline.inputs import content_keys
from stepsight.training.dense.checks import check_network
from stepsight.types import Batch

ALPHA_BAR = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pix2gestalt(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def pipeline(file: Path, tmp_path_factory: pytest.TempPathFactory) -> DensePipeline:
    run = tmp_path_factory.mktemp("run") / "run"
    write(import_published(file), run)
    return DensePipeline.from_pretrained(run)


def batch(height: int = SIDE, width: int = SIDE) -> Batch:
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))
    modal = torch.zeros(1, 1, height, width, dtype=torch.bool)
    modal[..., height // 4 : height // 2, width // 4 :] = True
    return Batch(2 * image - 1, keys=["one"], sources=["test"], modal=modal)


@torch.no_grad()
def by_hand(pipeline: DensePipeline, seen: Batch, draws: list[Tensor], scale: float) -> Tensor:
    """The picture "3 h w" of one member, by DDIM with eta 1 through levels 501, 251 and 1, from and
    with `draws`."""
    assert seen.modal is not None
    unet, codec = network(12), vae(block_out_channels=(32,) * 4, norm_num_groups=32)
    images = [seen.image, (2 * seen.modal.float() - 1).expand_as(seen.image)]
    latents = torch.cat([codec.encode(image).latent_dist.mean for image in images], dim=1)
    projection = pipeline.net.projection
    token = projection(pipeline.net.vision(seen.image))[:, None]  # type: ignore[operator]
    x = draws[0]
    for level, before, noise in zip((501, 251, 1), (251, 1, 0), draws[1:]):
        given = [
            unet(torch.cat([x, share * latents], 1), level, encoder_hidden_states=share * token)
            for share in (1, 0)
        ]
        labelled, bare = (answer.sample for answer in given)
        eps = bare + scale * (labelled - bare)
        here, there = ALPHA_BAR[level], ALPHA_BAR[before]
        x0 = (x - math.sqrt(1 - here) * eps) / math.sqrt(here)
        fresh = math.sqrt((1 - there) / (1 - here) * (1 - here / there))
        x = math.sqrt(there) * x0 + math.sqrt(1 - there - fresh**2) * eps + fresh * noise
    return codec.decode(x / 0.18215).sample[0]


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_answers_are_those_of_its_code(pipeline: DensePipeline, scale: float):
    seen, shape = batch(), (4, SIDE // 8, SIDE // 8)
    (key,) = content_keys(seen.image)
    rows = [torch.tensor([[key, 0, draw]]) for draw in range(4)]
    draws = [normal(("sample", 0), row, shape) for row in rows]
    assert torch.equal(draws[0], member_noise(shape, content_keys(seen.image), range(1)))
    theirs = by_hand(pipeline, seen, draws, scale)
    asked = pipeline.sampling(guidance=scale)
    ours = asked.sample(seen, "amodal", nfe=3, members=1, seed=0)[0, 0]
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


def test_what_no_file_says(file: Path):
    converted = import_published(file)
    d, profile = converted.config.diffusion, converted.profile
    assert converted.family == "pix2gestalt" and len(converted.assumed) == 5
    assert (d.sampler, d.eta, d.guidance, d.prediction) == ("ddim", 1.0, 2.0, "eps")
    assert profile is not None
    assert (profile.fit, profile.resolution, profile.nfe) == ("square", SIDE, 199)
    assert [step.condition for step in Diffusion(d).steps(3)] == [501, 251, 1]
    assert [step.condition for step in Diffusion(d).steps(199)][:2] == [991, 986]


def test_pictures_of_any_shape_are_squashed_and_come_back(pipeline: DensePipeline):
    assert pipeline.working_size("amodal", (50, 90)) == (SIDE, SIDE)
    prediction = pipeline.predict(batch(50, 90), "amodal", nfe=1, members=2)
    assert prediction.values.shape == (1, 1, 50, 90)
    assert ((prediction.values > -1e-5) & (prediction.values < 1 + 1e-5)).all()


def test_the_picture_and_the_mask_both_count(pipeline: DensePipeline):
    one, other, how = batch(), batch(), {"nfe": 1, "members": 1}
    assert other.modal is not None
    other.modal = ~other.modal
    with_one, with_other = (pipeline.sample(x, "amodal", **how) for x in (one, other))  # type: ignore[arg-type]
    assert (with_one - with_other).abs().max() > 1e-3
    token = pipeline.net.encode(torch.zeros(1, 8, 8, 8), torch.zeros(1), picture=one.image)[1]  # type: ignore[operator]
    flipped = pipeline.net.encode(torch.zeros(1, 8, 8, 8), torch.zeros(1), picture=-one.image)[1]  # type: ignore[operator]
    assert (token - flipped).abs().max() > 1e-3


def test_its_cost_is_known_and_it_is_not_trained(pipeline: DensePipeline):
    assert forward_flops(pipeline, "amodal") > 0
    with pytest.raises(UserError, match="told what CLIP sees"):
        check_network(pipeline.net)


def test_exported_and_imported_again_it_is_the_same(file: Path, tmp_path: Path):
    first = import_published(file)
    write(first, tmp_path / "run")
    saved = checkpoint.read(tmp_path / "run")
    export_ldm(saved, tmp_path / "out")
    again = import_published(tmp_path / "out" / "pix2gestalt.ckpt")
    assert again.weights.keys() == first.weights.keys()
    assert all(torch.equal(again.weights[name], x) for name, x in first.weights.items())
    assert again.codec is not None and again.codec.name == saved.meta["codec"]
    assert (again.config, again.profile) == (first.config, first.profile)
    theirs = read_tensors(file).tensors
    ours = read_tensors(tmp_path / "out" / "pix2gestalt.ckpt").tensors
    left = {"betas", "model_ema.num_updates", "cond_stage_model.model.logit_scale"}
    assert ours.keys() == theirs.keys() - left


WRONG = {
    "scale_factor": ({"scale_factor": None}, "lacks scale_factor"),
    "a new key": ({"use_ema": False}, "use_ema is False, which means nothing"),
    "another condition": ({"conditioning_key": "concat"}, "conditioning_key is 'concat'"),
    "other sizes": (
        {"unet_config": {"params": {**SIZES, "in_channels": 12, "model_channels": 64}}},
        "should be",
    ),
    "other latents": (
        {
            "first_stage_config": {
                "params": {**PARAMS["first_stage_config"]["params"], "embed_dim": 3}
            }
        },
        "embed_dim is not z_channels",
    ),
    "a new weight": ({"more": {"control.weight": torch.ones(1)}}, "control.weight is unexpected"),
    "no average": (
        {"more": {"model.diffusion_model.new.weight": torch.ones(1)}},
        "no average model_ema.diffusion_modelnewweight",
    ),
    "a new VAE weight": ({"more": {"first_stage_model.loss.x": torch.ones(1)}}, "are unknown"),
}


@pytest.mark.parametrize("case", WRONG)
def test_other_files_are_refused(tmp_path: Path, case: str):
    changes, said = WRONG[case]
    with pytest.raises(UserError) as caught:
        import_published(pix2gestalt(tmp_path, **changes))
    assert said in str(caught.value), str(caught.value)


def test_its_yaml_has_to_lie_beside_it(tmp_path: Path):
    file = pix2gestalt(tmp_path)
    (tmp_path / "other.yaml").write_text("{}")
    with pytest.raises(UserError, match="there is other.yaml, pix2gestalt.yaml"):
        import_published(file)
    (tmp_path / "pix2gestalt.yaml").unlink()
    with pytest.raises(UserError, match="no model of latent diffusion"):
        import_published(file)


@pytest.mark.parametrize("tokens", [1, 4])
def test_an_image_encoder_sees_squares(tokens: int):
    shapes = {"patch_embed.proj.weight": (8, 3, 4, 4), "head.weight": (8, 8)}
    weights = {name: torch.zeros(shape) for name, shape in shapes.items()}
    with pytest.raises(UserError, match=f"a square, not {tokens - 1} patches"):
        described({**weights, "pos_embed": torch.zeros(1, tokens, 8)})
