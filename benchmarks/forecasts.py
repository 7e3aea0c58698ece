"""What forecasts beyond the data are worth: coverage of intervals, and what is denied to be a law.

    python benchmarks/forecasts.py --published ../shared/scaling_data --write    # a quarter hour
    python benchmarks/forecasts.py --draws 10 --only synthetic ladder

Measured from outside (`benchmarks.forecasting`), through `fit`, `average` and the command line:
`synthetic`, new measurements at 4 and 16 times the data of truths that are known; `ladder`, our own
ladder with its top hidden; `published`, public tables by rolling origins, and `refits`, the printed
laws of one paper fitted to its points, both left out where the tables are not at hand; `denied`,
tables that are no law, or whose rows are at fault. `--write` keeps them in benchmarks/results, from
which docs/scaling.md is written.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.forecasting import denied, ladder, published, refits, synthetic  # noqa: E402

OUT = ROOT / "benchmarks" / "results" / "forecasts.json"
KINDS = ("synthetic", "ladder", "published", "refits", "denied")
SEED = 0
Row = dict[str, Any]


def about(code: str, draws: int) -> dict[str, Any]:
    """When, on what and of which code."""
    return {
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()} CPU cores, {platform.system()}",
        "versions": {name: version(name) for name in ("numpy", "scipy")}
        | {"python": platform.python_version(), "code": code},
        "seed": SEED,
        "draws": draws,
    }


def measured(kind: str, draws: int, folder: Path | None, processes: int) -> Iterator[Row]:
    """The rows of a kind; of `published` none where its tables are not at hand."""
    if kind == "synthetic":
        yield from synthetic.measured(draws, seed=SEED, processes=processes)
    elif kind == "ladder":
        yield from ladder.measured()
    elif kind == "published" and folder:
        yield from published.measured(folder)
    elif kind == "refits" and folder:
        yield from refits.measured(folder)
    elif kind == "denied":
        with tempfile.TemporaryDirectory() as place:
            yield from denied.measured(Path(place))


def _line(kind: str, row: Row) -> str:
    if kind == "synthetic":
        ends = "   ".join(_counts(row[f"at_{far}"]) for far in synthetic.FAR)
        return f"{row['case'] + ', ' + row['way']:48s}{ends}   {_listed(row['at_4']['verdicts'])}"
    if kind == "ladder":
        name = f"{row['quantity']}, {row['way']}, {row['hidden']} hidden"
        return f"{name:48s}{_counts(row)}   {_listed(row['verdicts'])}"
    if kind == "published":
        name, reach = f"{row['table']}, {row['level']:.0%}", f"to {row['reach']:.3g} x"
        return f"{name:48s}{_counts(row)}   {reach}   {_listed(row['verdicts'])}"
    if kind == "refits":
        name = f"{row['law']}, {row['of']}"
        return f"{name:48s}{row['exponent']:.4f} {row['ends']}   {', '.join(row['verdicts'])}"
    mark = "" if row["caught"] else "   NOT CAUGHT"
    return f"{row['table']:48s}{', '.join(row['verdicts']) or 'no verdict'}{mark}"


def _counts(row: Row) -> str:
    """Hits of all, hits of those beside a law, half width and bias."""
    shares = f"{row['hits']}/{row['of']} ({row['law_hits']}/{row['laws']} laws)"
    return f"{shares:22s} +-{_percent(row['half_width'])} {_percent(row['bias'])}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _listed(verdicts: dict[str, int]) -> str:
    return ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="What forecasts beyond the data are worth.")
    parser.add_argument("--draws", type=int, default=100, help="of every synthetic case")
    parser.add_argument("--processes", type=int, default=1, help="for the synthetic cases")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--published", type=Path, metavar="DIR", help="folder of public tables")
    parser.add_argument("--code", default="", help="the commit that is measured, for the record")
    parser.add_argument("--out", type=Path, default=OUT, help="what --write writes")
    parser.add_argument("--write", action="store_true", help="replace these kinds in --out")
    args = parser.parse_args(arguments)
    if {"published", "refits"} & {*args.only} and not (args.published and args.published.is_dir()):
        print("published tables are left out: name their folder with --published", file=sys.stderr)
        args.published = None
    found: dict[str, list[Row]] = {}
    for kind in args.only:
        for row in measured(kind, args.draws, args.published, args.processes):
            found.setdefault(kind, []).append(row)
            print(_line(kind, row), flush=True)
    if args.write:
        kept = json.loads(args.out.read_text()) if args.out.is_file() else {}
        rows = kept | about(args.code, args.draws) | found
        args.out.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
