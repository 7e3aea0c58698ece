"""Protocols: how a prediction becomes a number. Every reported number carries its protocol's id.

`PROTOCOLS` is the table of the room, put together from the rows that the settings of the tasks name
(`tasks.config`). The first row of a task is the task's default.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from stepsight.errors import UserError, suggest
from stepsight.metrics.protocols.row import Averaging, Protocol
from stepsight.plugins import Registry, resolve
from stepsight.tasks.config import scored_tasks

__all__ = ["PROTOCOLS", "Averaging", "Protocol", "default_for", "get"]


class _Protocols(Registry[Protocol]):
    def _added(self) -> Mapping[str, Protocol]:
        # each reference once, as tasks may share their rows
        return _rows(tuple(dict.fromkeys(task.protocols for task in scored_tasks().values())))


@cache
def _rows(references: tuple[str, ...]) -> Mapping[str, Protocol]:
    """The protocols that "module:rows" name. Raises UserError where two have one name."""
    rows: dict[str, Protocol] = {}
    for row in (row for reference in references if reference for row in resolve(reference)):
        if rows.setdefault(row.name, row) is not row:
            raise UserError(f"two tasks bring a protocol '{row.name}'. Rename one of them.")
    return rows


PROTOCOLS: Registry[Protocol] = _Protocols({}, "tasks")


def get(name: str, task: str | None = None) -> Protocol:
    """The protocol of that name. Raises UserError if there is none, or if it scores another task
    than `task`."""
    row = PROTOCOLS.get(name)
    if row is None or task not in (None, row.task):
        fitting = [other.name for other in PROTOCOLS.values() if task in (None, other.task)]
        what = f" for the task '{task}'" if task else ""
        raise UserError(f"There is no protocol '{name}'{what}.{suggest(name, fitting)}")
    return row


def default_for(task: str) -> Protocol:
    """The task's first protocol. Raises UserError where the task has none."""
    defaults = {row.task: row for row in reversed(list(PROTOCOLS.values()))}
    if task not in defaults:
        raise UserError(f"No protocol scores the task '{task}'.{suggest(task, defaults)}")
    return defaults[task]
