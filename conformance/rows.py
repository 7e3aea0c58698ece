"""What is compared with whom: the rows of docs/conformance.md, and how a row is measured.

A module of this folder registers its comparisons with `@row`; `run` measures one.
"""

from __future__ import annotations

import importlib.util
import os
import pkgutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

Kind = Literal["importer", "profile", "exporter", "network", "sampler", "protocol", "precision"]
Differences = Mapping[str, float]  # of each case, relative unless the row says otherwise

GOLDEN = Path(os.environ.get("STEPSIGHT_GOLDEN", Path(__file__).parents[2] / "shared" / "golden"))
ROWS: dict[tuple[str, str], Row] = {}


@dataclass(frozen=True)
class Row:
    """One comparison. `measure()`, or `measure(folder)` of stored answers, gives the differences
    of its cases, each of which has to be at most `bar`."""

    kind: Kind
    name: str
    oracle: str  # whose code answers, and which version of it
    bar: float
    measure: Callable[..., Differences]
    golden: str | None = None  # folder of stored answers
    needs: Sequence[str] = ()  # packages

    @property
    def says(self) -> str:
        """What is compared, in a sentence."""
        return " ".join((self.measure.__doc__ or "").split())

    @property
    def lacks(self) -> str | None:
        """Why it cannot be measured here."""
        if self.golden and not (GOLDEN / self.golden).is_dir():
            return f"no stored answers {self.golden} at {GOLDEN} (set STEPSIGHT_GOLDEN)"
        missing = [name for name in self.needs if importlib.util.find_spec(name) is None]
        return f"needs {', '.join(missing)} (uv sync --group conformance)" if missing else None


@dataclass(frozen=True)
class Agreement:
    """What measuring a row gave."""

    row: Row
    differences: Differences
    seconds: float

    @property
    def worst(self) -> float:
        return max(self.differences.values())

    @property
    def holds(self) -> bool:
        return all(found <= self.row.bar for found in self.differences.values())  # not of NaN


def row(
    kind: Kind,
    name: str,
    *,
    oracle: str,
    bar: float,
    golden: str | None = None,
    needs: Sequence[str] = (),
) -> Callable[[Callable[..., Differences]], Callable[..., Differences]]:
    """Register a comparison; its docstring says what is compared."""

    def register(measure: Callable[..., Differences]) -> Callable[..., Differences]:
        assert (kind, name) not in ROWS, f"{kind} {name} is compared twice"
        ROWS[kind, name] = Row(kind, name, oracle, bar, measure, golden, needs)
        return measure

    return register


def all_rows() -> list[Row]:
    """The rows of all modules of this folder, by kind and name."""
    for module in pkgutil.walk_packages([str(Path(__file__).parent)], "conformance."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    return [ROWS[key] for key in sorted(ROWS)]


def run(row: Row) -> Agreement:
    """Measure a row that lacks nothing."""
    began = time.perf_counter()
    found = row.measure(GOLDEN / row.golden) if row.golden else row.measure()
    assert found, f"{row.kind} {row.name} has no case"
    return Agreement(row, found, time.perf_counter() - began)


def arrays(file: Path) -> dict[str, Tensor]:
    """The arrays of an .npz file."""
    with np.load(file) as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored.files}


def relative(ours: Any, theirs: Any) -> float:
    """The largest difference, over the largest value; both of one shape."""
    a, b = (torch.as_tensor(x).double() for x in (ours, theirs))
    assert a.shape == b.shape, f"{tuple(a.shape)} beside {tuple(b.shape)}"
    return float((a - b).abs().max() / b.abs().max().clamp_min(1e-30))
