"""The embedding of the empty prompt, under which Stable Diffusion's U-Nets are fine-tuned.

It is the answer of CLIP's text encoder (Radford et al. 2021, section 2.4; the layout is that of
transformers' `CLIPTextModel`) to two tokens, begin and end, without padding: what Marigold feeds.
That is little enough to be computed here, so nothing of transformers is needed.

Shapes: n = 2 tokens, d their width, h heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from stepsight.conversion.folders import CONFIG, read_json, read_part
from stepsight.errors import DataFormatError, UserError

STORED, NAME = "empty_text_embedding.safetensors", "empty_text_embedding"
FILES = ("model.safetensors", "pytorch_model.bin")
EMPTY = ("<|startoftext|>", "<|endoftext|>")  # what CLIP's tokenizer makes of ""


def _quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x), of the original CLIP (Hendrycks & Gimpel 2016, section 2)."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "quick_gelu": _quick_gelu}


def empty_prompt(folder: Path) -> Tensor:
    """The embedding "1 n d" that a diffusers folder stores, or that its text encoder computes.

    Raises UserError if it has neither.
    """
    if (folder / STORED).is_file():
        stored = read_part(folder, STORED).tensors.get(NAME)
        if stored is None or stored.ndim != 3 or len(stored) != 1:
            raise DataFormatError(f"{folder / STORED}: must hold a tensor {NAME} of shape 1 n d.")
        return stored
    encoder, vocabulary = folder / "text_encoder", folder / "tokenizer" / "vocab.json"
    if not (encoder / CONFIG).is_file() or not vocabulary.is_file():
        raise UserError(
            f"{folder} needs text_encoder/ and tokenizer/vocab.json for the embedding of the "
            f"empty prompt, or that embedding as {STORED}: a tensor {NAME} of shape 1 2 d."
        )
    tokens = read_json(vocabulary)
    if not all(token in tokens for token in EMPTY):
        raise DataFormatError(f"{vocabulary}: has no {' and '.join(EMPTY)}; it is not CLIP's.")
    ids = torch.tensor([tokens[token] for token in EMPTY])
    weights = read_part(encoder, *FILES)
    try:
        return encode(read_json(encoder / CONFIG), weights.tensors, ids)[None]
    except KeyError as error:
        raise DataFormatError(f"{encoder}: not CLIP's text encoder, it lacks {error}.") from None


@torch.no_grad()
def encode(config: Mapping[str, Any], weights: Mapping[str, Tensor], ids: Tensor) -> Tensor:
    """Token ids "n" to their embeddings "n d", `last_hidden_state` of a `CLIPTextModel`."""
    weights = {name.removeprefix("text_model."): value for name, value in weights.items()}
    activation = ACTIVATIONS[config.get("hidden_act", "quick_gelu")]
    heads, eps = config["num_attention_heads"], config.get("layer_norm_eps", 1e-5)

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return F.layer_norm(x, x.shape[-1:], scale, shift, eps)

    def attention(x: Tensor, name: str) -> Tensor:
        parts = (linear(x, f"{name}.{part}_proj") for part in "qkv")
        q, k, v = (rearrange(part, "n (h d) -> 1 h n d", h=heads) for part in parts)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return linear(rearrange(mixed, "1 h n d -> n (h d)"), f"{name}.out_proj")

    x = weights["embeddings.token_embedding.weight"][ids]
    x = x + weights["embeddings.position_embedding.weight"][: len(ids)]
    for i in range(config["num_hidden_layers"]):
        block = f"encoder.layers.{i}"
        x = x + attention(norm(x, f"{block}.layer_norm1"), f"{block}.self_attn")
        hidden = activation(linear(norm(x, f"{block}.layer_norm2"), f"{block}.mlp.fc1"))
        x = x + linear(hidden, f"{block}.mlp.fc2")
    return norm(x, "final_layer_norm")
