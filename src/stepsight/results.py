"""Results: what an evaluation says of one task under one protocol, and the file that holds them.

It lies below those who compute results and those who show them, so that both read the same fields.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from stepsight.errors import DataFormatError
from stepsight.measures import main_metric
from stepsight.scaling.reading import misfits, read_json


@dataclass(frozen=True)
class Ratio:
    """Ours over a trivial predictor's, with the ends of its interval paired by image."""

    ratio: float
    lo: float
    hi: float
    metric: str = ""


@dataclass(frozen=True, kw_only=True)
class Result:
    """The scores of one setting on one data set under one protocol.

    The fields are those of results.json, in its order. Validation has fewer of them: what has a
    default may be unknown.
    """

    task: str
    data: str = ""
    split: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)  # of the data and of imported files
    protocol: str = ""  # its id
    protocol_text: str = ""
    protocol_source: str = ""
    sampler: str = ""
    nfe: int = 0  # model calls per member; 0: files
    members: int = 1
    temperature: float | None = None  # of the start noise
    views: str | None = None  # what further calls saw
    n: int = 0  # images scored
    expected: int | None = None  # images of the whole split
    size: tuple[int, ...] = ()  # working size, height and width
    checkpoint: str = ""  # digest of the weights, or the folder of imported predictions
    label: str | None = None  # stands beside every score
    metric: str | None = None  # the main one, which the ratios compare
    metrics: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # by metric
    uncertainty: Mapping[str, float] = field(default_factory=dict)  # see `evaluation.spread`
    calibration: Mapping[str, Any] | None = None  # its record, "verdict" and "sentence"
    baselines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # metrics by name
    ratios: Mapping[str, Ratio] = field(default_factory=dict)  # by baseline
    ceiling: Mapping[str, float] | None = None  # metrics of the truth, resized and back
    seconds_per_image: float = math.nan
    skipped: tuple[str, ...] = ()  # images that could not be scored; written where there are some

    @property
    def main(self) -> str | None:
        """The main metric; None where nothing was measured."""
        return self.metric or main_metric(self.task, self.metrics)

    def gaps(self) -> list[str]:
        """The fields that lack what others refer to, above all the main metric's numbers."""
        tables = [self.metrics, *self.baselines.values(), self.ceiling or self.metrics]
        lacking = {
            "size": len(self.size) not in (0, 2),
            "metrics": self.main is not None and any(self.main not in row for row in tables),
            "ratios": bool(self.metric) and not self.ratios.keys() >= self.baselines.keys(),
            "calibration": bool(self.calibration)
            and not all(
                isinstance(self.calibration.get(name), str) for name in ("verdict", "sentence")
            ),
        }
        return [name for name, lacks in lacking.items() if lacks]

    def to_dict(self) -> dict[str, Any]:
        """One object of results.json."""
        row = asdict(self)
        return row if self.skipped else {k: v for k, v in row.items() if k != "skipped"}

    def columns(self) -> dict[str, Any]:
        """One row of results.csv."""
        row = self.to_dict()
        plain = {k: v for k, v in row.items() if not isinstance(v, dict | list | tuple)}
        options = {f"option.{name}": value for name, value in self.options.items()}
        ends = {
            f"{name}.{end}": value
            for name, pair in self.intervals.items()
            for end, value in zip(("lo", "hi"), pair)
        }
        uncertainty = {f"uncertainty.{name}": value for name, value in self.uncertainty.items()}
        baselines = {
            f"baseline.{name}.{metric}": value
            for name, metrics in self.baselines.items()
            for metric, value in metrics.items()
        }
        return plain | options | dict(self.metrics) | ends | uncertainty | baselines

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Result:
        """The result that an object of results.json holds, with NaN for the numbers that JSON could
        only write as null; also of a `val` line of metrics.jsonl. Other keys are ignored."""
        known = {field.name: row[field.name] for field in fields(cls) if field.name in row}
        for name in ("metrics", "uncertainty", "baselines", "ratios"):
            known[name] = with_nan(known.get(name) or {})
        known["ratios"] = {name: Ratio(**ratio) for name, ratio in known["ratios"].items()}
        intervals = (known.get("intervals") or {}).items()
        known["intervals"] = {name: tuple(map(with_nan, ends)) for name, ends in intervals}
        known |= {name: tuple(known.get(name) or ()) for name in ("size", "skipped")}
        return cls(**known)


def read_results(path: Path) -> list[Result]:
    """The results of a results.json; [] where there is none. Raises DataFormatError if it is
    damaged."""
    found = []
    for number, row in enumerate(read_json(path, [])):
        wrong = misfits(row, Result) if isinstance(row, dict) else ["all of it"]
        wrong = wrong or [name for name in ("task",) if name not in row]
        result = None if wrong else Result.of(row)
        if result is None or (wrong := result.gaps()):
            raise DataFormatError(
                f"{path}, result {number}: damaged ({', '.join(wrong)}). Evaluate again."
            )
        found.append(result)
    return found


def with_nan(value: Any) -> Any:
    """The value with NaN for None, at any depth of mappings."""
    if isinstance(value, Mapping):
        return {key: with_nan(inner) for key, inner in value.items()}
    return math.nan if value is None else value
