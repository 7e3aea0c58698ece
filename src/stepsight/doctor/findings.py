"""What a check found, and how findings are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

Status = Literal["ok", "warn", "fail"]
COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red"}
WIDTH = 110


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it stands, and what to do about it; nothing where it is well."""

    check: str
    status: Status
    seen: str
    advice: str = ""

    def row(self) -> dict[str, Any]:
        return asdict(self)


def page(title: str, findings: Sequence[Finding], colour: bool = False) -> str:
    """A table of findings, with a line that sums up."""
    file = StringIO()
    console = Console(file=file, width=WIDTH, force_terminal=colour, highlight=False)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for one in findings:
        said = escape(one.seen) + (f"\n[bold]-> {escape(one.advice)}[/]" if one.advice else "")
        table.add_row(f"[{COLOURS[one.status]}]{one.status}[/]", one.check, said)
    console.print(escape(title), style="bold", soft_wrap=True)
    console.print(table)
    console.print(summary(findings))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def summary(findings: Sequence[Finding]) -> str:
    counts = {status: sum(one.status == status for one in findings) for status in COLOURS}
    if not counts["warn"] and not counts["fail"]:
        return f"{counts['ok']} checks, all well."
    parts = [f"{counts['ok']} well"]
    parts += [f"{counts['warn']} to think about"] if counts["warn"] else []
    parts += [f"{counts['fail']} to mend before a long run"] if counts["fail"] else []
    return f"{len(findings)} checks: {', '.join(parts)}."
