"""The tasks by name: from settings to the object that does the work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import cache

from torch import Tensor

from stepsight.errors import UserError, suggest
from stepsight.measures import measures
from stepsight.metrics.alignment.align import Space
from stepsight.metrics.masked import Rows
from stepsight.metrics.protocol import Protocol, default_for
from stepsight.metrics.protocols.formula import averaged
from stepsight.metrics.reduce import reported
from stepsight.metrics.uncertainty import Stated
from stepsight.plugins import resolve
from stepsight.tasks.base import Task
from stepsight.tasks.config import KNOWN, TABLE, UNSCORED, TaskSettings, scored_tasks
from stepsight.types import Batch


def build_task(settings: TaskSettings) -> Task:
    """The task that `settings` describes. Raises UserError where it declares no metric to be judged
    by, or its protocol reports one that nobody declares."""
    if settings.name not in UNSCORED:
        _check_metrics(type(settings))
    return resolve(settings.implementation)(**asdict(settings))


@cache
def _check_metrics(settings: type[TaskSettings]) -> None:
    if not settings.in_one_line():
        raise UserError(
            f"task {settings.name} declares no metric: list them as `metrics` of "
            f"{settings.__name__}, the main one first (docs/tasks.md)."
        )
    for metric in (*settings.in_one_line(), *default_for(settings.name).metrics):
        if metric not in measures():
            raise UserError(
                f"task {settings.name} is scored by '{metric}', which nobody declares: say whether "
                f"higher or lower is better in `metrics` of {settings.__name__} (docs/tasks.md)."
            )


def build_tasks(settings: Mapping[str, TaskSettings]) -> dict[str, Task]:
    """Tasks by name, in the order of the run's table, which is the order of their label rows."""
    for name in settings:
        if name not in KNOWN:
            raise UserError(f"tasks.{name} is unknown.{suggest(name, TABLE)}")
    return {name: build_task(one) for name, one in settings.items()}


def task_for(name: str, classes: int = 0) -> Task:
    """The task of that name with its usual settings, those without a model included; `classes`
    where it counts any. Raises UserError for an unknown name."""
    known = scored_tasks()
    if name not in known:
        raise UserError(f"There is no task '{name}'.{suggest(name, known)}")
    return _usual(known[name], classes)


@cache
def _usual(settings: type[TaskSettings], classes: int) -> Task:
    counts = classes and "classes" in {f.name for f in fields(settings)}
    return build_task(settings(**({"classes": classes} if counts else {})))


def score(
    values: Tensor, batch: Batch, protocol: Protocol, *, given: Space = "depth", classes: int = 0
) -> Rows:
    """Rows of physical `values` against the truth of `batch`: what the protocol reports, with its
    counts. A model's predictions and those of another program's files are scored alike, so one dump
    may be scored under as many protocols as there are.

    `values` by the protocol's task: depth "b 1 h w" in what `given` says (metres, 1/metres,
    logarithms, if only up to the fit), flow "b 2 h w" in pixels, amodal probability "b 1 h w",
    semantic class ids "b 1 h w", panoptic (class, instance number) "b 2 h w" int64, normals
    "b 3 h w". `classes` counts those of tasks that have any.

    Raises UserError where the batch lacks the truth, a class id has no class, or the alignment
    meets values it cannot take.
    """
    task = task_for(protocol.task, classes)
    return reported(task.score_values(Stated(values, given=given), batch, protocol), protocol)


def formula(rule: Protocol) -> str:
    """The steps of a protocol from prediction to number, `;` between them."""
    return "; ".join([*task_for(rule.task).formula(rule), averaged(rule)])
