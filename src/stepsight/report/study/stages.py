"""study.json and the folders of its stages, as the page of a study sees them.

A study may be looked at while it works: a stage that waits, works or failed has what it left so
far.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepsight.errors import DataFormatError, UserError
from stepsight.measures import measure
from stepsight.report.run_folder import Row, validation_lines
from stepsight.report.study.contents import LOSS, StudyPoint, error_of
from stepsight.report.study.table import points_of_sweep
from stepsight.results import Result, read_results
from stepsight.scaling import records
from stepsight.scaling.reading import read_json, read_text
from stepsight.scaling.records import ScalingRecord
from stepsight.scaling.sampling.sweeps import read_sweep

STATUS = "study.json"
# By what a stage is compared in: the figure, and the label that names its line.
COMPARED = {
    "model size": ("finetuning", "size"),
    "task": ("finetuning", "size"),
    "resolution": ("resolution", "resolution"),
    "noise schedule": ("schedule", "schedule"),
    "experts": ("experts", "experts"),
}
HANDED_DOWN = ("model size", "pretraining amount")  # whose last scores stand over pretraining


@dataclass(frozen=True)
class StudyStage:
    """A row of study.json."""

    name: str
    kind: str
    status: str
    folder: Path
    why: str = ""
    gflop: float | None = None
    seconds: float | None = None
    of: tuple[str, ...] = ()  # the comparisons that it belongs to
    labels: Mapping[str, Any] = field(default_factory=dict)

    def label(self, name: str) -> str:
        return str(self.labels.get(name, ""))


@dataclass(frozen=True)
class StudyFolder:
    """A study: its stages, and the points of its figures."""

    path: Path
    name: str
    scale: str
    stages: list[StudyStage]
    points: list[StudyPoint]

    def of(self, status: str) -> list[StudyStage]:
        return [stage for stage in self.stages if stage.status == status]


def read_study(folder: Path) -> StudyFolder:
    """Read what a study left in a folder.

    Raises `UserError` if there is no study.json, `DataFormatError` if a file is damaged.
    """
    path = folder / STATUS
    if not path.is_file():
        raise UserError(f"{path} does not exist. Name a folder that `stepsight study` made.")
    content = read_json(path, {})
    try:
        stages = [_stage(folder, row) for row in content["stages"]]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataFormatError(f"{path}: not the state of a study ({error!r}).") from None
    name, scale = (str(content.get(key, "")) for key in ("name", "scale"))
    points = [point for stage in stages for point in _points(stage, stages)]
    return StudyFolder(folder, name or folder.name, scale, stages, points)


def _stage(folder: Path, row: Mapping[str, Any]) -> StudyStage:
    labels = dict(row.get("labels") or {})
    of = labels.pop("of", [])
    return StudyStage(
        name=str(row["name"]),
        kind=str(row["kind"]),
        status=str(row["status"]),
        folder=folder / str(row["folder"]),
        why=str(row.get("why") or ""),
        gflop=row.get("gflop"),
        seconds=row.get("seconds"),
        of=(of,) if isinstance(of, str) else tuple(map(str, of)),
        labels=labels,
    )


def _points(stage: StudyStage, stages: Sequence[StudyStage]) -> Iterator[StudyPoint]:
    """What a stage adds to the figures."""
    if stage.kind == "sweep":
        table = stage.folder / "sweep.csv"
        if table.is_file():
            cells = read_sweep(table)
            names = {path: _size(path, stages) for path in {cell.checkpoint for cell in cells}}
            yield from points_of_sweep(cells, names)
        return
    ledger = stage.folder / records.FILE_NAME
    if stage.kind != "train" or not ledger.is_file():
        return
    last = _last(records.read(ledger).records, stage.label("task"))
    if last is None:
        return
    if "pretraining" in stage.of:
        every = _curve(stage, last, "pretraining", stage.label("size"), (LOSS,))
        yield from (point._replace(task="") for point in every)
    for comparison, (figure, label) in COMPARED.items():
        if comparison in stage.of:
            before = (last.inherited_flops or 0.0) if figure == "experts" else 0.0
            line = stage.label(label) or stage.name
            yield from _curve(stage, last, figure, line, (LOSS, last.metric), before)
    if set(HANDED_DOWN) & set(stage.of) and last.inherited_flops:
        for result in _results(stage):
            yield _scored(result, "carried", stage.label("size"), last.inherited_flops)


def _size(checkpoint: str, stages: Sequence[StudyStage]) -> str:
    """The size of the stage that made a checkpoint, which may be one of its step folders."""
    parts = Path(checkpoint).parts
    found = (stage for stage in stages if stage.folder.name in parts)
    stage = next(found, None)
    return stage.label("size") or stage.name if stage else Path(checkpoint).name


def _last(rows: Sequence[ScalingRecord], task: str) -> ScalingRecord | None:
    """A record of the longest training, of the task and of its first metric."""
    of_task = [row for row in rows if row.task == task or not task]
    return max(of_task, key=lambda row: row.images_seen, default=None)


def _curve(
    stage: StudyStage,
    last: ScalingRecord,
    figure: str,
    line: str,
    metrics: Sequence[str],
    before: float = 0.0,
) -> Iterator[StudyPoint]:
    """The validations of a run, in compute: that of the last record, by images seen. before: FLOPs
    that were spent before this run."""
    per_image = last.training_flops / last.images_seen
    rows = [row for row in _validations(stage.folder) if row.get("task") == last.task]
    for _, group in validation_lines(rows)[:1]:
        for row in group:
            x = before + per_image * row["images_seen"]
            for metric in metrics:
                y = row.get(LOSS) if metric == LOSS else row["metrics"].get(metric)
                if y is not None:
                    yield StudyPoint(
                        figure, line, x, error_of(metric, y), task=last.task, metric=metric
                    )


def _validations(folder: Path) -> Iterator[Row]:
    """The validation rows of metrics.jsonl; a line that is being written is left out."""
    for line in read_text(folder / "metrics.jsonl").splitlines():
        with suppress(ValueError):
            row = json.loads(line)
            if row.get("kind") == "val":
                yield row


def _results(stage: StudyStage) -> list[Result]:
    """The first scores of the stage's task."""
    every = read_results(stage.folder / "eval" / "results.json")
    task = stage.label("task")
    return [row for row in every if row.main and task in ("", row.task)][:1]


def _scored(result: Result, figure: str, line: str, x: float) -> StudyPoint:
    metric = result.main or LOSS
    known = result.intervals.get(metric, (math.nan, math.nan))
    ends = sorted(error_of(metric, end) for end in known)
    y = measure(metric).error(result.metrics[metric])
    at = f"{result.nfe}x{result.members}"
    return StudyPoint(figure, line, x, y, ends[0], ends[1], result.task, metric, at)
