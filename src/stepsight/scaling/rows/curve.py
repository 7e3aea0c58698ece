"""The rows of one curve, with the names that people know them by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from stepsight.scaling.fitting.form import Array

LINE = "line "  # what a row of a file is called, with its number
SHOWN = 6  # rows that a sentence lists


@dataclass(frozen=True)
class CurveRows:
    """Rows that should follow one law, and what was done to them so far."""

    x: dict[str, Array]  # inputs by name, "n" each
    y: Array  # "n"
    target: str  # what y is
    names: tuple[str, ...]  # of the rows, such as "line 7" or "run a at 4,096 images"
    runs: tuple[str, ...] | None = None  # which run each row belongs to; None: not known
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # other columns, as written
    notes: tuple[str, ...] = ()

    @property
    def table(self) -> Array:
        """The inputs side by side, "n d"."""
        return np.stack(list(self.x.values()), axis=1)

    @property
    def sizes(self) -> Array:
        """Products of the inputs as logarithms, "n"; -inf or nan where one is not positive."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.log(self.table).sum(axis=1)

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Rows that have a logarithm: positive and finite, "n"."""
        columns = np.column_stack([self.table, self.y])
        return np.all(np.isfinite(columns) & (columns > 0), axis=1)

    def only(self, kept: NDArray[np.bool_]) -> CurveRows:
        """The rows where `kept` "n" is true."""
        places = np.flatnonzero(kept)
        return replace(
            self,
            x={name: column[places] for name, column in self.x.items()},
            y=self.y[places],
            names=_at(places, self.names),
            runs=self.runs and _at(places, self.runs),
            texts={name: _at(places, cells) for name, cells in self.texts.items()},
        )

    def noting(self, *notes: str) -> CurveRows:
        return replace(self, notes=(*self.notes, *notes))

    def called(self, places: Sequence[int]) -> str:
        """Rows in words."""
        return called([self.names[place] for place in places])


def _at(places: Sequence[int] | NDArray[np.intp], cells: Sequence[str]) -> tuple[str, ...]:
    return tuple(cells[place] for place in places)


def called(names: Sequence[str]) -> str:
    """Rows in words: `line 3`, `lines 3, 4 and 9`, `run a at 64 images and 3 more`."""
    of_file = all(name.startswith(LINE) for name in names)
    shown = [name.removeprefix(LINE) if of_file else name for name in names[:SHOWN]]
    shown += [f"{len(names) - SHOWN} more"] if len(names) > SHOWN else []
    words = " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))
    return f"{'lines' if len(names) > 1 else 'line'} {words}" if of_file else words
