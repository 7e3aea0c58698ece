"""`stepsight report RUN`: write a run's report.html anew from the files in its folder."""

from __future__ import annotations

import argparse
from pathlib import Path


def run(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="stepsight report", description=__doc__)
    parser.add_argument("run", help="run folder")
    door = parser.parse_args(arguments)
    from stepsight.report.run_page import write_report

    print(f"written to {write_report(Path(door.run))}")
    return 0
