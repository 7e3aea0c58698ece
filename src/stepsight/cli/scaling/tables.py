"""Columns of any CSV with a header line."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from stepsight.errors import DataFormatError, UserError, suggest

Rows = list[dict[str, str]]


def read_table(path: Path) -> Rows:
    """Rows by column name. Raises UserError where there is no file, or no row in it."""
    if not path.is_file():
        raise UserError(f"{path} does not exist. Name a CSV file with a header line.")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise DataFormatError(f"{path}: no rows below the header.")
    return rows


def texts(path: Path, rows: Rows, name: str) -> list[str]:
    """A column as it is written. Raises UserError where there is none of that name."""
    if name not in rows[0]:
        raise UserError(f"{path} has no column '{name}'.{suggest(name, rows[0])}")
    return [row[name] for row in rows]


def numbers(path: Path, rows: Rows, name: str) -> np.ndarray:
    """A column of numbers, "n". Raises UserError also where one is none."""
    try:
        return np.array([float(text) for text in texts(path, rows, name)])
    except (TypeError, ValueError) as error:
        raise DataFormatError(f"{path}: column '{name}' is not numeric ({error}).") from error
