"""Tables that must not pass for a law, or whose rows must be named: given to the command itself.

Each case is a table, a command of `stepsight scaling` that reads it, and what the command has to
say: a verdict other than "law", or words that name what is wrong with the rows.
"""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stepsight.cli.main import main

Columns = dict[str, Any]  # cells by name, as many of each

SWEEP = {"task": "depth", "metric": "abs_rel", "sampler": "ddim", "spacing": "trailing"}
SWEEP |= {"schedule": "trained", "peak_gb": 1}
PRICED = ("gflop_per_image", "ms_per_image")  # that a sweep measures; they grow with the calls


@dataclass(frozen=True)
class Case:
    """A table, the command that reads it, and what has to be said."""

    name: str
    table: Callable[[], Columns]
    command: tuple[str, ...]  # without the table
    named: str = ""  # a pattern of the output; "": no verdict may be "law"


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def _curve(
    log_y: Callable[[np.ndarray], np.ndarray], points: int = 12, noise: float = 0.01
) -> Columns:
    x = np.geomspace(1, 100, points)
    y = np.exp(log_y(np.log(x)) + noise * _rng().standard_normal(points))
    return {"x": x, "y": y}


def _power(noise: float = 0.02, points: int = 12) -> Columns:
    return _curve(lambda u: np.log(0.9) - 0.3 * u, points, noise)


def _floor() -> Columns:
    return _curve(lambda u: np.log(0.12 + 2.4 * np.exp(-0.5 * u)))


def _bending() -> Columns:
    return _curve(lambda u: -0.1 * u - 0.026 * u**2)


def _convex() -> Columns:
    return _curve(lambda u: -1.2 * u + 0.09 * u**2)


def _broken() -> Columns:
    return _curve(lambda u: -0.1 * u - 0.06 * np.logaddexp(0, (u - 2.3) / 0.2), 16)


def _two_decades() -> Columns:
    """The difference of the logarithms is a rounding below 2."""
    return _power() | {"x": np.geomspace(0.02, 2, 12)}


def _at_bound() -> Columns:
    """Steeper than any exponent that is searched, 10."""
    return _curve(lambda u: -12.0 * u)


def _checkpoints() -> Columns:
    """Four runs, six checkpoints each, which share the luck of their run."""
    run = np.repeat(np.arange(4), 6)
    x = 4.0**run * 2.0 ** np.tile(np.arange(6), 4)
    luck = 0.03 * _rng().standard_normal(4)[run]
    return {"run": [f"r{one}" for one in run], "x": x, "y": 0.9 * x**-0.3 * np.exp(luck)}


def _outlier() -> Columns:
    table = _power()
    table["y"] = [1.65 * y if row == 6 else y for row, y in enumerate(table["y"])]
    return table


def _tripled() -> Columns:
    return {name: np.repeat(values, 3) for name, values in _power().items()}


def _rising() -> Columns:
    return {"x": (table := _power())["x"], "y": 1 - 0.5 * np.asarray(table["y"])}


def _sigmoid() -> Columns:
    """Performance over loss alone: images change nothing, and there is no elbow."""
    loss, images = np.meshgrid(np.linspace(2.3, 1.7, 9), 4.0 ** np.arange(3, 8), indexing="ij")
    noise = 0.004 * _rng().standard_normal(loss.shape)
    perf = 0.3 + 0.4 / (1 + np.exp((loss - 2) / 0.12)) + noise
    return {"loss": loss.ravel(), "images": images.ravel(), "y": perf.ravel()}


def _sweep(value: Callable[[int, int], object], extra: Columns | None = None) -> Columns:
    """A grid of steps and members; `extra` rows come last."""
    grid = [(nfe, members) for nfe in (1, 2, 4, 8) for members in (1, 2, 4)]
    own = {
        "nfe": [nfe for nfe, _ in grid],
        "members": [members for _, members in grid],
        "total_calls": [nfe * members for nfe, members in grid],
        "value": [value(nfe, members) for nfe, members in grid],
    }
    own |= {name: own["total_calls"] for name in PRICED}
    own |= {"lo": [_shifted(v, -0.01) for v in own["value"]]}
    own |= {"hi": [_shifted(v, 0.01) for v in own["value"]]}
    own |= {name: [same] * len(grid) for name, same in SWEEP.items()}
    return {name: [*cells, *(extra or {}).get(name, ())] for name, cells in own.items()}


