"""Run the rungs of a ladder: here, a few at a time, or as a job array of a SLURM cluster.

A rung is done when its folder says so, so a ladder that was stopped, or whose rungs failed, goes on
with what is left when it is started again. What fails is told, and does not stop the others.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any, Literal

import yaml

from stepsight import signals
from stepsight.errors import UserError
from stepsight.scaling.ladders.ladder import Ladder, Rung, images_of
from stepsight.signals import PREEMPTED, Preempted

RungState = Literal["done", "failed", "preempted", "left out"]
STATUS = "ladder.json"
LOOK = 0.5  # seconds between looks whether the ladder is asked to end
GOES_ON = "what ran has saved. The same command goes on with it."
RUNNING: set[subprocess.Popen[bytes]] = set()  # the rungs of this process
GROUP = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT", "MASTER_ADDR")


@dataclass(frozen=True)
class RungJob:
    """A rung as a command."""

    name: str
    folder: Path  # of the run
    command: tuple[str, ...]
    log: Path
    images: int
    evaluated: bool  # whether it ends with an evaluation

    @property
    def done(self) -> bool:
        """Whether the run has ended well."""
        if self.evaluated:
            return (self.folder / "report.html").is_file()
        return last_loss(self.folder, self.images) is not None


@dataclass(frozen=True)
class RungOutcome:
    """What came of a rung."""

    name: str
    state: RungState
    seconds: float = 0.0  # of this start; 0 for one that was done already
    core_seconds: float = 0.0  # processor time of the same
    why: str = ""  # what a failed one said last


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
    """The commands, with their configurations written. Every rung continues where it stopped.

    program: the script that trains; None: `stepsight train`.
    """
    return [_job(ladder, rung, program) for rung in rungs]


def _job(ladder: Ladder, rung: Rung, program: str | Path | None) -> RungJob:
    folder = ladder.out / rung.name
    config = ladder.out / "configs" / f"{rung.name.replace('/', '--')}.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(yaml.safe_dump(rung.config, sort_keys=False), encoding="utf-8")
    train = ["-m", "stepsight.cli.main", "train"] if program is None else [str(program)]
    command = [sys.executable, *train, "--config", str(config), "--run-dir", str(folder)]
    command += ["--resume", "auto"]
    command += ["--init-from", str(ladder.out / rung.parent)] if rung.parent else []
    log = ladder.out / "logs" / f"{rung.name.replace('/', '--')}.log"
    evaluated = rung.config.get("training", {}).get("evaluate", True)
    return RungJob(rung.name, folder, tuple(command), log, images_of(rung.config), evaluated)


def run_local(
    jobs: Sequence[RungJob], at_once: int, report: Callable[[RungOutcome], None]
) -> list[RungOutcome]:
    """Run what is not done, a job a GPU, or `at_once` single-thread jobs on CPUs. What interrupts
    this ends the jobs as well; a signal that is caught (`signals`) is passed on to them.

    Raises Preempted once they have saved and ended.
    """
    devices = _gpus()
    slots: SimpleQueue[str] = SimpleQueue()
    turn = Lock()
    for slot in devices or [""] * at_once:
        slots.put(slot)

    def run(job: RungJob) -> RungOutcome:
        slot = slots.get()
        try:
            outcome = run_job(job, _environment(slot))
        finally:
            slots.put(slot)
        with turn:
            report(outcome)
        return outcome

    pool = ThreadPoolExecutor(max_workers=slots.qsize())
    told = set[subprocess.Popen[bytes]]()
    try:
        rungs = [pool.submit(run, job) for job in jobs]
        while not all(rung.done() for rung in rungs):
            wait(rungs, LOOK)
            if signals.requested():
                pool.shutdown(wait=False, cancel_futures=True)
                for process in {*RUNNING} - told:
                    process.terminate()
                    told.add(process)
        if any(rung.cancelled() for rung in rungs):
            raise Preempted(f"{signals.requested()}: {GOES_ON}")
        return [rung.result() for rung in rungs]
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in tuple(RUNNING):
            process.terminate()
        raise
    finally:
        pool.shutdown()


def run_slurm(
    jobs: Sequence[RungJob],
    folder: Path,
    parameters: dict[str, Any],
    report: Callable[[RungOutcome], None],
    cluster: str = "slurm",
) -> list[RungOutcome]:
    """Run what is not done as one job array, and wait for it. `parameters` are those of submitit's
    executor (timeout_min, gpus_per_node, slurm_partition, ...).

    Raises:
        UserError: submitit is not installed, there is no such cluster, or it takes no such
            parameters.
    """
    if "timeout_min" not in parameters:
        raise UserError(
            "--launcher slurm needs a time limit: slurm: {timeout_min: 600} in the file."
        )
    try:
        import submitit
    except ImportError as error:
        raise UserError(
            "--launcher slurm needs submitit: uv sync --extra cluster, or pip install submitit."
        ) from error
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        executor.update_parameters(**parameters)
    except (RuntimeError, NameError, TypeError, ValueError, AssertionError) as error:
        raise UserError(f"--launcher slurm: {error}") from error
    left = [job for job in jobs if not job.done]
    handles = executor.map_array(run_job, left) if left else []
    outcomes = {job.name: RungOutcome(job.name, "done") for job in jobs if job.done}
    for job, handle in zip(left, handles):
        outcomes[job.name] = _result(job, handle)
        report(outcomes[job.name])
    return [outcomes[job.name] for job in jobs]


def _result(job: RungJob, handle: Any) -> RungOutcome:
    """What a job of the cluster came to, also where the cluster ended it."""
    error = handle.exception()
    if error is None:
        return handle.result()
    return RungOutcome(job.name, "failed", why=str(error).strip().rpartition("\n")[2])


def run_job(job: RungJob, environment: dict[str, str] | None = None) -> RungOutcome:
    """Run one job to its end, its output in its log; by default where a cluster put this process.

    A job that another process is running, as after a ladder was started twice, is not touched.
    """
    if job.done:
        return RungOutcome(job.name, "done")
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return RungOutcome(job.name, "failed", why="another process is running it")
        return _run(job, _environment(None) if environment is None else environment)


def _run(job: RungJob, environment: dict[str, str]) -> RungOutcome:
    began = time.monotonic()
    with job.log.open("w", encoding="utf-8") as log:
        process = subprocess.Popen(job.command, stdout=log, stderr=log, env=environment)
        RUNNING.add(process)
        _, ended, usage = os.wait4(process.pid, 0)
        RUNNING.discard(process)
    process.returncode = status = os.waitstatus_to_exitcode(ended)
    took = time.monotonic() - began, usage.ru_utime + usage.ru_stime
    if status == 0 and job.done:
        return RungOutcome(job.name, "done", *took)
    if status == PREEMPTED or (signals.requested() and status == -signal.SIGTERM):
        return RungOutcome(job.name, "preempted", *took, _last_line(job.log))
    return RungOutcome(job.name, "failed", *took, _last_line(job.log) or f"exit status {status}")


def write_status(ladder: Ladder, rung: Rung, outcome: RungOutcome) -> None:
    """Add to ladder.json: a rung with its settings and what came of it. Times of several starts add
    up."""
    path = ladder.out / STATUS
    path.parent.mkdir(parents=True, exist_ok=True)
    known = read_status(ladder.out)
    row = asdict(outcome) | {"settings": rung.settings, "factor": rung.factor}
    for name in ("seconds", "core_seconds"):
        row[name] += known.get(rung.name, {}).get(name, 0.0)
    known[rung.name] = row | {"parent": rung.parent}
    staged = path.with_suffix(".part")
    staged.write_text(json.dumps(list(known.values()), indent=1) + "\n", encoding="utf-8")
    os.replace(staged, path)


def read_status(out: Path) -> dict[str, dict[str, Any]]:
    """The rows of ladder.json by rung; {} where there is none."""
    path = out / STATUS
    rows = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return {row["name"]: row for row in rows}


def _environment(device: str | None) -> dict[str, str]:
    """That of this process, without a process group: on one GPU, "" for none, None for those that
    there are."""
    inherited = {key: value for key, value in os.environ.items() if key not in GROUP}
    if device is None and _gpus():
        return inherited
    return inherited | ({"CUDA_VISIBLE_DEVICES": device} if device else {"OMP_NUM_THREADS": "1"})


def _gpus() -> list[str]:
    """The GPUs that may be used, without loading what would claim them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [device for device in chosen.split(",") if device.strip() not in ("", "-1")]
    return sorted(path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*"))


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
