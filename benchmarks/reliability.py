"""What can go wrong with a run, done to it on purpose, and how many times it held.

    uv run python benchmarks/reliability.py --quick              # minutes: CI
    uv run python benchmarks/reliability.py                      # all of it, an hour on two cores
    uv run python benchmarks/reliability.py --only kills --json
    uv run python benchmarks/reliability.py --write              # and docs/reliability.md

Each kind of fault is a module of `benchmarks.faults`, which holds runs to its bars. The exit status
is 1 if one of them is missed. What `--write` measured is kept in benchmarks/results, from which the
table of docs/reliability.md is made: a kind that is measured anew replaces what was known of it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import docs_numbers  # noqa: E402

from benchmarks.faults import Tally  # noqa: E402

KINDS = {  # name -> protocol, as the page has it
    "kills": "SIGKILL at random times and inside saves, then --resume auto",
    "signals": "TERM, USR1, HUP and INT at a random step, and a second one",
    "corruption": "a file of the newest checkpoint damaged, then --resume auto",
    "nan": "NaN or Inf put into loss, gradient, expert, optimizer state or data",
    "world-size": "the same global batch on other numbers of processes and micro-batches",
    "reshard": "saved by some processes, continued by others, DDP and FSDP2",
    "malformed": "files mutated at random, and files that unpack to gigabytes",
    "payloads": "files that would run code where they are read carelessly",
    "ranks": "a process killed, stopped or failing in each phase of a run",
    "locks": "a second writer in a run folder, and what a dead one leaves",
}
PAGE = ROOT / "docs" / "reliability.md"


@dataclass
class Outcome:
    """What one kind of fault came to."""

    kind: str
    seconds: float
    tallies: list[Tally] = field(default_factory=list)
    error: str = ""  # of the module itself: nothing was shown then

    @property
    def ok(self) -> bool:
        return not self.error and bool(self.tallies) and all(one.ok for one in self.tallies)


def tried(kind: str, quick: bool, folder: Path) -> Outcome:
    """Commit the faults of a kind on runs below `folder`."""
    began, place = time.monotonic(), folder / kind
    place.mkdir()
    try:
        tallies = import_module(f"benchmarks.faults.{kind.replace('-', '_')}").run(quick, place)
    except Exception as error:  # the other kinds are still worth trying
        traceback.print_exc()
        return Outcome(kind, time.monotonic() - began, error=f"{type(error).__name__}: {error}")
    return Outcome(kind, time.monotonic() - began, tallies)


def machine() -> str:
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    cores = f"{len(os.sched_getaffinity(0))} cores"
    named = ", ".join(gpus) if gpus else "no GPU, gloo"
    return f"{cores}, {named}, torch {torch.__version__.partition('+')[0]}, {platform.system()}"


def lines(outcomes: Sequence[Outcome]) -> list[str]:
    """For people."""
    text = []
    for outcome in outcomes:
        text.append(f"{outcome.kind} ({outcome.seconds:.0f} s): {KINDS[outcome.kind]}")
        if outcome.error:
            text.append(f"  FAILED  {outcome.error}")
        for one in outcome.tallies:
            verdict = "held  " if one.ok else "MISSED"
            worst = f"   ({one.worst})" if one.worst else ""
            text.append(f"  {verdict} {one.held:>6} of {one.tried:<6} {one.figure}{worst}")
            if not one.ok:
                text.append(f"         bar: {one.bar}")
    missed = [outcome.kind for outcome in outcomes if not outcome.ok]
    return [*text, f"missed: {', '.join(missed)}" if missed else "every bar is held"]


def rows(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """For programs."""
    return [
        {"kind": one.kind, "seconds": round(one.seconds, 1), "ok": one.ok, "error": one.error}
        | {"tallies": [asdict(tally) | {"ok": tally.ok} for tally in one.tallies]}
        for one in outcomes
    ]


def kept(outcomes: Sequence[Outcome], quick: bool) -> dict[str, Any]:
    """What is known of all kinds, those of `outcomes` anew."""
    file = docs_numbers.reliability.RELIABILITY
    known = json.loads(file.read_text()) if file.is_file() else {}
    about = {"date": date.today().isoformat(), "machine": machine(), "quick": quick}
    fresh = {row["kind"]: row | about | {"protocol": KINDS[row["kind"]]} for row in rows(outcomes)}
    every = known | fresh
    return {kind: every[kind] for kind in KINDS if kind in every}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", choices=KINDS, action="append", help="kinds; default: all")
    parser.add_argument("--quick", action="store_true", help="few faults of each: minutes")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--write", action="store_true", help="write docs/reliability.md")
    args, outcomes = parser.parse_args(arguments), []
    with tempfile.TemporaryDirectory(prefix="stepsight-reliability-") as folder:
        for kind in args.only or KINDS:
            print(f"... {kind}", file=sys.stderr, flush=True)
            outcomes.append(tried(kind, args.quick, Path(folder)))
    held = all(outcome.ok for outcome in outcomes)
    if args.write:
        known = kept(outcomes, args.quick)
        docs_numbers.reliability.RELIABILITY.write_text(json.dumps(known, indent=1) + "\n")
        PAGE.write_text(docs_numbers.written(PAGE.read_text()))
    told = {"ok": held, "kinds": rows(outcomes)}
    print(json.dumps(told) if args.json else "\n".join(lines(outcomes)))
    return int(not held)


if __name__ == "__main__":
    raise SystemExit(main())
