"""What a report on scaling is made of: records, forecasts, and the rungs of ladders.

Any number of ledgers and folders, from any number of machines. A folder may hold ladders, whose
`ladder.json` says what became of each rung, and forecasts, which the records score.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepsight.errors import DataFormatError, UserError
from stepsight.scaling import records
from stepsight.scaling.ladders import forecast
from stepsight.scaling.ladders.forecast import Forecast, ForecastTarget, ScoredForecast
from stepsight.scaling.ladders.launch import STATUS, last_loss
from stepsight.scaling.reading import read_json
from stepsight.scaling.records import ScalingRecord

TUNING = "tune-"  # how the names of stages of short runs begin
IMAGES = "training.images"


@dataclass(frozen=True)
class RungStatus:
    """A rung of a ladder and what became of it."""

    ladder: Path
    name: str
    state: str
    seconds: float
    why: str
    factor: float
    images: int | None
    trunk: str = ""  # rung whose steps it took over

    @property
    def tuning(self) -> bool:
        """Whether it is one of the short runs that choose a learning rate."""
        return self.name.startswith(TUNING)


@dataclass(frozen=True)
class Tuned:
    """Validation losses of one size or kind by the factor of its learning rate."""

    name: str
    losses: dict[float, float | None]  # None where a run failed or its folder is not at hand

    @property
    def kept(self) -> float | None:
        """The factor of the lowest loss."""
        known = {factor: loss for factor, loss in self.losses.items() if loss is not None}
        return min(known, key=lambda factor: known[factor]) if known else None

    @property
    def at_edge(self) -> bool:
        """Whether the best factor is the smallest or the largest tried, so that one beyond it may
        be better."""
        return len(self.losses) > 1 and self.kept in (min(self.losses), max(self.losses))


@dataclass(frozen=True)
class ScalingFolder:
    """The contents of ledgers and folders; see `read_scaling`."""

    records: list[ScalingRecord]
    notes: list[str]
    rungs: list[RungStatus]
    tuned: list[Tuned]
    settled: list[ScoredForecast]
    waiting: list[Forecast]

    @property
    def failed(self) -> list[RungStatus]:
        return [rung for rung in self.rungs if rung.state == "failed"]

    @property
    def trunks(self) -> dict[str, str]:
        """Of runs that branched off another one, by name, that one."""
        return forecast.trunks_of((rung.name, rung.trunk) for rung in self.rungs)


def read_scaling(paths: Sequence[str | Path], out: Path) -> ScalingFolder:
    """Read and merge records, ladders and forecasts; those of `out`, the report's folder, count.

    Raises:
        UserError: there are no records, or a path does not exist.
        DataFormatError: a file is damaged; the message names it.
    """
    found, notes = records.read(*paths)
    searched = ", ".join(map(str, paths))
    if not found:
        raise UserError(
            f"No records {f'found under {searched}' if searched else 'without a path'}. Name run "
            f"folders, or the folder of a ladder, that hold a {records.FILE_NAME}; evaluation "
            "writes one."
        )
    rungs = [rung for path in _within(paths, STATUS) for rung in _rungs(path)]
    settled, waiting = forecast.scored(_forecasts(paths, out), found)
    return ScalingFolder(found, notes, rungs, _tuned(rungs), settled, waiting)


def new_forecasts(
    folder: ScalingFolder, target: ForecastTarget, out: Path
) -> tuple[list[Forecast], list[str]]:
    """Forecasts of a run that has not been made, dated now, added to those of `out`; and notes.

    What `out` has forecast for such a run is left as it is: a forecast made after its outcome would
    be none.

    Raises:
        UserError: a run of that size and amount was measured already, or no quantity has enough
            points for a law.
    """
    place = target.params_active, target.images_seen
    path = out / forecast.FILE_NAME
    known = [one for one in forecast.read_forecasts(path) if _place(one) == place]
    if known:
        return [], [f"{target.name} was forecast on {known[0].made}; that forecast stands"]
    if any((record.params_active, record.images_seen) == place for record in folder.records):
        raise UserError(
            f"--forecast {target.name}: a run with {place[0]} parameters and {place[1]} images is "
            "among the records. Choose a run that has not been made."
        )
    made = list(forecast.forecasts(folder.records, target, trunks=folder.trunks))
    if not made:
        raise UserError(
            f"--forecast {target.name}: {len(folder.records)} records are too few points for a law "
            "in parameters and images. Measure more sizes and amounts first."
        )
    forecast.append_forecasts(path, made)
    return made, []


def _place(forecast: Forecast) -> tuple[int, int]:
    return forecast.params_active, forecast.images_seen


def _within(paths: Iterable[str | Path], name: str) -> list[Path]:
    """Files of that name in folders, each once."""
    files: dict[Path, Path] = {}
    for folder in filter(Path.is_dir, map(Path, paths)):
        for file in sorted(folder.rglob(name)):
            files.setdefault(file.resolve(), file)
    return list(files.values())


def _forecasts(paths: Sequence[str | Path], out: Path) -> list[Forecast]:
    """Forecasts in the order in which they were made; copies count once."""
    files = _within([*paths, out], forecast.FILE_NAME)
    every = dict.fromkeys(one for file in files for one in forecast.read_forecasts(file))
    return sorted(every, key=lambda one: one.made)


def _rungs(path: Path) -> list[RungStatus]:
    return [_rung(path, row) for row in read_json(path, [])]


def _rung(path: Path, row: Any) -> RungStatus:
    try:
        images = (row.get("settings") or {}).get(IMAGES)
        return RungStatus(
            ladder=path.parent,
            name=str(row["name"]),
            state=str(row["state"]),
            seconds=float(row.get("seconds") or 0.0),
            why=str(row.get("why") or ""),
            factor=float(row.get("factor", 1.0)),
            images=None if images is None else int(images),
            trunk=str(row.get("trunk") or ""),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataFormatError(f"{path}: not the state of a ladder ({error!r}).") from error


def _tuned(rungs: Iterable[RungStatus]) -> list[Tuned]:
    """The short runs, one entry for what was tuned."""
    losses_of: dict[tuple[Path, str], dict[float, float | None]] = {}
    for rung in filter(lambda rung: rung.tuning, rungs):
        what = rung.name.rpartition("/")[2].rpartition("-x")[0]
        loss = last_loss(rung.ladder / rung.name, rung.images or 0)
        losses_of.setdefault((rung.ladder, what), {})[rung.factor] = loss
    return [
        Tuned(what, {factor: losses[factor] for factor in sorted(losses)})
        for (_, what), losses in losses_of.items()
    ]
