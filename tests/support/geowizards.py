"""Tiny GeoWizards with random weights in the published layout: with CLIP's image encoder, or with
its text encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from publishing import WIDTH, publish
from safetensors.torch import save_file

from stepsight.conversion.vision import described, to_transformers
from stepsight.models.vision import MEAN, STD, ImageEncoder

VISION: dict[str, Any] = {"size": 16, "patch": 8, "width": 12, "depth": 1, "heads": 2, "hidden": 24}
WORDS = ("in", "do", "or</w>", "indoor</w>", "geometry</w>")  # what pairs of tokens make
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def _write(file: Path, values: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(values))


def add_eyes(folder: Path) -> None:
    """image_encoder/ and feature_extractor/, as transformers writes them."""
    encoder = ImageEncoder(**VISION, embedding=WIDTH)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    weights = to_transformers(encoder.net.state_dict())
    assert described(encoder.net.state_dict(), heads=2)["size"] == 16
    config = {
        "architectures": ["CLIPVisionModelWithProjection"],
        "hidden_act": "quick_gelu",
        "hidden_size": 12,
        "image_size": 16,
        "num_attention_heads": 2,
        "projection_dim": WIDTH,
    }
    _write(folder / "image_encoder/config.json", config)
    save_file(weights, folder / "image_encoder/model.safetensors")
    seen = {"crop_size": {"height": 16, "width": 16}, "image_mean": MEAN, "image_std": STD}
    _write(folder / "feature_extractor/preprocessor_config.json", {**seen, "do_resize": True})


def add_words(folder: Path) -> None:
    """text_encoder/ and tokenizer/: "indoor" and "geometry" are whole, other words fall apart."""
    ends = [f"{letter}</w>" for letter in LETTERS]
    tokens = [*LETTERS, *ends, *WORDS, "<|startoftext|>", "<|endoftext|>"]
    _write(folder / "tokenizer/vocab.json", {token: i for i, token in enumerate(tokens)})
    merges = ["i n", "d o", "o r</w>", "do or</w>", "in door</w>"]
    spelt = "geometry"
    merges += [f"{spelt[:i]} {spelt[i]}" for i in range(1, 7)] + ["geometr y</w>"]
    (folder / "tokenizer/merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    shapes = {
        "embeddings.token_embedding.weight": (len(tokens), WIDTH),
        "embeddings.position_embedding.weight": (20, WIDTH),
        "final_layer_norm.weight": (WIDTH,),
        "final_layer_norm.bias": (WIDTH,),
    }
    weights = {f"text_model.{name}": torch.randn(shape) for name, shape in shapes.items()}
    config = {"num_attention_heads": 2, "num_hidden_layers": 0, "hidden_act": "gelu"}
    _write(folder / "text_encoder/config.json", config)
    save_file(weights, folder / "text_encoder/model.safetensors")


def geowizard(path: Path, version: int) -> Path:
    """Version 1 or 2."""
    parts = {1: ("image_encoder", "feature_extractor"), 2: ("text_encoder", "tokenizer")}
    index: dict[str, Any] = {"_class_name": "DepthNormalEstimationPipeline"}
    index |= {part: ["transformers", "CLIP"] for part in parts[version]}
    numbers = {1: 10, 2: 4}[version]
    told = {
        "class_embed_type": "projection",
        "projection_class_embeddings_input_dim": numbers,
        "in_channels": 8,
    }
    folder = publish(path, index, told)
    (add_eyes if version == 1 else add_words)(folder)
    return folder
