"""A study under way: what of it is left is run, and study.json says how every stage stands."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stepsight import config as configuration
from stepsight.config import RunConfig
from stepsight.errors import DataFormatError, UserError
from stepsight.measures import duration
from stepsight.scaling.ladders.jobs import CommandJob, JobOutcome, run_local, run_slurm
from stepsight.scaling.reading import read_json
from stepsight.scaling.records import FILE_NAME as RECORDS
from stepsight.scaling.records import read
from stepsight.study.graph import Study
from stepsight.study.stages import CONFIGS, Launcher, StageJob
from stepsight.training.config import TrainingSettings

STATUS = "study.json"
HARMLESS = ("keep", "workers", "processes", "micro_batch", "sharding", "recompute", "save_minutes")
DRAWN_EVERY = 60.0  # seconds between pages while stages end
ADDED = ("seconds", "core_seconds")  # of several starts


class StudyProgress:
    """How the stages of a study stand, in study.json, and on its page."""

    def __init__(self, study: Study, jobs: Sequence[StageJob]) -> None:
        self.study = study
        before = {row["name"]: row for row in read_status(study.out, study.name)}
        _refuse_changed(study, jobs, before)
        self.rows = {
            job.name: _row(study, job)
            | {key: before.get(job.name, {}).get(key, 0.0) for key in ADDED}
            for job in jobs
        }
        self._drawn = time.monotonic()
        study.out.mkdir(parents=True, exist_ok=True)
        self.write()  # first: by this the folder is known as a study's
        self._write_configs(jobs)

    def begin(self, job: CommandJob) -> None:
        """Note that a stage has been started."""
        self.rows[job.name] |= {"status": "running", "why": ""}
        print(f"begins {job.name}", flush=True)
        self.write()

    def note(self, outcome: JobOutcome) -> None:
        """Note what came of a stage."""
        row = self.rows[outcome.name]
        status = "waiting" if outcome.state == "preempted" else outcome.state
        row |= {
            "status": status,
            "why": outcome.why,
            "gflop": _spent(self.study.out / row["folder"]),
        }
        for key in ADDED:
            row[key] = round(row[key] + getattr(outcome, key), 2)
        before = " (before)" if outcome.state == "done" else ""
        took = f" ({duration(outcome.seconds)})" if outcome.seconds else before
        why = f": {outcome.why}" if outcome.why else ""
        print(f"{outcome.state} {outcome.name}{took}{why}", flush=True)
        self.write()
        if time.monotonic() - self._drawn > DRAWN_EVERY:
            self.draw()

    def write(self) -> None:
        """study.json, whole."""
        told = {"name": self.study.name, "scale": str(self.study.scale), "file": self.study.file}
        told |= {"stages": [*self.rows.values()]}
        staged = self.study.out / f"{STATUS}.part"
        staged.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        os.replace(staged, self.study.out / STATUS)

    def draw(self) -> Path | None:
        """The page of the study as it stands. What is wrong with a page stops no stage."""
        from stepsight.report.study import page

        try:
            return page.write(self.study.out)
        except Exception as error:
            print(f"the page was not drawn: {error!r}", file=sys.stderr)
            return None
        finally:
            self._drawn = time.monotonic()

    def _write_configs(self, jobs: Sequence[StageJob]) -> None:
        folder = self.study.out / CONFIGS
        folder.mkdir(parents=True, exist_ok=True)
        for job in jobs:
            if job.config is not None:
                (folder / f"{job.name}.yaml").write_text(job.config.to_yaml(), encoding="utf-8")


def run(study: Study, jobs: Sequence[StageJob], launcher: Launcher) -> StudyProgress:
    """Run what is left, each stage after those that it needs. What fails leaves out what needs it.

    Raises UserError for a folder of another study, and Preempted when asked to end; what ran has
    saved by then.
    """
    progress = StudyProgress(study, jobs)
    try:
        if launcher == "slurm":
            run_slurm(jobs, study.out / "slurm", study.slurm, progress.note, progress.begin)
        else:
            at_once = study.at_once if launcher == "local" else 0
            run_local(jobs, at_once, progress.note, progress.begin)
    finally:
        progress.write()
    return progress


def read_status(out: Path, name: str = "") -> list[dict[str, Any]]:
    """The stages of study.json; [] where there is none. Raises DataFormatError for another file of
    that name, and UserError for one of a study of another name than `name`."""
    path = out / STATUS
    others = (x for x in out.glob("*") if not x.name.startswith(STATUS))
    if not path.is_file() and any(others):
        raise UserError(f"{out} is not empty and holds no study. Name another folder with --out.")
    told = read_json(path, {})
    rows = told.get("stages", [] if not told else None)
    if not isinstance(rows, list) or not all(isinstance(x, dict) and "name" in x for x in rows):
        raise DataFormatError(f"{path} is no study's. Name another folder with --out.")
    if name and told.get("name", name) != name:
        raise UserError(
            f"{out} holds the study '{told['name']}', not '{name}'. Name another with --out."
        )
    return rows


def _row(study: Study, job: StageJob) -> dict[str, Any]:
    return {
        "name": job.name,
        "kind": job.kind,
        "needs": [*job.needs],
        "folder": job.name,
        "status": "waiting",
        "why": "",
        "command": shlex.join(["stepsight", *job.shown]),
        "gflop": _spent(job.folder),
        "labels": study.stage(job.name).labels,
    }


def _spent(folder: Path) -> float | None:
    """GFLOP of a run's own training; None before its evaluation, and for what is no run (a sweep
    has records as well)."""
    if not (folder / RECORDS).is_file() or not (folder / "config.yaml").is_file():
        return None
    return max((one.training_flops for one in read(folder / RECORDS).records), default=0.0) / 1e9


def _telling(config: RunConfig) -> RunConfig:
    """Without what a stage may be gone on with otherwise, such as how many checkpoints it keeps."""
    usual = TrainingSettings()
    harmless = {name: getattr(usual, name) for name in HARMLESS}
    return replace(config, training=replace(config.training, **harmless))


def _refuse_changed(
    study: Study, jobs: Sequence[StageJob], before: Mapping[str, Mapping[str, Any]]
) -> None:
    """Raise UserError for a stage that was started as something else than it is now. A cache looks
    itself at what it is of."""
    for job in jobs:
        old = study.out / CONFIGS / f"{job.name}.yaml"
        if job.kind == "latents" or not job.folder.exists():
            continue
        told = before.get(job.name, {}).get("command")
        changed = told is not None and told != shlex.join(["stepsight", *job.shown])
        if old.is_file() and job.config is not None and old.read_text() != job.config.to_yaml():
            settings = _telling(configuration.load([str(old)])), _telling(job.config)
            changed = changed or settings[0] != settings[1]
        if changed:
            raise UserError(
                f"{job.folder} was made with other settings than {study.file} has for it now, at "
                f"scale {study.scale}. Remove that folder, or name another with --out."
            )
