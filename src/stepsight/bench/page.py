"""Ratios as tables on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import StringIO
from itertools import groupby
from typing import Any

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from stepsight.bench.comparing import RatioChange
from stepsight.bench.running import Document

WIDTH = 110
COLOURS = {"slower": "red", "faster": "green", "gone": "yellow", "new": "yellow", "same": "dim"}
HEADS = {"speed": "times as fast as", "memory": "times the memory of", "exponent": "grows with"}


def measured(document: Document, colour: bool = False) -> str:
    """All benches: what was timed, and a table for each piece of work."""
    m, v = document["machine"], document["versions"]
    where = ", ".join(filter(None, [f"{m['cores']} x {m['cpu']}", *m["instructions"], m["gpu"]]))
    said = ", ".join(f"{name} {value}" for name, value in v.items())
    parts: list[Any] = [escape(where), escape(said), f"load {document['load']}"]
    for name, rows in groupby(document["rows"], lambda row: row["bench"]):
        parts += ["", Text(name, style="bold"), escape(document["protocols"][name])]
        for (case, kind, peer), sides in groupby(rows, _work):
            parts += [Text(f"{case}: {HEADS[kind]} {peer}", style="italic"), _table(sides)]
    return _printed(parts, colour)


def _work(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["case"], row["kind"], row["peer"]


def compared(found: Sequence[RatioChange], notes: Iterable[str], colour: bool = False) -> str:
    """What became of every ratio, notes ahead and a line that sums up at the end."""
    table = _head("bench", "case", "side", "before", "now", "gain", "")
    for one in found:
        gain = f"{one.gain:.2f} ± {one.tolerance:.2f}" if one.before and one.now else ""
        answer = Text(one.answer, style=COLOURS[one.answer])
        table.add_row(*map(escape, one.place), _figure(one.before), _figure(one.now), gain, answer)
    counts = {kind: sum(one.answer == kind for one in found) for kind in COLOURS}
    summary = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    return _printed(
        [*(f"note: {escape(note)}" for note in notes), table, summary or "nothing"], colour
    )


def _table(rows: Iterable[dict[str, Any]]) -> Table:
    table = _head("side", "ms", "least to most", "ratio", "±", "reference")
    for column, width in zip(table.columns, (36, 8, 18, 7, 6, 9)):
        column.min_width = width  # tables of a bench stand below each other
    for row in rows:
        ms = row["ms"] and [_milliseconds(value) for value in row["ms"]]
        times = (ms[0], f"{ms[1]} to {ms[2]}") if ms else ("", "")
        ratio, spread = _figure(row["ratio"]), f"{abs(row['ratio']) * row['spread'] / 2:.2f}"
        cells = (f"  {row['side']}", *times, ratio, spread, _figure(row["reference"]))
        table.add_row(*map(escape, cells), style="bold" if row["side"].startswith("ours") else "")
    return table


def _head(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in names:
        numbers = name in ("ms", "ratio", "±", "before", "now", "reference")
        table.add_column(name, justify="right" if numbers else "left", no_wrap=numbers)
    return table


def _milliseconds(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"


def _printed(parts: Sequence[Any], colour: bool) -> str:
    file = StringIO()
    Console(file=file, width=WIDTH, force_terminal=colour, highlight=False).print(Group(*parts))
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())
