"""Adaptive budgets in hindsight: what a tolerance would have spent, from standard errors that are
known already, and which tolerance keeps to a mean number of members (`pipeline.adaptive` draws so).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stepsight.errors import UserError


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
