"""`stepsight data check`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stepsight.cli.data.text import progress, ranges_text
from stepsight.cli.entry import at_least
from stepsight.cli.sources import SourceArgs

if TYPE_CHECKING:
    from stepsight.data.check import Report

SHOWN = 20  # findings and sizes that are printed; --json has them all


@dataclass(frozen=True, kw_only=True)
class Args(SourceArgs):
    """Read every sample of a data set and report what is wrong. Exit status 0: nothing (a part of a
    data set is no fault); 1: something; 2: there was nothing to check."""

    images: int | None = None  # the first so many; default: all
    workers: int = 0  # processes; default: this one
    json: bool = False  # print JSON, with all findings


def run(args: Args) -> int:
    from stepsight.data.check import check
    from stepsight.scaling.plain import plain

    at_least(0, "--workers", args.workers)
    report = check(
        args.settings(args.images),
        args.chosen_split,
        images=args.images,
        workers=args.workers,
        report=progress("checked"),
    )
    print(json.dumps(plain(report.as_json())) if args.json else "\n".join(report_lines(report)))
    return 0 if report.ok else 1


def report_lines(report: Report) -> Iterator[str]:
    """The report for the terminal."""
    yield f"{report.data}, split {report.split}: {_count(report)}"
    if report.examined != report.samples:
        yield f"  examined    the first {report.examined}"
    for size, count in list(report.sizes.items())[:SHOWN]:
        yield f"  size        {size}: {count} samples"
    yield from _more(len(report.sizes), "sizes")
    for name, values in report.ranges.items():
        yield f"  range       {ranges_text({name: values})}"
    yield f"  fingerprint {report.fingerprint}"
    for finding in report.findings[:SHOWN]:
        yield f"  FINDING     {finding}"
    yield from _more(len(report.findings), "findings")
    for remark in report.remarks[:SHOWN]:
        yield f"  REMARK      {remark}"
    yield "fine" if report.ok else f"{len(report.findings)} findings"


def _count(report: Report) -> str:
    if report.state == "unknown" or report.published is None:
        return f"{report.samples} samples"
    source = "published, by memory" if report.recalled else "published"
    return f"{report.samples} samples of {report.published} {source} ({report.state})"


def _more(count: int, what: str) -> Iterator[str]:
    if count > SHOWN:
        yield f"  and {count - SHOWN} more {what}"
