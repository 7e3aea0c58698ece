"""Read every sample of a data set and say what is wrong. Exit status 0: nothing (a part of a data
set is no fault); 1: something; 2: there was nothing to check.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from stepsight.cli.data.opening import (
    add_images_flag,
    add_source_flags,
    at_least_none,
    progress,
    settings_of,
    split_of,
)
from stepsight.cli.data.text import ranges_text

if TYPE_CHECKING:
    from stepsight.data.check import Report

SHOWN = 20  # findings and sizes that are printed; --json has them all


def add_flags(own: argparse.ArgumentParser) -> None:
    add_source_flags(own)
    add_images_flag(own, None)
    own.add_argument("--workers", type=int, default=0, help="processes; default: this one")
    own.add_argument("--json", action="store_true")


def run(door: argparse.Namespace) -> int:
    from stepsight.data.check import check
    from stepsight.evaluation.results import finite

    at_least_none("--workers", door.workers)
    report = check(
        settings_of(door, door.images),
        split_of(door),
        images=door.images,
        workers=door.workers,
        report=progress("checked"),
    )
    print(json.dumps(finite(report.as_json())) if door.json else "\n".join(report_lines(report)))
    return 0 if report.ok else 1


def report_lines(report: Report) -> Iterator[str]:
    """The report for the terminal."""
    yield f"{report.data}, split {report.split}: {_count(report)}"
    if report.examined != report.samples:
        yield f"  examined    the first {report.examined}"
    for size, count in list(report.sizes.items())[:SHOWN]:
        yield f"  size        {size}: {count} samples"
    yield from _more(len(report.sizes), "sizes")
    for name, found in report.ranges.items():
        yield f"  range       {ranges_text({name: found})}"
    yield f"  fingerprint {report.fingerprint}"
    for finding in report.findings[:SHOWN]:
        yield f"  FINDING     {finding}"
    yield from _more(len(report.findings), "findings")
    yield "fine" if report.ok else f"{len(report.findings)} findings"


def _count(report: Report) -> str:
    if report.state == "unknown" or report.published is None:
        return f"{report.samples} samples"
    source = "published, by memory" if report.recalled else "published"
    return f"{report.samples} samples of {report.published} {source} ({report.state})"


def _more(count: int, what: str) -> Iterator[str]:
    if count > SHOWN:
        yield f"  and {count - SHOWN} more {what}"
