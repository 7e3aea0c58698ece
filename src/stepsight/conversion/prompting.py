"""A text encoder and a tokenizer, in transformers' layout, that know the empty prompt alone.

Pipelines of diffusers that are never prompted, Marigold's, still ask a text encoder for the empty
prompt when they are first called, and do not open without one. No run keeps CLIP for that: it keeps
what CLIP answered, "1 n d". A GPT without layers (transformers' `OpenAIGPTModel`) answers its table
of positions, to which that of its one token adds zeros: with the n embeddings in that table, it
answers them bit for bit.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

ENCODER, TOKENIZER = "text_encoder", "tokenizer"
CLASSES = {  # of model_index.json
    ENCODER: ["transformers", "OpenAIGPTModel"],
    TOKENIZER: ["transformers", "PreTrainedTokenizerFast"],
}
TOKEN = "<empty>"


def write_prompting(embedding: Tensor, out: Path) -> None:
    """Write `out/text_encoder` and `out/tokenizer`, which make `embedding` "1 n d" of any text."""
    _, tokens, width = embedding.shape
    for name in CLASSES:
        (out / name).mkdir(parents=True, exist_ok=True)
    tables = {
        "positions_embed.weight": embedding[0].float().contiguous(),
        "tokens_embed.weight": torch.zeros(1, width),
    }
    save_file(tables, out / ENCODER / "model.safetensors", metadata={"format": "pt"})
    encoder = {"architectures": ["OpenAIGPTModel"], "model_type": "openai-gpt", "dtype": "float32"}
    encoder |= {"n_layer": 0, "n_head": 1, "n_embd": width, "n_positions": tokens, "vocab_size": 1}
    _write(out / ENCODER / "config.json", encoder)
    said = {"id": TOKEN, "ids": [0], "tokens": [TOKEN]}
    whole = {"SpecialToken": {"id": TOKEN, "type_id": 0}}
    parts = [{"Sequence": {"id": letter, "type_id": 0}} for letter in "AB"]
    template = {"type": "TemplateProcessing", "single": [whole] * tokens, "pair": parts}
    unused = ("truncation", "padding", "normalizer", "pre_tokenizer", "decoder")
    tokenizer = {"version": "1.0", "added_tokens": [], **dict.fromkeys(unused)}
    tokenizer |= {"model": {"type": "WordLevel", "vocab": {TOKEN: 0}, "unk_token": TOKEN}}
    tokenizer |= {"post_processor": template | {"special_tokens": {TOKEN: said}}}
    _write(out / TOKENIZER / "tokenizer.json", tokenizer)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": tokens}
    _write(out / TOKENIZER / "tokenizer_config.json", settings)


def _write(file: Path, values: dict[str, Any]) -> None:
    file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
