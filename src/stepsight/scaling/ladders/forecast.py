"""What a larger run will reach, said before it is made, dated, and scored once it is there.

A forecast is one line of `forecasts.jsonl`: a loss or metric under one protocol and test-time
setting, at a number of parameters and images, with its interval. It keeps when it was made and on
how many points, and is never changed afterwards; a record of that size and amount scores it.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stepsight.errors import DataFormatError
from stepsight.scaling.intervals import PREDICTIVE
from stepsight.scaling.laws.fits import fit
from stepsight.scaling.plain import plain
from stepsight.scaling.records import ScalingRecord, append_lines, whole_lines

FILE_NAME = "forecasts.jsonl"
FORM = "chinchilla"
LOSS = "loss"  # what the validation loss is called among metrics


class ForecastTarget(NamedTuple):
    """A run that has not been made."""

    name: str
    params_active: int
    images_seen: int


class Quantity(NamedTuple):
    """What was measured, and how; numbers of different ones never share a curve."""

    task: str
    metric: str  # or `LOSS`
    lower_is_better: bool
    dataset: str
    protocol: str
    sampler: str
    nfe: int
    members: int
    size: str = ""  # worked at
    tuned: bool = False  # from the weights of another run, and not from scratch

    def __str__(self) -> str:
        if self.metric == LOSS:
            return f"{self.task} {LOSS}"
        return f"{self.task} {self.metric}, {self.sampler} {self.nfe} x {self.members}"


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """One number that a run is expected to reach, and the interval that should hold it."""

    made: str  # ISO 8601, UTC
    run: str  # name of the target
    params_active: int
    images_seen: int
    task: str
    metric: str
    lower_is_better: bool
    dataset: str
    protocol: str
    sampler: str
    nfe: int
    members: int
    size: str
    tuned: bool
    form: str
    formula: str
    points: int  # that the law was fitted to
    runs: int
    reach: float  # training FLOPs of the target by N x D, over the largest point's
    value: float
    lo: float
    hi: float
    level: float
    verdict: str
    warnings: tuple[str, ...]

    @property
    def quantity(self) -> Quantity:
        return Quantity(*(getattr(self, name) for name in Quantity._fields))


class ScoredForecast(NamedTuple):
    """A forecast beside what came of it."""

    forecast: Forecast
    outcome: float
    time: str  # when it was measured
    inside: bool

    @property
    def error(self) -> float:
        """Relative to the outcome."""
        return self.forecast.value / self.outcome - 1 if self.outcome else math.nan


def by_quantity(records: Iterable[ScalingRecord]) -> dict[Quantity, list[ScalingRecord]]:
    """Records by what was measured. Losses belong to a checkpoint and its task, so each checkpoint
    counts once among them; of a setting measured twice the later one counts."""
    curves: dict[Quantity, dict[object, ScalingRecord]] = defaultdict(dict)
    for record in sorted(records, key=lambda record: record.time):
        checkpoint = (
            record.run,
            record.config,
            record.seed,
            record.images_seen,
            record.params_total,
        )
        tuned = bool(record.parent or record.inherited_flops)
        if record.loss is not None:
            loss = Quantity(
                record.task, LOSS, True, record.dataset, "", "", 0, 0, record.size, tuned
            )
            curves[loss][checkpoint] = record
        if record.value is not None:
            measured = [getattr(record, name) for name in Quantity._fields if name != "tuned"]
            curves[Quantity._make([*measured, tuned])][checkpoint] = record
    return {quantity: list(rows.values()) for quantity, rows in curves.items()}


def errors_of(quantity: Quantity, records: Sequence[ScalingRecord]) -> np.ndarray:
    """The column to fit, "n": the loss, the metric, or 1 - it where higher is better."""
    if quantity.metric == LOSS:
        return np.array([record.loss for record in records], dtype=float)
    values = np.array([record.value for record in records], dtype=float)
    return values if quantity.lower_is_better else 1 - values


def most_samples(records: Sequence[ScalingRecord]) -> list[ScalingRecord]:
    """Of records that differ in distinct samples alone, those with the most: the others saw the
    same images more often."""
    most: dict[object, int] = Counter()
    for record in records:
        most[_place(record)] = max(most[_place(record)], record.samples or 0)
    return [record for record in records if (record.samples or 0) == most[_place(record)]]


def _place(record: ScalingRecord) -> tuple[object, ...]:
    return record.model, record.params_active, record.images_seen, record.inherited_flops


def settled(records: Sequence[ScalingRecord]) -> bool:
    """Whether parameters and images say what a point is: where runs started from weights of several
    pretraining budgets, they do not."""
    budgets: dict[object, set[str]] = defaultdict(set)
    for record in records:
        inherited = f"{record.inherited_flops or 0.0:.6g}"  # sums round
        budgets[record.params_active, record.images_seen].add(inherited)
    return all(len(spent) == 1 for spent in budgets.values())


def size_and_data(records: Sequence[ScalingRecord]) -> np.ndarray:
    """Active parameters and images seen, "n 2"."""
    return np.array([(record.params_active, record.images_seen) for record in records], dtype=float)


def forecasts(
    records: Sequence[ScalingRecord],
    target: ForecastTarget,
    *,
    form: str = FORM,
    level: float = PREDICTIVE,
    bootstrap: int = 400,
    seed: int = 0,
) -> Iterator[Forecast]:
    """What each quantity of the records will be at the target, by a law in parameters and images.

    Quantities with too few points for the law are left out, and so are points without a logarithm,
    points with fewer distinct samples than another one of their place, and quantities that
    parameters and images do not settle.
    """
    assert bootstrap > 0, "a forecast has an interval"
    now = datetime.now(UTC).isoformat(timespec="seconds")
    for quantity, rows in by_quantity(records).items():
        rows = most_samples([record for record, e in zip(rows, errors_of(quantity, rows)) if e > 0])
        if len(rows) < 2 or not settled(rows):
            continue
        errors = errors_of(quantity, rows)
        x, runs = size_and_data(rows), [record.run for record in rows]
        drawing = {"groups": runs, "bootstrap": bootstrap, "seed": seed}
        law = fit(form, x, errors, inputs=["params", "images"], **drawing)
        if law.verdict == "too few points":
            continue
        at = float(target.params_active), float(target.images_seen)
        expected = law.forecast(at, level=level)
        ends = [expected.value, expected.lo, expected.hi]
        if not quantity.lower_is_better:
            ends = [1 - expected.value, 1 - expected.hi, 1 - expected.lo]
        yield Forecast(
            made=now,
            run=target.name,
            params_active=target.params_active,
            images_seen=target.images_seen,
            **quantity._asdict(),
            form=law.form,
            formula=law.formula,
            points=law.n,
            runs=len(set(runs)),
            reach=float(math.prod(at) / x.prod(axis=1).max()),
            value=ends[0],
            lo=ends[1],
            hi=ends[2],
            level=level,
            verdict=law.verdict,
            warnings=(*law.warnings, *expected.warnings),
        )


def scored(
    forecasts: Iterable[Forecast], records: Sequence[ScalingRecord]
) -> tuple[list[ScoredForecast], list[Forecast]]:
    """Forecasts with their outcome, and those that still wait for one. A record counts that was
    measured after the forecast was made, on a run of that size and amount."""
    known = by_quantity(records)
    known_outcomes, waiting = [], []
    for forecast in forecasts:
        place = (forecast.params_active, forecast.images_seen)
        later = [
            record
            for record in known.get(forecast.quantity, [])
            if (record.params_active, record.images_seen) == place and record.time >= forecast.made
        ]
        if not later:
            waiting.append(forecast)
            continue
        outcome = later[-1].loss if forecast.metric == LOSS else later[-1].value
        assert outcome is not None
        inside = forecast.lo <= outcome <= forecast.hi
        known_outcomes.append(ScoredForecast(forecast, outcome, later[-1].time, inside))
    return known_outcomes, waiting


def append_forecasts(path: str | Path, made: Iterable[Forecast]) -> None:
    """Add lines to a ledger of forecasts."""
    append_lines(path, (plain(asdict(forecast)) for forecast in made))


def read_forecasts(path: str | Path) -> list[Forecast]:
    """The forecasts of a ledger; [] where there is none. A line cut short by a crash is left out.

    Raises:
        DataFormatError: a line is no forecast; the message names it.
    """
    path, made = Path(path), []
    for where, line in whole_lines(path) if path.is_file() else ():
        try:
            row = json.loads(line or "null")
            if row is not None:
                row |= {key: math.nan for key, value in row.items() if value is None}
                made.append(Forecast(**row | {"warnings": tuple(row["warnings"])}))
        except (json.JSONDecodeError, TypeError, KeyError) as error:
            raise DataFormatError(f"{where}: not a forecast ({error}).") from error
    return made
