"""What a larger run will reach, said before it is made, dated, and scored once it is there.

A forecast is one line of `forecasts.jsonl`: a loss or metric under one protocol and test-time
setting, at a number of parameters and images, with its interval. It keeps when it was made, on how
many points and in which way (`ways`), and what that way would have said of the ladder's own largest
rungs. It is never changed afterwards; a record of that size and amount scores it.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stepsight.errors import DataFormatError
from stepsight.scaling.intervals import PREDICTIVE
from stepsight.scaling.ladders.ways import RungPoints, Ways, honest
from stepsight.scaling.plain import plain
from stepsight.scaling.records import PIXELS, ScalingRecord, append_lines, whole_lines

FILE_NAME = "forecasts.jsonl"
LOSS = "loss"  # what the validation loss is called among metrics
POOLED = {PIXELS: "size", "params_total": "experts"}  # column of a law: what it may differ in
EXPERTS = re.compile(r"\d+E\d+A$")  # at the end of a model's name


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
    experts: str = ""  # such as 8E2A; of a dense model none

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
    reach: float  # place of the target by N x D, over the largest point's
    value: float
    lo: float
    hi: float
    level: float
    verdict: str
    warnings: tuple[str, ...]
    experts: str = ""
    # What lines of earlier versions lack.
    basis: str = ""  # how it was made, in words
    hits: int = 0  # intervals that held hidden rungs of the ladder, in the same way
    of: int = 0  # 0 where none of them lay beyond the rest, as the target does
    tested: float = math.nan  # reach of the farthest hidden rung
    spent: float = math.nan  # training FLOPs of the ladder's runs, over those of the target

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


def by_quantity(
    records: Iterable[ScalingRecord], inputs: Collection[str] = ()
) -> dict[Quantity, list[ScalingRecord]]:
    """Records by what was measured. Losses belong to a checkpoint and its task, so each checkpoint
    counts once among them; of a setting measured twice the later one counts.

    inputs: columns of a law. One in pixels goes through all working sizes, and one in all
    parameters through dense models and experts (`POOLED`), which are apart otherwise.
    """
    pooled = {field: "" for name, field in POOLED.items() if name in inputs}
    curves: dict[Quantity, dict[object, ScalingRecord]] = defaultdict(dict)
    for record in sorted(records, key=lambda record: record.time):
        checkpoint = (
            record.run,
            record.config,
            record.seed,
            record.images_seen,
            record.params_total,
        )
        kind: dict[str, Any] = {
            "size": record.size,
            "tuned": bool(record.parent or record.inherited_flops),
            "experts": experts_of(record),
        } | pooled
        if record.loss is not None:
            loss = Quantity(record.task, LOSS, True, record.dataset, "", "", 0, 0, **kind)
            curves[loss][checkpoint] = record
        if record.value is not None:
            measured: dict[str, Any] = {
                name: getattr(record, name) for name in Quantity._fields if name not in kind
            }
            curves[Quantity(**measured, **kind)][checkpoint] = record
    return {quantity: list(rows.values()) for quantity, rows in curves.items()}


def experts_of(record: ScalingRecord) -> str:
    """The experts of a model by its name, such as 8E2A; "" for a dense one."""
    found = EXPERTS.search(record.model)
    return found.group() if found else ""


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
    trunks: Mapping[str, str] | None = None,
    spent: float | None = None,
    level: float = PREDICTIVE,
) -> Iterator[Forecast]:
    """What each quantity of the records will be at the target, by laws in parameters and images.

    trunks: of runs that branch off another one, the name of that one (`trunks_of`): they share
    its luck. spent: training FLOPs of the ladder over those of the target, by default as its
    records tell, which know no trunks.

    Quantities with too few points for a law are left out, and so are points without a logarithm,
    points with fewer distinct samples than another one of their place, and quantities that
    parameters and images do not settle.
    """
    now, ways = datetime.now(UTC).isoformat(timespec="seconds"), Ways()
    at = np.array([target.params_active, target.images_seen], dtype=float)
    for quantity, rows in by_quantity(records).items():
        rows = most_samples([record for record, e in zip(rows, errors_of(quantity, rows)) if e > 0])
        if len(rows) < 2 or not settled(rows):
            continue
        points = _points(quantity, rows, trunks or {})
        way, rehearsal = ways.best(points, level)
        if way.verdict == "too few points":
            continue
        expected = honest(way.forecast(at, level), points.scatter, rehearsal)
        ends = [expected.value, expected.lo, expected.hi]
        if not quantity.lower_is_better:
            ends = [1 - min(error, 1.0) for error in (expected.value, expected.hi, expected.lo)]
        limits = rehearsal.limits(level) if rehearsal else ()
        known = math.nan if trunks else _spent(rows, at)
        yield Forecast(
            made=now,
            run=target.name,
            params_active=target.params_active,
            images_seen=target.images_seen,
            **quantity._asdict(),
            form=way.form,
            formula=way.formula,
            points=len(rows),
            runs=len({record.run for record in rows}),
            reach=float(at.prod() / points.x.prod(axis=1).max()),
            value=ends[0],
            lo=ends[1],
            hi=ends[2],
            level=level,
            verdict=way.verdict,
            warnings=(*way.warnings, *expected.warnings),
            basis="; ".join((way.name, expected.basis, *limits)),
            hits=rehearsal.hits if rehearsal and rehearsal.beyond else 0,
            of=rehearsal.of if rehearsal and rehearsal.beyond else 0,
            tested=rehearsal.reach if rehearsal else math.nan,
            spent=known if spent is None else spent,
        )


def trunks_of(rungs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Of the rungs of a ladder and their trunks, "" where they have none, the runs that branch off
    another one and that one, by the names that they have in records."""
    return {_run(name): _run(trunk) for name, trunk in rungs if trunk}


