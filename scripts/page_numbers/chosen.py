"""Whether the intervals of the planner's choices hold on other images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from page_numbers.common import LABELS, MAIN, rows_of, table


def chosen() -> str:
    """Per task, and in all, how many outcomes lay inside."""
    header = ["task", "metric", "settings", "looked up", "inside 90 %"]
    header += ["of values as measured", "expectation better than outcome"]
    rows = rows_of("test-time-chosen.csv")
    lines = [_line(task, [row for row in rows if row["task"] == task]) for task in MAIN]
    return table(header, [*lines, _line("all", rows)])


def _line(name: str, rows: Sequence[Mapping[str, str]]) -> list[str]:
    answers, inside, seen = (
        sum(int(row[column]) for row in rows) for column in ("answers", "inside", "seen_inside")
    )
    better = sum(float(row["better"]) * int(row["answers"]) for row in rows) / answers
    metric = LABELS[MAIN[name]] if name in MAIN else ""
    shares = f"**{inside / answers:.3f}**", f"{seen / answers:.3f}", f"{100 * better:+.2f} %"
    return [name, metric, str(len(rows)), str(answers), *shares]
