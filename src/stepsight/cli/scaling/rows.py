"""Which rows of a table to look at: `COL=VALUE`, `COL!=VALUE`, `COL<VALUE`, `COL>VALUE`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from stepsight.cli.scaling.tables import Rows, numbers, texts
from stepsight.errors import UserError

ORDERED: dict[str, Callable[[float, float], bool]] = {"<": operator.lt, ">": operator.gt}


def where(path: Path, rows: Rows, conditions: Sequence[str]) -> Rows:
    """The rows of a table that meet every condition.

    `=` and `!=` compare numbers as numbers, and anything else as it is written.

    Raises:
        UserError: a condition is not one, its column is missing, or no row meets them all.
    """
    kept = rows
    for condition in conditions:
        kept = [row for row, keep in zip(kept, _met(path, kept, condition)) if keep]
        if not kept:
            raise UserError(f"{path}: no row is left where {' and '.join(conditions)}.")
    return kept


def _met(path: Path, rows: Rows, condition: str) -> list[bool]:
    found = re.fullmatch(r"\s*(.+?)\s*(!=|=|<|>)\s*(.*?)\s*", condition)
    if not found:
        raise UserError(f"--where {condition}: write COL=VALUE, COL!=VALUE, COL<VALUE, COL>VALUE.")
    name, sign, value = found.groups()
    if sign not in ORDERED:
        return [_same(text, value) == (sign == "=") for text in texts(path, rows, name)]
    limit = _number(value)
    if limit is None:
        raise UserError(f"--where {condition}: '{value}' is not a number.")
    return [ORDERED[sign](one, limit) for one in numbers(path, rows, name).tolist()]


def _same(text: str, value: str) -> bool:
    one, other = _number(text), _number(value)
    return text == value if one is None or other is None else one == other


def _number(text: str) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None
