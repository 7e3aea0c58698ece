"""`stepsight protocols`: the protocols there are, with ids, formulas and where they come from."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from stepsight.errors import UserError, suggest

if TYPE_CHECKING:
    from stepsight.metrics.protocol import Protocol

WIDTH = 100


def run(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="stepsight protocols", description=__doc__)
    parser.add_argument("--task", help="only the protocols of this task")
    parser.add_argument("--json", action="store_true", help="all fields, for programs")
    door = parser.parse_args(arguments)
    rows = _chosen(door.task)
    print(json.dumps([_fields(row) for row in rows], indent=2) if door.json else _text(rows))
    return 0


def _chosen(task: str | None) -> list[Protocol]:
    from stepsight.metrics.protocol import PROTOCOLS

    tasks = {row.task for row in PROTOCOLS.values()}
    if task is not None and task not in tasks:
        raise UserError(f"No protocol scores the task '{task}'.{suggest(task, tasks)}")
    return [row for row in PROTOCOLS.values() if task in (None, row.task)]


def _fields(row: Protocol) -> dict[str, Any]:
    from stepsight.metrics.protocols.formula import formula

    return {"id": row.id, "formula": formula(row)} | asdict(row)


def _text(rows: list[Protocol]) -> str:
    """The protocols by task, the task's default first."""
    tasks = dict.fromkeys(row.task for row in rows)
    blocks = []
    for task in tasks:
        found = [row for row in rows if row.task == task]
        blocks.append(f"{task}: default {found[0].name}")
        blocks += ["\n".join(_lines(row)) for row in found]
    return "\n\n".join(blocks)


def _lines(row: Protocol) -> Iterator[str]:
    from stepsight.metrics.protocols.formula import formula

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
