"""The rungs of a ladder as jobs, when one is done, and what came of them: ladder.json."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from stepsight.scaling.ladders.jobs import CommandJob, JobOutcome
from stepsight.scaling.ladders.ladder import Ladder, Rung, UpcycledExperts, images_of
from stepsight.scaling.records import FILE_NAME as RECORDS

STATUS = "ladder.json"
STEPSIGHT = ("-m", "stepsight.cli.main")


@dataclass(frozen=True, kw_only=True)
class RungJob(CommandJob):
    """A rung as a command."""

    images: int  # 0: it is no run, and done with the last that it writes
    last: str  # what it writes last, in its folder; "": a line of metrics.jsonl

    @property
    def done(self) -> bool:
        if not self.images:
            return (self.folder / self.last).exists()
        return finished(self.folder, self.images, self.last)


def finished(folder: Path, images: int, last: str) -> bool:
    """Whether a run of so many images has ended well; `last`: of `last_written`."""
    return (folder / last).exists() and last_loss(folder, images) is not None


def last_written(evaluated: bool, swept: bool) -> str:
    """What a run writes last that tells it from one that was stopped: its records, or what follows
    from its sweep. Its page is there from the first validation on."""
    return ("sweep/claims.json" if swept else RECORDS) if evaluated else ""


def last_loss(folder: Path, images: int) -> float | None:
    """Mean validation loss over tasks of a run after `images` images; None before then."""
    file = folder / "metrics.jsonl"
    if not file.is_file():
        return None
    lines = (line for line in file.read_text(encoding="utf-8").split("\n") if line.endswith("}"))
    rows = [json.loads(line) for line in lines]
    losses = [
        row["loss"]
        for row in rows
        if row.get("kind") == "val" and row["images_seen"] >= images and row["loss"] is not None
    ]
    return sum(losses) / len(losses) if losses else None


def prepare(
    ladder: Ladder, rungs: Sequence[Rung], program: str | Path | None = "train.py"
) -> list[RungJob]:
    """The commands, with their configurations written. Every rung continues where it stopped; a
    branch begins once its trunk has ended.

    program: the script that trains; None: `stepsight train`.
    """
    return [
        _upcycling(ladder, rung, rung.experts) if rung.experts else _job(ladder, rung, program)
        for rung in rungs
    ]


def _upcycling(ladder: Ladder, rung: Rung, experts: UpcycledExperts) -> RungJob:
    folder = ladder.out / rung.name
    command = [sys.executable, *STEPSIGHT, "convert", "upcycle", "--out", str(folder)]
    command += ["--checkpoint", str(ladder.out / rung.parent)]
    command += ["--experts", str(experts.experts), "--top-k", str(experts.active)]
    return RungJob(
        name=rung.name,
        folder=folder,
        command=tuple(command),
        log=_log(ladder, rung),
        images=0,
        last="checkpoints",
    )


def _log(ladder: Ladder, rung: Rung) -> Path:
    return ladder.out / "logs" / f"{rung.name.replace('/', '--')}.log"


def _job(ladder: Ladder, rung: Rung, program: str | Path | None) -> RungJob:
    folder = ladder.out / rung.name
    config = ladder.out / "configs" / f"{rung.name.replace('/', '--')}.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(yaml.safe_dump(rung.config, sort_keys=False), encoding="utf-8")
    train = [*STEPSIGHT, "train"] if program is None else [str(program)]
    command = [sys.executable, *train, "--config", str(config), "--run-dir", str(folder)]
    command += ["--resume", "auto"]
    command += ["--init-from", str(ladder.out / rung.parent)] if rung.parent else []
    command += ["--branch-from", str(ladder.out / rung.trunk)] if rung.trunk else []
    evaluated = rung.config.get("training", {}).get("evaluate", True)
    swept = rung.config.get("evaluation", {}).get("sweep", True)
    return RungJob(
        name=rung.name,
        folder=folder,
        command=tuple(command),
        log=_log(ladder, rung),
        needs=(rung.trunk,) if rung.trunk else (),
        images=images_of(rung.config),
        last=last_written(evaluated, swept),
    )


def write_status(ladder: Ladder, rung: Rung, outcome: JobOutcome) -> None:
    """Add to ladder.json: a rung with its settings and what came of it. Times of several starts add
    up."""
    path = ladder.out / STATUS
    path.parent.mkdir(parents=True, exist_ok=True)
    known = read_status(ladder.out)
    row = asdict(outcome) | {"settings": rung.settings, "factor": rung.factor}
    for name in ("seconds", "core_seconds"):
        row[name] += known.get(rung.name, {}).get(name, 0.0)
    known[rung.name] = row | {"parent": rung.parent, "trunk": rung.trunk}
    staged = path.with_suffix(".part")
    staged.write_text(json.dumps(list(known.values()), indent=1) + "\n", encoding="utf-8")
    os.replace(staged, path)


def read_status(out: Path) -> dict[str, dict[str, Any]]:
    """The rows of ladder.json by rung; {} where there is none."""
    path = out / STATUS
    rows = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return {row["name"]: row for row in rows}
