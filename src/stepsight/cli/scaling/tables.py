"""Tables on the command line: columns of any CSV with a header line, which rows to look at, and
NAME=VALUE for fields of records and constants of laws."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stepsight.errors import DataFormatError, UserError, suggest
from stepsight.scaling.reading import read_table

ORDERED: dict[str, Callable[[float, float], bool]] = {"<": operator.lt, ">": operator.gt}


@dataclass(frozen=True)
class Table:
    """Rows of a CSV file by column name. A column that it lacks raises UserError."""

    path: Path
    rows: list[dict[str, str]]

    @classmethod
    def read(cls, path: Path | None, conditions: Sequence[str] = ()) -> Table:
        """The rows that meet every condition: `COL=VALUE`, `COL!=VALUE`, `COL<VALUE`, `COL>VALUE`.

        `=` and `!=` compare numbers as numbers, and anything else as it is written.
        Raises UserError where there is no file, no row in it, or none that meets the conditions,
        and for what is no condition.
        """
        if path is None or not path.is_file():
            raise UserError(f"{path} does not exist. Name a CSV file with a header line.")
        table = cls(path, list(read_table(path).numbered.values()))
        if not table.rows:
            raise DataFormatError(f"{path}: no rows below the header.")
        for condition in conditions:
            table = table.only(table._met(condition))
            if not table.rows:
                raise UserError(f"{path}: no row is left where {' and '.join(conditions)}.")
        return table

    def only(self, kept: Iterable[bool]) -> Table:
        """The rows for which `kept` is true."""
        return Table(self.path, [row for row, keep in zip(self.rows, kept) if keep])

    def at(self, places: Iterable[int]) -> Table:
        return Table(self.path, [self.rows[place] for place in places])

    def texts(self, name: str) -> list[str]:
        """A column as it is written."""
        if name not in self.rows[0]:
            raise UserError(f"{self.path} has no column '{name}'.{suggest(name, self.rows[0])}")
        return [row[name] for row in self.rows]

    def values(self, name: str) -> list[str | float]:
        """A column whose numbers are equal however they are written."""
        return [_value(text) for text in self.texts(name)]

    def numbers(self, name: str) -> np.ndarray:
        """A column of numbers, "n". Raises UserError also where a cell is not a number."""
        try:
            return np.array([float(text) for text in self.texts(name)])
        except (TypeError, ValueError) as error:
            reason = f"column '{name}' is not numeric ({error})"
            raise DataFormatError(f"{self.path}: {reason}.") from error

    def _met(self, condition: str) -> list[bool]:
        parts = re.fullmatch(r"\s*(.+?)\s*(!=|=|<|>)\s*(.*?)\s*", condition)
        if not parts:
            signs = "COL=VALUE, COL!=VALUE, COL<VALUE, COL>VALUE"
            raise UserError(f"--where {condition}: write {signs}.")
        name, sign, value = parts[1], parts[2], _value(parts[3])
        if sign not in ORDERED:
            return [(cell == value) == (sign == "=") for cell in self.values(name)]
        if isinstance(value, str):
            raise UserError(f"--where {condition}: '{value}' is not a number.")
        return [ORDERED[sign](number, value) for number in self.numbers(name).tolist()]


def _value(text: str) -> str | float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return text


def assignments(flag: str, pairs: Iterable[str]) -> dict[str, str]:
    """Values by name of `A=1`, `B=2` or of `A=1,B=2`. Raises UserError for what is no pair."""
    values = {}
    for pair in ",".join(pairs).split(",") if pairs else ():
        name, equals, value = pair.partition("=")
        if not (equals and name.strip()):
            raise UserError(f"{flag} {pair}: write NAME=VALUE.")
        values[name.strip()] = value.strip()
    return values


def constants(flag: str, text: str) -> dict[str, float]:
    """The same with numbers, such as `E=1.69,A=406.4`. Raises UserError for what is no number."""
    try:
        return {name: float(value) for name, value in assignments(flag, [text]).items()}
    except ValueError as error:
        raise UserError(f"{flag} {text}: write NAME=NUMBER,... ({error}).") from error
