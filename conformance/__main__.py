"""`python -m conformance`: measure all rows, or some, and keep what they gave.

Exit status 1 where a row is above its bar. With --write the agreement is stored beside this file,
row by row, and docs/conformance.md is made from it; rows that lack something keep their last one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import torch

from conformance.rows import Agreement, Row, all_rows, run

STORED = Path(__file__).with_name("agreement.json")
PAGE = Path(__file__).parents[1] / "docs" / "conformance.md"
HEAD = """# Conformance

How closely others' own code is followed, on the same random weights and inputs, in float32 on a
CPU: `uv run --group conformance python -m conformance`. *Worst* is the largest difference over the
largest value, in the worst case of the row; *bar* is what it may be. Rows whose oracle is a
repository compare with answers that its code gave once, which are not part of this one. No
published weights were at hand: layouts are the publishers', weights are random.
"""


PRECISION = """
## Precisions

Mean difference from the float32 answer over that answer's deviation, one member from the same
noise, and the memory of all weights over that in float32 (norms and embeddings stay as they are).
Random weights amplify rounding as trained ones need not.

| what | bf16 | fp16 | memory |
|---|---|---|---|"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m conformance", description=__doc__)
    parser.add_argument("only", nargs="*", help="words that a row's kind or name must contain")
    parser.add_argument("--write", action="store_true", help="store the agreement, make the page")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        row for row in all_rows() if all(word in f"{row.kind} {row.name}" for word in args.only)
    ]
    found = [agreement for row in rows if (agreement := _measured(row))]
    if args.write:
        _write(found)
    broken = [f"{one.row.kind} {one.row.name}" for one in found if not one.holds]
    seconds = sum(one.seconds for one in found)
    print(f"{len(found)} of {len(rows)} rows measured in {seconds:.0f} s, {len(broken)} above")
    return int(bool(broken))


def _measured(row: Row) -> Agreement | None:
    if row.lacks:
        print(f"skipped  {row.kind:9} {row.name}: {row.lacks}")
        return None
    found = run(row)
    worst = max(found.differences, key=lambda case: found.differences[case])
    verdict = "holds" if found.holds else "ABOVE"
    figures = f"{found.worst:.1e} ({worst}), bar {row.bar:.0e}, {found.seconds:.1f} s"
    print(f"{verdict:8} {row.kind:9} {row.name}: {figures}", flush=True)
    return found


def _write(found: list[Agreement]) -> None:
    stored: dict[str, Any] = json.loads(STORED.read_text()) if STORED.exists() else {}
    for one in found:
        stored[f"{one.row.kind} {one.row.name}"] = {
            "worst": float(f"{one.worst:.2g}"),
            "cases": len(one.differences),
            "date": date.today().isoformat(),
        }
        if one.row.kind == "precision":
            told = {name: float(f"{x:.2g}") for name, x in one.differences.items()}
            stored[f"{one.row.kind} {one.row.name}"]["told"] = told
    named = {f"{row.kind} {row.name}": row for row in all_rows()}
    stored = {name: stored[name] for name in sorted(stored) if name in named}
    STORED.write_text(json.dumps(stored, indent=1) + "\n")
    PAGE.write_text(page(named, stored))


def page(named: dict[str, Row], stored: dict[str, Any]) -> str:
    """docs/conformance.md."""
    parts = [HEAD]
    for kind in dict.fromkeys(row.kind for row in named.values() if row.kind != "precision"):
        parts.append(f"\n## {kind.capitalize()}s\n")
        parts.append("| what | compared | oracle | cases | worst | bar | measured |")
        parts.append("|---|---|---|---|---|---|---|")
        for name, row in named.items():
            if row.kind == kind:
                kept = stored.get(name, {"cases": "", "worst": "not measured", "date": ""})
                cells = [row.name, row.says, row.oracle, kept["cases"], kept["worst"]]
                cells += [f"{row.bar:g}", kept["date"]]
                parts.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join([*parts, PRECISION, *_precisions(named, stored)]) + "\n"


def _precisions(named: dict[str, Row], stored: dict[str, Any]) -> Iterator[str]:
    """Lines of the table of what fewer bits change."""
    for name, row in named.items():
        if row.kind == "precision":
            told = stored.get(name, {}).get("told", {})
            cells = [told.get(key, "") for key in ("bf16", "fp16", "bf16 memory")]
            yield f"| {row.name} | {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    sys.exit(main())
