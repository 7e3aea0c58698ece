"""Adaptive members: an image gets more only while its members disagree.

Members are drawn in nested rounds, 2, 4, 8, ... After each round an image whose merge has a small
enough standard error is done. How members are drawn and when they are enough is handed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor

from stepsight.errors import UserError
from stepsight.types import Batch, Prediction

Rowed = TypeVar("Rowed", Batch, Prediction)
# places of the images, first member, how many -> samples "m b ..."
Draw = Callable[[list[int], int, int], Tensor]
Enough = Callable[[Prediction, int], Tensor]  # merge, its members -> bool "b"


def members_until(
    images: int, members: int, draw: Draw, merge: Callable[[Tensor], Prediction], enough: Enough
) -> tuple[Prediction, Tensor]:
    """The merged prediction at working size, and the members spent, int64 "b".

    An image is done when its merge is `enough`, or at `members`. Each gets exactly the prediction
    that its number of members gives in an ensemble of fixed size.
    """
    spent = torch.zeros(images, dtype=torch.long)
    answers: dict[int, Prediction] = {}
    going, drawn = list(range(images)), torch.empty(0)
    for first, count in pairwise([0, *rounds(members)]):
        fresh = draw(going, first, count - first)
        drawn = torch.cat([drawn, fresh]) if first else fresh
        merged = merge(drawn)
        done = enough(merged, count) | (count == members)
        for place in done.nonzero().flatten().tolist():
            spent[going[place]] = count
            answers[going[place]] = picked(merged, [place])
        rest = (~done).nonzero().flatten().tolist()
        if not rest:
            break
        going, drawn = [going[place] for place in rest], drawn[:, rest]
    return _joined([answers[image] for image in range(images)]), spent


def within(tolerance: float, scale: float = 1.0) -> Enough:
    """Done when the `standard_error` of a merge, times `scale`, is at most `tolerance`, in the unit
    of the task's uncertainty. Raises UserError for a tolerance below 0."""
    if not tolerance >= 0:
        raise UserError(f"a tolerance of {tolerance}: give 0 or more, in the uncertainty's unit.")
    return lambda merged, count: scale * standard_error(merged, count) <= tolerance


def rounds(members: int) -> list[int]:
    """Members after each round: 2, 4, 8, ... and at last `members`. Raises UserError below 1."""
    if members < 1:
        raise UserError(f"{members} members: an ensemble needs at least 1.")
    powers = [2**k for k in range(1, members.bit_length())]
    return [count for count in powers if count < members] + [members]


def standard_error(merged: Prediction, members: int) -> Tensor:
    """Mean uncertainty of each image over the root of its members, "b"; infinite for one member,
    which says nothing of its error."""
    if merged.uncertainty is None:
        return torch.full((len(merged.x),), torch.inf)
    return merged.uncertainty.float().flatten(1).mean(dim=1).cpu() / math.sqrt(members)


def picked(value: Rowed, rows: list[int]) -> Rowed:
    """The images `rows` of a batch or a prediction."""
    held = {field.name: getattr(value, field.name) for field in fields(value)}
    changed: dict[str, Any] = {
        name: [one[row] for row in rows] if isinstance(one, list) else one[rows]
        for name, one in held.items()
        if isinstance(one, list | Tensor)
    }
    if isinstance(value, Batch):
        changed["extra"] = {name: one[rows] for name, one in value.extra.items()}
    return replace(value, **changed)


def _joined(parts: Sequence[Prediction]) -> Prediction:
    """Predictions of one task, one below the other."""
    spreads = [part.uncertainty for part in parts if part.uncertainty is not None]
    return Prediction(
        parts[0].task,
        torch.cat([part.x for part in parts]),
        torch.cat([part.values for part in parts]),
        torch.cat(spreads) if len(spreads) == len(parts) else None,
    )
