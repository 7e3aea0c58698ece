"""What scripts/gpu-check.sh runs: steps in processes of their own, and the page of their figures.

A step is a module of `gpu` whose `run(size)` yields rows as it measures them: what was there when
its time was over is kept. Sizes are "gpu" and "tiny". Nothing here imports torch.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from importlib import import_module
from pathlib import Path

from gpu.row import Row

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BUDGET = 540.0  # seconds for all steps together
LEAST = 5.0  # seconds worth beginning a step with
STEPS = {  # by name, in the order of their worth: seconds at most
    "machine": 40,
    "tests": 60,
    "training": 170,
    "sampling": 70,
    "experts": 70,
    "marigold": 110,
    "vae": 40,
    "peers": 70,
    "default": 150,
}


@dataclass
class Done:
    """A step that has ended, one way or another."""

    name: str
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)
    failed: str = ""  # why, and the last lines it said


def carried_out(names: Sequence[str], tiny: bool, limits: Mapping[str, float]) -> Iterator[Done]:
    """The steps one after another, each within its limit and what is left of them all."""
    end = time.monotonic() + BUDGET
    for name in names:
        left = end - time.monotonic()
        if left < LEAST:
            yield Done(name, failed="not begun: no time was left")
        else:
            yield _carried_out(name, tiny, min(limits[name], left))


def _carried_out(name: str, tiny: bool, seconds: float) -> Done:
    with tempfile.TemporaryDirectory() as folder:
        rows, said = Path(folder, "rows"), Path(folder, "said")
        began = time.monotonic()
        with said.open("w") as output:
            process = subprocess.Popen(
                command_of(name, tiny, rows),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # with what it starts it can be ended
                env={**os.environ, "TMPDIR": folder},
            )
            try:
                status = process.wait(seconds)
                failed = f"exit status {status}" if status else ""
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait()
                failed = f"not done after {seconds:.0f} s"
        lines = rows.read_text().splitlines() if rows.is_file() else []
        if failed:
            failed = "\n".join([failed, *said.read_text(errors="replace").splitlines()[-15:]])
        found = [Row(**json.loads(line)) for line in lines]
        return Done(name, time.monotonic() - began, found, failed)


def command_of(name: str, tiny: bool, rows: Path) -> list[str]:
    """What runs a step and leaves its rows in a file, one a line."""
    return [sys.executable, __file__, "--step", name, "--rows", str(rows), *["--tiny"] * tiny]


def page(done: Sequence[Done], tiny: bool) -> str:
    """The page of all figures, those with targets beside them."""
    facts = {row.what: row.note for one in done for row in one.rows if one.name == "machine"}
    head = f"# {date.today()}, {facts.get('device', 'no device')}"
    told = "scripts/gpu-check.sh" + " --tiny" * tiny
    text = [head, "", f"`{told}`, {sum(one.seconds for one in done):.0f} s."]
    text += [f"{name}: {value}." for name, value in facts.items() if value and name != "device"]
    if tiny:
        text += ["", "**A dry run at tiny sizes: its figures mean nothing.**"]
    for one in done:
        text += ["", f"## {one.name} ({one.seconds:.0f} s)", ""]
        if rows := [row for row in one.rows if not (one.name == "machine" and row.note)]:
            text += ["| what | figure | target | reached | |", "| --- | --- | --- | --- | --- |"]
            text += [f"| {' | '.join(row.cells())} |" for row in rows]
        if one.failed:
            text += ["", "Failed:", "", "```", one.failed, "```"]
    return "\n".join(text) + "\n"


def slug(device: str) -> str:
    """`h200` of `NVIDIA H200`: the first word with a number in it."""
    words = re.findall(r"[a-z0-9]+", device.lower())
    return next((word for word in words if any(map(str.isdigit, word))), "".join(words) or "none")


def written(done: Sequence[Done], tiny: bool, out: Path) -> Path:
    """The page and, for the tables of docs/, its figures."""
    device = next((r.note for one in done for r in one.rows if r.what == "device"), "none")
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{date.today()}-{'tiny' if tiny else slug(device)}.md"
    path.write_text(page(done, tiny), encoding="utf-8")
    figures = {"date": str(date.today()), "device": device, "page": path.name}
    rows = [{"step": one.name, **asdict(row)} for one in done for row in one.rows]
    (out / ("tiny.json" if tiny else "gpu.json")).write_text(
        json.dumps(figures | {"rows": rows}, indent=1) + "\n", encoding="utf-8"
    )
    return path


def step(name: str, tiny: bool, file: Path) -> None:
    """A step itself, in a process of its own."""
    run: Callable[[str], Iterator[Row]] = import_module(f"gpu.{name}").run
    with file.open("a") as rows:
        for row in run("tiny" if tiny else "gpu"):
            print(json.dumps(asdict(row)), file=rows, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="gpu-check.sh", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="a dry run on a CPU")
    parser.add_argument("--out", type=Path, help="folder of the page; default benchmarks/results")
    parser.add_argument("--only", nargs="+", choices=STEPS, help="some steps")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    door = parser.parse_args(arguments)
    if door.step:
        step(door.step, door.tiny, door.rows)
        return 0
    done: list[Done] = []
    out = door.out or (Path(tempfile.mkdtemp()) if door.tiny else RESULTS)
    for one in carried_out(door.only or list(STEPS), door.tiny, STEPS):
        done.append(one)
        print(f"{one.name}: {len(one.rows)} figures in {one.seconds:.0f} s", flush=True)
        print(one.failed, end="\n" if one.failed else "", flush=True)
        written(done, door.tiny, out)  # after each: what was measured is kept
    print(f"wrote {written(done, door.tiny, out)}")
    return int(any(one.failed for one in done))


if __name__ == "__main__":
    sys.exit(main())
