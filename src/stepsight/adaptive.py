"""Adaptive budgets: an image gets more members only while its members disagree.

Members are drawn in nested rounds, 2, 4, 8, ... After each round an image whose merge has a small
enough standard error is done. `predict_adaptively` predicts so; `rounds_spent` and `calibrated`
say, from standard errors that are known already, what a tolerance would have spent and which
tolerance keeps to a mean number of members.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from stepsight.errors import UserError
from stepsight.types import Batch, Prediction

if TYPE_CHECKING:
    from stepsight.pipeline import DensePipeline

Rowed = TypeVar("Rowed", Batch, Prediction)


@torch.inference_mode()
def predict_adaptively(
    pipeline: DensePipeline,
    batch: Batch,
    task: str,
    *,
    nfe: int,
    members: int,
    tolerance: float,
    seed: int = 0,
    rows: int = 64,
) -> tuple[Prediction, Tensor]:
    """The merged prediction on the batch's own grid, and the members spent, int64 "b".

    An image is done when the `standard_error` of its merge is at most `tolerance`, in the unit of
    the task's uncertainty, or at `members`. Each gets exactly the prediction that its number of
    members gives in an ensemble of fixed size. Raises UserError for a tolerance below 0.
    """
    if not tolerance >= 0:
        raise UserError(f"a tolerance of {tolerance}: give 0 or more, in the uncertainty's unit.")
    chosen = pipeline.task(task)
    spent = torch.zeros(len(batch), dtype=torch.long)
    answers: dict[int, Prediction] = {}
    going, drawn = list(range(len(batch))), torch.empty(0)
    for first, count in pairwise([0, *rounds(members)]):
        fresh = pipeline.sample(
            picked(batch, going),
            task,
            nfe=nfe,
            members=count - first,
            first=first,
            seed=seed,
            rows=rows,
        )
        drawn = torch.cat([drawn, fresh]) if first else fresh
        merged = chosen.merge(drawn)
        scale = pipeline.calibration.get(chosen.name, 1.0)
        done = scale * standard_error(merged, count) <= tolerance
        done |= count == members
        for place in done.nonzero().flatten().tolist():
            spent[going[place]] = count
            answers[going[place]] = picked(merged, [place])
        rest = (~done).nonzero().flatten().tolist()
        if not rest:
            break
        going, drawn = [going[place] for place in rest], drawn[:, rest]
    prediction = _joined([answers[image] for image in range(len(batch))])
    return pipeline.finish(prediction, batch), spent


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


def rounds_spent(errors: Tensor, tolerance: float) -> Tensor:
    """The round after which each image is done, int64 "n", from 0, given its standard error after
    every round, `errors` "r n"."""
    enough = errors <= tolerance
    enough[-1] = True
    return enough.int().argmax(dim=0)


def calibrated(errors: Tensor, counts: Sequence[int], mean_members: float) -> float:
    """The least tolerance at which images spend at most `mean_members` on average.

    errors: standard errors "r n" after each round, counts: members after each round. Raises
    UserError where even the first round spends more.
    """
    if mean_members < counts[0]:
        raise UserError(
            f"{mean_members:g} members on average, but an image starts with {counts[0]}."
        )
    spending = torch.tensor(counts, dtype=torch.float64)
    known = [0.0, *errors[:-1].flatten().sort().values.tolist()]
    means = (spending[rounds_spent(errors, tolerance)].mean() for tolerance in known)
    return next(tolerance for tolerance, mean in zip(known, means) if mean <= mean_members)


def picked(value: Rowed, rows: list[int]) -> Rowed:
    """The images `rows` of a batch or a prediction."""
    held = {field.name: getattr(value, field.name) for field in fields(value)}
    changed = {
        name: [one[row] for row in rows] if isinstance(one, list) else one[rows]
        for name, one in held.items()
        if isinstance(one, list | Tensor)
    }
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
