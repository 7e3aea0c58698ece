"""Columns of a table by name, as numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from stepsight.errors import UserError, suggest


def column(columns: Mapping[str, ArrayLike], name: str) -> ArrayLike:
    """A column by its name. Raises UserError where there is none."""
    if name not in columns:
        raise UserError(f"There is no column '{name}'.{suggest(name, columns)}")
    return columns[name]


def numbers_of(columns: Mapping[str, ArrayLike], name: str) -> np.ndarray:
    """A column "n" of numbers. Raises UserError where there is none of that name, or it holds
    something else."""
    try:
        values = np.asarray(column(columns, name), dtype=float)
    except (TypeError, ValueError) as error:
        raise UserError(f"The column '{name}' is not numeric ({error}).") from error
    if values.ndim != 1:
        raise UserError(f"The column '{name}' has {values.ndim} axes; give one value a row.")
    return values
