"""Protocols: how a prediction becomes a number. Every reported number carries its protocol's id.

`PROTOCOLS` is the table of the room, put together from the files of `protocols`. The first row of a
task is the task's default.
"""

from __future__ import annotations

from stepsight.errors import UserError, suggest
from stepsight.metrics.protocols import depth, flow, other, segmentation
from stepsight.metrics.protocols.row import Averaging, Protocol

__all__ = ["PROTOCOLS", "Averaging", "Protocol", "default_for", "get"]

PROTOCOLS: dict[str, Protocol] = {
    row.name: row for room in (depth, flow, segmentation, other) for row in room.ROWS
}


def get(name: str, task: str | None = None) -> Protocol:
    """The protocol of that name. Raises UserError if there is none, or if it scores another task
    than `task`."""
    fitting = [row.name for row in PROTOCOLS.values() if task in (None, row.task)]
    if name not in fitting:
        what = f" for the task '{task}'" if task else ""
        raise UserError(f"There is no protocol '{name}'{what}.{suggest(name, fitting)}")
    return PROTOCOLS[name]


def default_for(task: str) -> Protocol:
    """The task's first protocol. Raises UserError where the task has none."""
    defaults = {row.task: row for row in reversed(PROTOCOLS.values())}
    if task not in defaults:
        raise UserError(f"No protocol scores the task '{task}'.{suggest(task, defaults)}")
    return defaults[task]
