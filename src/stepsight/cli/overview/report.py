"""`stepsight report RUN`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional


@dataclass(frozen=True)
class Args:
    """Write a run's report.html anew from the files in its folder."""

    run: Positional[Path]  # run folder


def run(args: Args) -> int:
    from stepsight.report.page import write_report

    print(f"written to {write_report(args.run)}")
    return 0
