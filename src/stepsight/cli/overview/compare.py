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
    out: Path | None = None  # also write them to this Markdown file, or as a page to one in .html


def run(args: Args) -> int:
    from stepsight.report.compare import compare, read_runs, write_comparison

    if not args.runs:
        raise UserError("name the run folders to compare.")
    runs = read_runs(args.runs)
    text = compare(runs)
    print(text, end="")
    if args.out and args.out.suffix == ".html":
        print(f"written to {write_comparison(runs, args.out)}")
    elif args.out:
        args.out.write_text(text)
    return 0
