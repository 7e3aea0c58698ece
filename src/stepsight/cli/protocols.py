"""`stepsight protocols`: how predictions become numbers."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from stepsight.errors import UserError, suggest

if TYPE_CHECKING:
    from stepsight.metrics.protocol import Protocol

WIDTH = 100


@dataclass(frozen=True)
class Args:
    """The protocols there are, with ids, formulas and where they come from."""

    task: str | None = None  # only the protocols of this task
    json: bool = False  # all fields, for programs


def run(args: Args) -> int:
    rows = _chosen(args.task)
    print(json.dumps([_fields(row) for row in rows], indent=2) if args.json else _text(rows))
    return 0


def _chosen(task: str | None) -> list[Protocol]:
    from stepsight.metrics.protocol import PROTOCOLS

    tasks = {row.task for row in PROTOCOLS.values()}
    if task is not None and task not in tasks:
        raise UserError(f"--task {task}: no protocol scores it.{suggest(task, tasks)}")
    return [row for row in PROTOCOLS.values() if task in (None, row.task)]


def _fields(row: Protocol) -> dict[str, Any]:
    from stepsight.tasks.table import formula

    return {"id": row.id, "formula": formula(row)} | asdict(row)


def _text(rows: list[Protocol]) -> str:
    """The protocols by task, the task's default first."""
    tasks = dict.fromkeys(row.task for row in rows)
    blocks = []
    for task in tasks:
        of_task = [row for row in rows if row.task == task]
        blocks.append(f"{task}: default {of_task[0].name}")
        blocks += ["\n".join(_lines(row)) for row in of_task]
    return "\n\n".join(blocks)


def _lines(row: Protocol) -> Iterator[str]:
    from stepsight.tasks.table import formula

    yield f"  {row.id}"
    yield from _wrapped(row.description)
    yield from _wrapped(formula(row))
    if row.metrics:
        yield from _wrapped(f"metrics: {', '.join(row.metrics)}")
    if row.data:
        where = " ".join(filter(None, [row.data, row.split]))
        size = f", {row.count} images" if row.count else ""
        yield from _wrapped(f"data: {where}{size}{_side(row.working)}")
    yield from _wrapped(f"source: {row.source}")


def _side(working: int | None) -> str:
    if working is None:
        return ""
    seen = f"{working} px on the longer side" if working else "the image at its native size"
    return f"; the model sees {seen}"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="    ", subsequent_indent="      ")
