"""Compilation of what a network repeats, where that pays.

On a GPU each of the repeated blocks is compiled in place, once for all of them: names of weights
stay, and a first call takes seconds, not minutes. On a CPU a minute of compilation gains a tenth,
which no usual run earns back. TORCH_COMPILE_DISABLE=1, torch's own switch, turns it off.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


def compiled(blocks: Iterable[nn.Module], device: torch.device | str) -> None:
    """Compile blocks in place if they are to compute on a GPU."""
    if torch.device(device).type == "cuda":
        for block in blocks:
            block.compile()
