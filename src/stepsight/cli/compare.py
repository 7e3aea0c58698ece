"""`stepsight compare RUN RUN ...`: costs, validation losses and scores of runs, side by side."""

from __future__ import annotations

import argparse
from pathlib import Path


def run(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="stepsight compare", description=__doc__)
    parser.add_argument("runs", nargs="+", help="run folders that were evaluated")
    parser.add_argument("--out", help="also write the tables to this Markdown file")
    door = parser.parse_args(arguments)
    from stepsight.report.compare import compare, read_run

    text = compare([read_run(Path(one)) for one in door.runs])
    print(text, end="")
    if door.out:
        Path(door.out).write_text(text)
    return 0
