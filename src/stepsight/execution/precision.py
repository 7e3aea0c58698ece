"""What networks compute in: one choice for training, validation, sampling and coding.

"bf16" and "fp16" mean autocast: matrix products and convolutions in the lower precision over
weights kept in float32; latents, schedules, norms and losses in float32. What is left of float32
products on a GPU may then use TF32 too, which "float32" itself never does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import get_args

import torch
from torch import nn

from stepsight.errors import UserError, suggest
from stepsight.execution.config import Precision

PRECISIONS: tuple[str, ...] = get_args(Precision)
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolved(asked: str, device: torch.device | str) -> str:
    """The precision that is meant on a device: "auto" is bf16 on GPUs that have it and on CPUs with
    bfloat16 instructions, else float32. Raises UserError for an unknown one.
    """
    kind = torch.device(device).type
    if asked not in PRECISIONS:
        raise UserError(f"precision '{asked}' is unknown.{suggest(asked, PRECISIONS)}")
    if asked != "auto":
        return asked
    if kind == "cuda" and torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bf16" if kind == "cpu" and torch.cpu._is_avx512_bf16_supported() else "float32"


@contextmanager
def computing(device: torch.device | str, precision: str) -> Iterator[None]:
    """Networks on a device compute in a resolved precision while this lasts."""
    lower, kind = precision != "float32", torch.device(device).type
    with _tf32(lower), torch.autocast(kind, DTYPES[precision], enabled=lower):
        yield


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    """Whether float32 products on a GPU may be of TF32; convolutions go by the same rule, where
    torch would have them at all times."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def best_device() -> str:
    """The fastest that this machine has: "cuda", "mps" or "cpu"."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def lowered_to(net: nn.Module) -> str | None:
    """The precision that weights were cast to (`lowered`), "bf16" or "fp16"; None: to none."""
    found = {parameter.dtype for parameter in net.parameters()}
    return next((name for name in ("bf16", "fp16") if DTYPES[name] in found), None)


def lowered(net: nn.Module, precision: str) -> nn.Module:
    """The network itself, ready to be sampled from under `computing`: the weights that autocast
    would cast at every call, or that a module says it casts itself (`casts`), are cast once and for
    all. Norms, embeddings and routers stay float32.
    """
    if precision != "float32":
        for name, module in net.named_modules():
            casts = isinstance(module, nn.Linear | nn.Conv2d) or getattr(module, "casts", False)
            if casts and not name.endswith(".gate"):
                module.to(DTYPES[precision])
    return net