def _run(rung: str) -> str:
    """The name of a rung's folder."""
    return rung.rpartition("/")[2]


def _points(
    quantity: Quantity, rows: Sequence[ScalingRecord], trunks: Mapping[str, str]
) -> RungPoints:
    losses = None
    if quantity.metric != LOSS and all((record.loss or 0.0) > 0 for record in rows):
        losses = np.array([record.loss for record in rows], dtype=float)
    groups = tuple(trunks.get(record.run, record.run) for record in rows)
    return RungPoints(size_and_data(rows), errors_of(quantity, rows), losses, groups)


def _spent(rows: Sequence[ScalingRecord], at: np.ndarray) -> float:
    """Training FLOPs of all runs over those of the target, which by the median of the runs costs so
    many a parameter and image. Of a run all checkpoints are paid for by the last one."""
    per_image = [row.training_flops / (row.params_active * row.images_seen) for row in rows]
    by_run: dict[str, float] = defaultdict(float)
    for row in rows:
        by_run[row.run] = max(by_run[row.run], row.training_flops)
    return float(sum(by_run.values()) / (np.median(per_image) * at.prod()))


def scored(
    forecasts: Iterable[Forecast], records: Sequence[ScalingRecord]
) -> tuple[list[ScoredForecast], list[Forecast]]:
    """Forecasts with their outcome, and those that still wait for one. The first record counts that
    was measured after the forecast was made, of the run that it names; where none has that name, on
    a run of that size and amount."""
    known = _in_order(records)
    known_outcomes, waiting = [], []
    for forecast in forecasts:
        place = (forecast.params_active, forecast.images_seen)
        later = [
            record
            for record in known[forecast.quantity]
            if (record.params_active, record.images_seen) == place and record.time >= forecast.made
        ]
        own = [record for record in later if record.run == _run(forecast.run)]
        if not later:
            waiting.append(forecast)
            continue
        first = (own or later)[0]
        outcome = first.loss if forecast.metric == LOSS else first.value
        assert outcome is not None
        inside = forecast.lo <= outcome <= forecast.hi
        known_outcomes.append(ScoredForecast(forecast, outcome, first.time, inside))
    return known_outcomes, waiting


def _in_order(records: Iterable[ScalingRecord]) -> dict[Quantity, list[ScalingRecord]]:
    """Records by what was measured, the earliest first, each time that it was."""
    found: dict[Quantity, list[ScalingRecord]] = defaultdict(list)
    for record in sorted(records, key=lambda record: record.time):
        for quantity in by_quantity([record]):
            found[quantity].append(record)
    return found


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
