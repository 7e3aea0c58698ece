"""Two writers for one run folder: the second is refused, by resume and by overwrite, and the first
goes on as if nothing had been; one that was killed is succeeded."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.faults import Tally
from benchmarks.faults.runs import difference, ended, outcome, settings, trained, warm

LONG: dict[str, Any] = {"images": 160, "log_every": 8}  # so that there is time for a second writer
HELD = "run.lock"


def run(quick: bool, folder: Path) -> list[Tally]:
    """Each case once in the quick run, eight times in the full one."""
    config = settings(**LONG)
    warm(folder / "warm")
    assert ended(trained(folder / "alone", config)) == [0]
    wanted = outcome(folder / "alone")
    cases: dict[str, Callable[[Path], str]] = {
        "a second writer is refused": lambda place: _second(place, {"resume": "auto"}),
        "--overwrite of a live run is refused": lambda place: _second(
            place, {"resume": None, "overwrite": True}
        ),
        "a killed writer is succeeded": _killed,
        "of four at once one writes": _at_once,
    }
    tallies = []
    for number, (figure, case) in enumerate(cases.items()):
        faults = []
        for trial in range(1 if quick else 8):
            place = folder / f"case-{number}-{trial}"
            fault = case(place) or difference(outcome(place), wanted)
            faults.append(fault or _doubled(place))
        bar = "status 2 for the one, and the other's run equals one that was left alone"
        worst = next(filter(None, faults), "")
        tallies.append(Tally(figure, len(faults), faults.count(""), bar, worst))
    return tallies


def _second(place: Path, options: dict[str, Any]) -> str:
    first = trained(place, settings(**LONG))
    _wait_for(place / HELD)
    began = time.monotonic()
    second = ended(trained(place, settings(**LONG), **options))
    refused, firsts = time.monotonic() - began, ended(first)
    told = place.with_suffix(".log").read_text()
    if second != [2] or f"process {first[0]} on" not in told:
        return f"the second ended with {second}: {told[-200:]}"
    return "" if firsts == [0] and refused < 5 else f"first {firsts}, second after {refused:.1f} s"


def _killed(place: Path) -> str:
    first = trained(place, settings(**LONG))
    _wait_for(place / "checkpoints" / "last.txt")
    os.kill(first[0], signal.SIGKILL)
    second = trained(place, settings(**LONG))  # at once, while the first is not even buried
    statuses = ended(first) + ended(second)
    told = place.with_suffix(".log").read_text()
    said = f"taken over from process {first[0]}" in told
    return "" if statuses == [-signal.SIGKILL, 0] and said else f"{statuses}: {told[-200:]}"


def _at_once(place: Path) -> str:
    statuses = sorted(ended([pid for _ in range(4) for pid in trained(place, settings(**LONG))]))
    return "" if statuses == [0, 2, 2, 2] else f"{statuses}"


def _wait_for(path: Path) -> None:
    until = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < until, f"{path} does not come"
        time.sleep(0.005)


def _doubled(place: Path) -> str:
    rows = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows if row["kind"] == "train"]
    return "" if len(steps) == len(set(steps)) else f"lines of steps {steps}"
