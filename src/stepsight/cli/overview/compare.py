"""`stepsight compare RUN RUN ...`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from stepsight.errors import UserError


@dataclass(frozen=True)
class Args:
    """Costs, validation losses and scores of runs, side by side."""

    runs: Positional[tuple[Path, ...]]  # run folders that were evaluated
    out: Path | None = None  # also write the tables to this Markdown file


def run(args: Args) -> int:
    from stepsight.report.compare import compare, read_run

    if not args.runs:
        raise UserError("name the run folders to compare.")
    text = compare([read_run(path) for path in args.runs])
    print(text, end="")
    if args.out:
        args.out.write_text(text)
    return 0
