"""The noise that members of a picture are drawn from, by its address."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from stepsight.execution.noise import normal

RUN = 1 << 32


def member_noise(
    shape: Sequence[int], pictures: Tensor, members: Iterable[int], seed: int = 0, runs: int = 1
) -> Tensor:
    """Of the starts of members: rows "(member run picture) *shape"."""
    rows = [[key, m, run * RUN] for m in members for run in range(runs) for key in pictures]
    return normal(("sample", seed), torch.tensor(rows), shape)
