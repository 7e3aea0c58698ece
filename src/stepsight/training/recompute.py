"""Activations that are computed again in the backward pass instead of being kept for it.

A block under recomputation keeps what it was given, and runs a second time when its gradient is
due: a third more work for the memory of the blocks. Kept beside that by "selective" are the results
of matrix products, convolutions and attention, which is where the work is: what is left to do again
is cheap (Korthikanti et al. 2022, "Reducing activation recomputation in large transformers").

Only `forward` of a block is replaced, so that no parameter changes its name, and what wraps the
block afterwards (`fully_shard`) has its weights there for both runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import (
    checkpoint,
    create_selective_checkpoint_contexts,
    noop_context_fn,
)

from stepsight.models.expert_loop import OPERATOR
from stepsight.models.moe import MoE

Contexts = tuple[AbstractContextManager[Any], AbstractContextManager[Any]]  # first run, second run

_NAMES = (
    "mm", "addmm", "bmm", "baddbmm", "_grouped_mm", "convolution",
    "_scaled_dot_product_flash_attention", "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention",
)  # fmt: skip
COSTLY = [getattr(torch.ops.aten, name).default for name in _NAMES]  # kept by "selective"
COSTLY.append(OPERATOR)  # experts on a CPU


def recompute(blocks: Sequence[nn.Module], mode: str) -> None:
    """Let each of the blocks compute its activations again in the backward pass.

    mode: "none", "block" (keep only what a block is given) or "selective" (and its products).
    Losses and gradients stay what they were, bit for bit. Without gradients a block runs as before.
    To be called before DDP or `fully_shard` wrap the network.
    """
    if mode == "none":
        return
    products = partial(create_selective_checkpoint_contexts, COSTLY)
    for block in blocks:
        how: dict[str, Any] = {"context_fn": products} if mode == "selective" else {}
        if any(isinstance(module, MoE) for module in block.modules()):
            how["context_fn"] = partial(_contexts, block, how.get("context_fn", noop_context_fn))
        block.forward = partial(_twice, block, block.forward, how)


def _twice(
    block: nn.Module,
    forward: Callable[..., Any],
    how: dict[str, Any],
    *args: Any,
    **more: Any,
) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **more)
    casting = partial(_casting, next(block.parameters()).device.type, forward)
    return checkpoint(casting, *args, use_reentrant=False, **how, **more)


def _casting(kind: str, forward: Callable[..., Any], *args: Any, **more: Any) -> Any:
    """Autocast remembers the weights that a first call has cast: a second call would do less than
    what is done again of it. Here they are cast each time, which keeps the copies of one block."""
    lower, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    with torch.autocast(kind, dtype, enabled=lower, cache_enabled=False):
        return forward(*args, **more)


def _contexts(block: nn.Module, made: Callable[[], Contexts]) -> Contexts:
    """For a block with experts; one that is compiled leaves out this part of itself."""
    first, second = made()
    return first, _unnoticed(block, second)


@contextmanager
def _unnoticed(block: nn.Module, inner: AbstractContextManager[Any]) -> Iterator[None]:
    """What modules of the block note about a forward pass (experts their load) stays that of the
    first run: the second one's would hold on to its activations, and may stop half-way."""
    noted = [(module, dict(vars(module))) for module in block.modules()]
    try:
        with inner:
            yield
    finally:
        for module, before in noted:
            vars(module).update(before)