def _shifted(value: object, by: float) -> object:
    return value + by if isinstance(value, float) else value


def _error(nfe: int, members: int) -> float:
    return 0.2 + 0.05 / nfe + 0.03 / members


def clean_sweep() -> Columns:
    """Nothing is wrong with it."""
    return _sweep(_error)


def _cell(**changed: Any) -> Columns:
    """A row more."""
    row = SWEEP | {"nfe": 4, "members": 2, "value": 0.1, "lo": 0.09, "hi": 0.11} | changed
    calls = int(row["nfe"]) * int(row["members"])
    row = {"total_calls": calls} | dict.fromkeys(PRICED, calls) | row
    return {name: [one] for name, one in row.items()}


def _fit(*arguments: str) -> tuple[str, ...]:
    return ("fit", *arguments, "--y", "y", "--json", "--csv")


POWER = _fit("--form", "power", "--x", "x")
ELBOW = _fit("--form", "emergence", "--x", "loss,images")
OUTLIER = r"(?i)(rows? |lines? |\.csv:)(7|8)\b"  # the seventh row, of the file the eighth line
NO_NUMBER = r":14 \(value is no number"
LAST_ROW = r"(?i)(rows? |lines? |\.csv:)1[34]\b"
FRONTIER = ("frontier", "--sweep")
CASES: tuple[Case, ...] = (
    Case("a floor, asked as a power", _floor, POWER),
    Case("bending, asked as a power", _bending, POWER),
    Case("bending, forms compared", _bending, _fit("--x", "x")),
    Case("log-convex", _convex, POWER),
    Case("a break in the middle, asked as a power", _broken, POWER),
    Case("an exponent at its bound", _at_bound, POWER),
    Case("a sigmoid asked for an elbow", _sigmoid, ELBOW),
    Case("checkpoints of 4 runs, not told", _checkpoints, POWER, r"--groups run|grouped by run"),
    Case("one outlier of 65 %", _outlier, POWER, OUTLIER),
    Case("rows given three times", _tripled, POWER, r"(?i)duplicate|same|merged|repeated"),
    Case("two decades of x exactly", _two_decades, POWER, r"^(?!.*spans 2\.0 decades)"),
    Case("a metric that rises", _rising, POWER, r"1 - "),
    Case(
        "sweep: NaN",
        lambda: _sweep(_error, _cell(nfe=16, value="nan")),
        FRONTIER,
        NO_NUMBER,
    ),
    Case(
        "sweep: an empty cell",
        lambda: _sweep(_error, _cell(nfe=16, value="")),
        FRONTIER,
        NO_NUMBER,
    ),
    Case(
        "sweep: a setting twice",
        lambda: _sweep(_error, _cell()),
        FRONTIER,
        LAST_ROW,
    ),
    Case(
        "sweep: negative cost",
        lambda: _sweep(_error, _cell(nfe=16, total_calls=-5)),
        FRONTIER,
        LAST_ROW,
    ),
)


def measured(folder: Path, cases: Sequence[Case] = ()) -> Iterator[dict[str, Any]]:
    """A row for each of the cases, by default all; tables are written below `folder`."""
    for number, case in enumerate(cases or CASES):
        path = folder / f"{number}.csv"
        table = case.table()
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(table)
            writer.writerows(zip(*table.values()))
        said, status = _said(("scaling", *case.command, str(path)))
        verdicts = re.findall(r'"verdict": "([^"]+)"', said)
        ok = bool(re.search(case.named, said, re.DOTALL)) if case.named else "law" not in verdicts
        ok &= status != 1 and bool(case.named or verdicts or status == 2)
        yield {"table": case.name, "verdicts": verdicts, "status": status, "caught": ok} | (
            {"named": case.named} if case.named else {}
        )


def _said(arguments: Sequence[str]) -> tuple[str, int]:
    """All that a command prints, and its exit status."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            status = main(list(arguments))
        except SystemExit as ended:
            status = int(ended.code or 0)
        except Exception as error:  # a user would see a traceback
            return f"{type(error).__name__}: {error}", 1
    return out.getvalue(), status
