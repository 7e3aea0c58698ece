"""CLIP's image encoder from weights in both published layouts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.conversion.vision import described, from_openai, from_transformers, to_transformers
from stepsight.errors import UserError
from stepsight.models.vision import MEAN, STD, ImageEncoder

WIDTH, HIDDEN, DEPTH, HEADS, EMBEDDING, SIDE, PATCH = 64, 96, 2, 2, 24, 32, 8
LAYER = "vision_model.encoder.layers.{}"


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    """Random weights in transformers' layout."""
    torch.manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {
        "vision_model.embeddings.class_embedding": (WIDTH,),
        "vision_model.embeddings.position_embedding.weight": (1 + (SIDE // PATCH) ** 2, WIDTH),
        "vision_model.embeddings.patch_embedding.weight": (WIDTH, 3, PATCH, PATCH),
        "visual_projection.weight": (EMBEDDING, WIDTH),
    }
    norms = ["vision_model.pre_layrnorm", "vision_model.post_layernorm"]
    linear = {}
    for layer in map(LAYER.format, range(DEPTH)):
        norms += [f"{layer}.layer_norm1", f"{layer}.layer_norm2"]
        linear |= {f"{layer}.self_attn.{x}_proj": (WIDTH, WIDTH) for x in ("q", "k", "v", "out")}
        linear |= {f"{layer}.mlp.fc1": (HIDDEN, WIDTH), f"{layer}.mlp.fc2": (WIDTH, HIDDEN)}
    for name in norms:
        shapes |= {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return {name: torch.randn(shape) * 0.3 for name, shape in shapes.items()}


def _answer(weights: dict[str, Tensor], square: Tensor) -> Tensor:
    """CLIP's image encoder, written down once more with torch's own attention."""

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (WIDTH,), weights[f"{name}.weight"], weights[f"{name}.bias"])

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    kernel = weights["vision_model.embeddings.patch_embedding.weight"]
    x = F.conv2d(square, kernel, stride=PATCH).flatten(2).mT
    first = weights["vision_model.embeddings.class_embedding"].expand(len(x), 1, -1)
    x = torch.cat([first, x], 1) + weights["vision_model.embeddings.position_embedding.weight"]
    x = norm(x, "vision_model.pre_layrnorm")
    for layer in map(LAYER.format, range(DEPTH)):
        attention = torch.nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        parts = [f"{layer}.self_attn.{one}_proj" for one in "qkv"]
        attention.load_state_dict(
            {
                "in_proj_weight": torch.cat([weights[f"{part}.weight"] for part in parts]),
                "in_proj_bias": torch.cat([weights[f"{part}.bias"] for part in parts]),
                "out_proj.weight": weights[f"{layer}.self_attn.out_proj.weight"],
                "out_proj.bias": weights[f"{layer}.self_attn.out_proj.bias"],
            }
        )
        y = norm(x, f"{layer}.layer_norm1")
        x = x + attention(y, y, y)[0]
        y = linear(norm(x, f"{layer}.layer_norm2"), f"{layer}.mlp.fc1")
        x = x + linear(y * torch.sigmoid(1.702 * y), f"{layer}.mlp.fc2")
    return norm(x[:, 0], "vision_model.post_layernorm") @ weights["visual_projection.weight"].T


def _openai(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights as OpenAI names and lays them out."""
    table = {
        "vision_model.embeddings.class_embedding": "class_embedding",
        "vision_model.embeddings.position_embedding.weight": "positional_embedding",
        "vision_model.embeddings.patch_embedding.weight": "conv1.weight",
    }
    made = {ours: published[name] for name, ours in table.items()}
    made["proj"] = published["visual_projection.weight"].T
    for part in ("weight", "bias"):
        made[f"ln_pre.{part}"] = published[f"vision_model.pre_layrnorm.{part}"]
        made[f"ln_post.{part}"] = published[f"vision_model.post_layernorm.{part}"]
        for layer in range(2):
            old, new = f"vision_model.encoder.layers.{layer}", f"transformer.resblocks.{layer}"
            qkv = [published[f"{old}.self_attn.{one}_proj.{part}"] for one in "qkv"]
            made[f"{new}.attn.in_proj_{part}"] = torch.cat(qkv)
            made[f"{new}.attn.out_proj.{part}"] = published[f"{old}.self_attn.out_proj.{part}"]
            made[f"{new}.ln_1.{part}"] = published[f"{old}.layer_norm1.{part}"]
            made[f"{new}.ln_2.{part}"] = published[f"{old}.layer_norm2.{part}"]
            made[f"{new}.mlp.c_fc.{part}"] = published[f"{old}.mlp.fc1.{part}"]
            made[f"{new}.mlp.c_proj.{part}"] = published[f"{old}.mlp.fc2.{part}"]
    return made


@pytest.mark.parametrize("squaring", ["antialiased", "corners"])
@pytest.mark.parametrize("layout", ["transformers", "openai"])
def test_it_answers_as_clip_does(published: dict[str, Tensor], layout: str, squaring: str):
    weights = from_transformers(published)
    if layout == "openai":
        weights = from_openai(_openai(published))
    ours = ImageEncoder.of({**described(weights, HEADS), "squaring": squaring}).eval()
    ours.net.load_state_dict(weights)
    picture = torch.rand(2, 3, 40, 28) * 2 - 1

    corners = squaring == "corners"
    square = F.interpolate(
        (picture + 1) / 2,
        (SIDE, SIDE),
        mode="bicubic",
        align_corners=corners,
        antialias=not corners,
    )
    mean, std = (torch.tensor(part)[:, None, None] for part in (MEAN, STD))
    with torch.no_grad():
        expected = _answer(published, (square - mean) / std)
        torch.testing.assert_close(ours(picture), expected, rtol=1e-4, atol=1e-4)


def test_weights_go_back_to_the_layout_they_came_from(published: dict[str, Tensor]):
    back = to_transformers(from_transformers(published))
    assert back.keys() == published.keys()
    assert all(torch.equal(back[name], value) for name, value in published.items())


def test_weights_of_something_else_are_refused():
    with pytest.raises(UserError, match="lacks pos_embed"):
        described({"a": torch.zeros(1)})
    with pytest.raises(UserError, match="vision is"):
        ImageEncoder.of({"size": 32, "colour": "red"})
