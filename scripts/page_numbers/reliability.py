"""Faults committed on purpose."""

from __future__ import annotations

import json

from page_numbers.common import RESULTS, table

RELIABILITY = RESULTS / "reliability.json"


def reliability() -> str:
    """What was done to runs on purpose, and how many times it held (benchmarks/reliability.py)."""
    header = ["figure", "tried", "held", "bar", "worst seen", "protocol", "when"]
    rows, kinds = [], json.loads(RELIABILITY.read_text()) if RELIABILITY.is_file() else {}
    for kind, row in kinds.items():
        protocol = f"`{kind}`: {row['protocol']}"
        when = f"{row['date']}, {'quick' if row['quick'] else 'full'}, {row['seconds']:.0f} s"
        for one in row["tallies"]:
            held = f"{one['held']}" if one["ok"] else f"**{one['held']}**"
            cells = [one["figure"], str(one["tried"]), held, one["bar"], one["worst"]]
            rows.append([*cells, protocol, when])
        if row["error"]:
            rows.append([kind, "0", "**0**", "it can be tried", row["error"], protocol, when])
    rows = [[cell.replace("|", r"\|").replace("\n", " ") for cell in line] for line in rows]
    machines = "; ".join(sorted({row["machine"] for row in kinds.values()}))
    return table(header, rows) + (f"\nMeasured on: {machines}.\n" if machines else "")
