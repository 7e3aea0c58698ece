"""Tables on the command line: columns of any CSV with a header line, which rows to look at, and
NAME=VALUE for fields of records and constants of laws."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from stepsight.errors import DataFormatError, UserError, suggest
from stepsight.scaling.reading import read_table

SHOWN = 5  # bad cells that a message lists
SUFFIXED = re.compile(r"\s*[-+\d.]+\s*[kKMBGTPmb%]\s*")  # 125M, 84 %
ORDERED: dict[str, Callable[[float, float], bool]] = {"<": operator.lt, ">": operator.gt}


@dataclass(frozen=True)
class Table:
    """Rows of a CSV file by column name. A column that it lacks raises UserError."""

    path: Path
    rows: list[dict[str, str]]
    lines: list[int]  # of the file, one a row
    choosing: bool = False  # whether the command has --where

    @classmethod
    def read(cls, path: Path | None, conditions: Sequence[str] | None = None) -> Table:
        """The rows that meet every condition: `COL=VALUE`, `COL!=VALUE`, `COL<VALUE`, `COL>VALUE`.

        `=` and `!=` compare numbers as numbers, and anything else as it is written. `conditions`
        are those of --where; None for a command that has no such flag.
        Raises UserError where there is no file, no row in it, or none that meets the conditions,
        and for what is no condition.
        """
        if path is None or not path.is_file():
            raise UserError(f"{path} does not exist. Name a CSV file with a header line.")
        numbered = read_table(path).numbered
        table = cls(path, list(numbered.values()), list(numbered), conditions is not None)
        if not table.rows:
            raise DataFormatError(f"{path}: no rows below the header.")
        for condition in conditions or ():
            table = table.only(table._met(condition))
            if not table.rows:
                raise UserError(f"{path}: no row is left where {' and '.join(conditions or ())}.")
        return table

    def only(self, kept: Iterable[bool]) -> Table:
        """The rows for which `kept` is true."""
        return self.at(place for place, keep in enumerate(kept) if keep)

    def at(self, places: Iterable[int]) -> Table:
        places = list(places)
        lines = [self.lines[place] for place in places]
        return replace(self, rows=[self.rows[place] for place in places], lines=lines)

    def texts(self, name: str) -> list[str]:
        """A column as it is written."""
        if name not in self.rows[0]:
            raise UserError(f"{self.path} has no column '{name}'.{suggest(name, self.rows[0])}")
        return [row[name] for row in self.rows]

    def values(self, name: str) -> list[str | float]:
        """A column whose numbers are equal however they are written."""
        return [_value(text) for text in self.texts(name)]

    def numbers(self, name: str) -> np.ndarray:
        """A column of finite numbers, "n". Raises DataFormatError naming the lines of cells that
        are none."""
        texts = self.texts(name)
        values = [value if isinstance(value := _value(text), float) else math.nan for text in texts]
        bad = [place for place, value in enumerate(values) if not math.isfinite(value)]
        if bad:
            raise DataFormatError(self._refusal(name, [(i, texts[i].strip()) for i in bad]))
        return np.array(values)

    def checked(self, name: str, fits: Callable[[float], bool], wanted: str) -> np.ndarray:
        """A column of numbers that all fit, "n". Raises DataFormatError naming the first line of
        one that does not, with what is `wanted` in words."""
        values = self.numbers(name)
        for value, line in zip(values.tolist(), self.lines):
            if not fits(value):
                raise DataFormatError(
                    f"{self.path}:{line}: {name} is {value:g}, and must be {wanted}. "
                    "Correct the row, or leave it out."
                )
        return values

    def positive(self, name: str) -> np.ndarray:
        """A column of numbers above 0, such as costs or errors."""
        return self.checked(name, lambda value: value > 0, "above 0")

    def _refusal(self, name: str, cells: Sequence[tuple[int, str]]) -> str:
        """What is wrong with cells of a column, and what to do about it."""
        listed = [
            f"line {self.lines[place]} " + (f"'{text[:40]}'" if text else "empty")
            for place, text in cells[1:SHOWN]
        ]
        listed += [f"{len(cells) - SHOWN} more"] if len(cells) > SHOWN else []
        (place, first), words = cells[0], {text for _, text in cells}
        said = f"'{first[:40]}'" if first else "empty"
        also = f" (and {', '.join(listed)})" if listed else ""
        where = f"{self.path}:{self.lines[place]}: {name} is {said}{also}; "
        if any(SUFFIXED.fullmatch(text) for text in words):
            return f"{where}'{name}' is not numeric. Write numbers out, such as 1.25e8 for 125M."
        leave = "leave such rows out"
        if self.choosing and len(words) == 1 and len(cells) < len(self.rows):
            leave += f" with --where '{name}!={first}'"
        return f"{where}'{name}' is not numeric. Write the number, or {leave}."

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
    """A number; nan, which equals nothing, and what is none as it is written."""
    try:
        value = float(text)
    except ValueError:
        return text.strip()
    return text.strip() if math.isnan(value) else value


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
