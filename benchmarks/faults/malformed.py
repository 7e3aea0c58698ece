"""Malformed files for every reader: the documented error or values, never a traceback, a crash, a
hang, or more memory than a file may take. And small files that claim or unpack to gigabytes."""

from __future__ import annotations

import random
import shutil
from functools import partial
from pathlib import Path

from benchmarks.faults import Tally
from benchmarks.faults.files.bombs import bombs
from benchmarks.faults.files.isolated import MEMORY, SECONDS, Outcome, tried
from benchmarks.faults.files.specimen import Specimen
from benchmarks.faults.files.specimens import specimens
from stepsight.errors import UserError

FILES = {True: 200, False: 5000}  # damaged files of each kind: quick, or not
BAR = f"only the documented error, which names the file; {MEMORY / 1e6:.0f} MB, {SECONDS:.0f} s"


def run(quick: bool, folder: Path) -> list[Tally]:
    """A tally for each kind of file, and one for all bombs."""
    folder.mkdir(parents=True, exist_ok=True)
    found = [
        tally(f"malformed files: {name}", damaged(specimen, folder, FILES[quick]))
        for name, specimen in specimens(_emptied(folder / "made")).items()
    ]
    return [*found, tally("decompression bombs", exploded(folder / "bombs", quick))]


def damaged(specimen: Specimen, folder: Path, count: int) -> Outcome:
    """What becomes of so many damaged copies of a specimen, which is read whole at first."""
    path = specimen.lay_out(_emptied(folder / "read"))
    specimen.reads[0](path)  # here, so that the children need not import what it takes

    def case(number: int) -> str | None:
        read = specimen.reads[number % len(specimen.reads)]
        path.write_bytes(specimen.mutate(specimen.content, random.Random(number)))
        return documented(partial(read, path))

    return tried(case, count)


def exploded(folder: Path, quick: bool) -> Outcome:
    """What becomes of the bombs: refused, or read within the bounds."""
    made = bombs(_emptied(folder), quick)
    outcome = tried(lambda n: documented(made[n].read), len(made))
    names = {f"case {number}": bomb.name for number, bomb in enumerate(made)}
    told = (fault.partition(":") for fault in outcome.faults)
    outcome.faults = tuple(f"{names[case]}:{what}" for case, _, what in told)
    return outcome


def documented(read: partial[object]) -> str | None:
    """None if reading succeeds, or ends in the documented error."""
    try:
        read()
    except UserError as error:
        text = str(error)
        if not text.isprintable() or len(text) > 3000:
            return f"{type(error).__name__}: {text[:200]}"
    return None


def tally(figure: str, outcome: Outcome) -> Tally:
    held, worst = outcome.tried - outcome.failed, f"{outcome.megabytes:.0f} MB"
    worst = f"{worst}, {outcome.seconds:.1f} s"
    return Tally(figure, outcome.tried, held, BAR, "; ".join([*outcome.faults[:2]]) or worst)


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
