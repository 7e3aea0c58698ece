"""The embeddings of prompts, mostly the empty one, under which Stable Diffusion's U-Nets are
fine-tuned.

It is the answer of CLIP's text encoder (Radford et al. 2021, section 2.4; the layout is that of
transformers' `CLIPTextModel`) to two tokens, begin and end, without padding: what Marigold feeds.
That is little enough to be computed here, so nothing of transformers is needed.

Shapes: n tokens, 2 of the empty prompt, d their width, h heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from stepsight.conversion.folders import CONFIG, read_json, read_part, refuse_unknown
from stepsight.errors import DataFormatError, UserError, suggest

STORED, NAME = "empty_text_embedding.safetensors", "empty_text_embedding"
FILES = ("model.safetensors", "pytorch_model.bin")
EMPTY = ("<|startoftext|>", "<|endoftext|>")  # what CLIP's tokenizer makes of ""

# Of the text encoder's configuration: what is read, what the shapes of its weights say as well
# (name and axis), and what changes nothing: settings of training, ids of tokens, which the
# vocabulary says, and the width of an embedding of whole texts, which nobody asks for.
READ = ("hidden_act", "num_attention_heads", "num_hidden_layers", "layer_norm_eps", "model_type")
SHAPES = {
    "vocab_size": ("embeddings.token_embedding.weight", 0),
    "hidden_size": ("embeddings.token_embedding.weight", 1),
    "max_position_embeddings": ("embeddings.position_embedding.weight", 0),
    "intermediate_size": ("encoder.layers.0.mlp.fc1.weight", 0),
}
IDLE = (
    *("attention_dropout", "dropout", "initializer_factor", "initializer_range"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "projection_dim"),
    *("architectures", "dtype", "torch_dtype", "transformers_version"),
)
MODEL = "clip_text_model"


def _quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x), of the original CLIP (Hendrycks & Gimpel 2016, section 2)."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "quick_gelu": _quick_gelu}


def empty_prompt(folder: Path) -> Tensor:
    """The embedding "1 n d" that a diffusers folder stores, or that its text encoder computes.

    Raises UserError if it has neither.
    """
    return stored_prompt(folder) if (folder / STORED).is_file() else prompt_of(folder)


def stored_prompt(folder: Path) -> Tensor:
    """The embedding "1 n d" that a folder stores."""
    stored = read_part(folder, STORED).tensors.get(NAME)
    if stored is None or stored.ndim != 3 or len(stored) != 1:
        raise DataFormatError(f"{folder / STORED}: must hold a tensor {NAME} of shape 1 n d.")
    return stored


def prompt_of(folder: Path, words: Sequence[str] = ()) -> Tensor:
    """The embedding "1 n d" of lower-case words, n of whose tokens begin and end.

    Raises UserError if the folder has no text encoder of CLIP.
    """
    encoder, vocabulary = folder / "text_encoder", folder / "tokenizer" / "vocab.json"
    if not (encoder / CONFIG).is_file() or not vocabulary.is_file():
        asked = " ".join(words)
        stored = f", or that embedding as {STORED}: a tensor {NAME} of shape 1 2 d"
        raise UserError(
            f"{folder} needs text_encoder/ and tokenizer/vocab.json for the embedding of "
            f"{repr(asked) if words else 'the empty prompt'}{'' if words else stored}."
        )
    tokens = read_json(vocabulary)
    if not all(token in tokens for token in EMPTY):
        raise DataFormatError(f"{vocabulary}: has no {' and '.join(EMPTY)}; it is not CLIP's.")
    ranks = _ranks(folder / "tokenizer" / "merges.txt") if words else {}
    parts = [part for word in words for part in split_word(word, ranks)]
    if missing := [part for part in parts if part not in tokens]:
        raise DataFormatError(f"{vocabulary}: has no {', '.join(missing)}; it is not CLIP's.")
    ids = torch.tensor([tokens[token] for token in (EMPTY[0], *parts, EMPTY[1])])
    config, weights = read_json(encoder / CONFIG), read_part(encoder, *FILES).tensors
    weights = {name.removeprefix("text_model."): value for name, value in weights.items()}
    _check(config, weights, encoder / CONFIG)
    try:
        return encode(config, weights, ids)[None]
    except KeyError as error:
        raise DataFormatError(f"{encoder}: not CLIP's text encoder, it lacks {error}.") from None


def _check(config: Mapping[str, Any], weights: Mapping[str, Tensor], where: Path) -> None:
    """Raise UserError for a configuration of another encoder than `encode` is, or of other weights
    than these."""
    refuse_unknown(config, (*READ, *SHAPES, *IDLE), where)
    layers = {name.split(".")[2] for name in weights if name.startswith("encoder.layers.")}
    told = {"model_type": MODEL, "num_hidden_layers": len(layers)}
    told |= {
        key: weights[name].shape[axis] for key, (name, axis) in SHAPES.items() if name in weights
    }
    for key, value in told.items():
        if config.get(key, value) != value:
            raise UserError(f"{where}: {key} is {config[key]!r}, but has to be {value!r} here.")
    act = config.get("hidden_act", "quick_gelu")
    if act not in ACTIVATIONS:
        raise UserError(f"{where}: hidden_act is {act!r}.{suggest(str(act), ACTIVATIONS)}")


def _ranks(merges: Path) -> dict[tuple[str, str], int]:
    """Pairs that are joined, the earliest first, after a line that says the version."""
    try:
        lines = merges.read_text(encoding="utf-8").splitlines()[1:]
    except OSError as error:
        raise DataFormatError(f"{merges}: cannot be read ({error.strerror}).") from None
    pairs = [tuple(line.split()) for line in lines]
    return {pair: rank for rank, pair in enumerate(pairs) if len(pair) == 2}


def split_word(word: str, ranks: Mapping[tuple[str, str], int]) -> list[str]:
    """The tokens of a word by byte-pair encoding (Sennrich et al. 2016): of its letters, the last
    one marked, that pair is joined again and again which has the lowest rank."""
    parts = [*word[:-1], f"{word[-1]}</w>"]
    while known := [pair for pair in pairwise(parts) if pair in ranks]:
        joined = min(known, key=ranks.__getitem__)
        rest, parts = parts, []
        while rest:
            size = 2 if tuple(rest[:2]) == joined else 1
            parts.append("".join(rest[:size]))
            rest = rest[size:]
    return parts


@torch.no_grad()
def encode(config: Mapping[str, Any], weights: Mapping[str, Tensor], ids: Tensor) -> Tensor:
    """Token ids "n" to their embeddings "n d", `last_hidden_state` of a `CLIPTextModel` of these
    weights, named without "text_model."."""
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
