"""Commands as jobs: each once those that it needs are done, here a few at a time, or on a cluster.

A job is done when what it leaves says so, so that what was stopped, or failed, goes on when it is
started again. What fails is told, leaves out what needs it, and does not stop the others.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal, Protocol

from stepsight import signals
from stepsight.errors import UserError
from stepsight.signals import PREEMPTED, Preempted

JobState = Literal["done", "failed", "preempted", "left out"]
LOOK = 0.2  # seconds between looks at what runs, and whether this is asked to end
GOES_ON = "what ran has saved. The same command goes on with it."
RUNNING: set[subprocess.Popen[bytes]] = set()  # the jobs of this process
GROUP = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT", "MASTER_ADDR")


@dataclass(frozen=True, kw_only=True)
class CommandJob:
    """A command, and what it needs to be done before."""

    name: str
    folder: Path  # that it writes
    command: tuple[str, ...]
    log: Path
    needs: tuple[str, ...] = ()  # names of jobs; of those that are not at hand nothing is known

    @property
    def done(self) -> bool:
        """Whether it has ended well, by what it left."""
        raise NotImplementedError


@dataclass(frozen=True)
class JobOutcome:
    """What came of a job."""

    name: str
    state: JobState
    seconds: float = 0.0  # of this start; 0 for one that was done already
    core_seconds: float = 0.0  # processor time of the same
    why: str = ""  # what a failed one said last


class Handle(Protocol):
    """A job that was handed over."""

    def done(self) -> bool: ...

    def result(self) -> JobOutcome: ...


Report = Callable[[JobOutcome], None]
Begin = Callable[[CommandJob], None]
HandOver = Callable[[Sequence[CommandJob]], Sequence[Handle]]


def run_local(
    jobs: Sequence[CommandJob], at_once: int, report: Report, begin: Begin = lambda job: None
) -> list[JobOutcome]:
    """Run what is not done, a job a GPU, or `at_once` single-thread jobs on CPUs; `at_once` 0: one
    job at a time with all that there is. What interrupts this ends the jobs as well; a signal that
    is caught (`signals`) is passed on to them.

    begin, report: told of each job, at its start and when something came of it.
    Raises Preempted once they have saved and ended.
    """
    devices = (gpus() or [""] * at_once) if at_once else [None]
    slots: SimpleQueue[str | None] = SimpleQueue()
    for slot in devices:
        slots.put(slot)

    def run(job: CommandJob) -> JobOutcome:
        slot = slots.get()
        try:
            return run_job(job, environment(slot))
        finally:
            slots.put(slot)

    pool = ThreadPoolExecutor(max_workers=len(devices))
    try:
        with _ended_with_this():
            hand_over = lambda ready: [pool.submit(run, job) for job in ready]  # noqa: E731
            return _run(jobs, hand_over, len(devices), report, begin)
    finally:
        pool.shutdown(cancel_futures=True)


def run_slurm(
    jobs: Sequence[CommandJob],
    folder: Path,
    parameters: Mapping[str, Any],
    report: Report,
    begin: Begin = lambda job: None,
    cluster: str = "slurm",
) -> list[JobOutcome]:
    """Run what is not done as job arrays, those together whose needs are met, and wait for them.

    parameters: of submitit's executor (timeout_min, gpus_per_node, slurm_partition, ...).

    Raises:
        UserError: submitit is not installed, there is no such cluster, or it takes no such
            parameters.
        Preempted: this was asked to end; what was submitted runs on.
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

    def hand_over(ready: Sequence[CommandJob]) -> list[Handle]:
        return [Submitted(*pair) for pair in zip(ready, executor.map_array(run_job, list(ready)))]

    return _run(jobs, hand_over, len(jobs), report, begin)


@dataclass(frozen=True)
class Submitted:
    """A job of a cluster."""

    job: CommandJob
    handle: Any

    def done(self) -> bool:
        return self.handle.done()

    def result(self) -> JobOutcome:
        """What it came to, also where the cluster ended it."""
        error = self.handle.exception()
        if error is None:
            return self.handle.result()
        return JobOutcome(self.job.name, "failed", why=str(error).strip().rpartition("\n")[2])


def _run(
    jobs: Sequence[CommandJob], hand_over: HandOver, room: int, report: Report, begin: Begin
) -> list[JobOutcome]:
    """Every job after those that it needs, in the order given where that leaves a choice."""
    waiting = [job for job in jobs if not job.done]
    left = {job.name for job in waiting}
    outcomes = {job.name: JobOutcome(job.name, "done") for job in jobs if job.name not in left}
    for name in outcomes:
        report(outcomes[name])
    running: dict[str, Handle] = {}
    told = set[subprocess.Popen[bytes]]()
    while (waiting and not signals.requested()) or running:
        for job in waiting:
            bad = [name for name in job.needs if outcomes.get(name, _FINE).state != "done"]
            if bad:
                outcomes[job.name] = _without(job.name, outcomes[bad[0]])
                report(outcomes[job.name])
        waiting = [job for job in waiting if job.name not in outcomes]
        met = [job for job in waiting if not {*job.needs} & (left - outcomes.keys())]
        ready = [] if signals.requested() else met[: room - len(running)]
        for job in ready:
            begin(job)
        if ready:
            running |= zip([job.name for job in ready], hand_over(ready))
            waiting = [job for job in waiting if job not in ready]
        ended = [name for name, handle in running.items() if handle.done()]
        for name in ended:
            outcomes[name] = running.pop(name).result()
            report(outcomes[name])
        if signals.requested():
            for process in RUNNING - told:
                process.terminate()
            told |= RUNNING
            if not any(isinstance(handle, Future) for handle in running.values()):
                break  # a cluster's jobs run on
        if running and not ended:
            time.sleep(LOOK)
    if waiting or running:
        raise Preempted(f"{signals.requested()}: {GOES_ON}")
    return [outcomes[job.name] for job in jobs]


_FINE = JobOutcome("", "done")


def _without(name: str, need: JobOutcome) -> JobOutcome:
    """Of a job whose need came to nothing; one that waits for what was preempted waits with it."""
    state = "preempted" if need.state == "preempted" else "left out"
    return JobOutcome(name, state, why=f"{need.name}: {need.state}")


@contextmanager
def _ended_with_this() -> Iterator[None]:
    """What interrupts this ends the jobs as well."""
    try:
        yield
    except BaseException:
        for process in tuple(RUNNING):
            process.terminate()
        raise


def run_job(job: CommandJob, given: Mapping[str, str] | None = None) -> JobOutcome:
    """Run one job to its end, its output in its log; by default where a cluster put this process.

    One that is running already is waited for: it was started twice, or outlived who started it.
    """
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.with_suffix(".lock").open("w") as lock:
        while not _locked(lock.fileno()):
            if signals.requested():
                return JobOutcome(job.name, "preempted", why="another process is running it")
            time.sleep(LOOK)
        if job.done:
            return JobOutcome(job.name, "done")
        return _run_command(job, environment(None) if given is None else given, lock.fileno())


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _run_command(job: CommandJob, given: Mapping[str, str], lock: int) -> JobOutcome:
    """The command keeps the lock as long as it lives, which may be longer than this process."""
    began = time.monotonic()
    with job.log.open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            job.command, stdout=log, stderr=log, env=dict(given), pass_fds=(lock,)
        )
        RUNNING.add(process)
        _, ended, usage = os.wait4(process.pid, 0)
        RUNNING.discard(process)
    process.returncode = status = os.waitstatus_to_exitcode(ended)
    took = time.monotonic() - began, usage.ru_utime + usage.ru_stime
    if status == 0 and job.done:
        return JobOutcome(job.name, "done", *took)
    if status == PREEMPTED or (signals.requested() and status == -signal.SIGTERM):
        return JobOutcome(job.name, "preempted", *took, _last_line(job.log))
    return JobOutcome(job.name, "failed", *took, _last_line(job.log) or f"exit status {status}")


def environment(device: str | None) -> dict[str, str]:
    """That of this process, without a process group: on one GPU, "" for none, None for those that
    there are."""
    inherited = {key: value for key, value in os.environ.items() if key not in GROUP}
    if device is None and gpus():
        return inherited
    return inherited | ({"CUDA_VISIBLE_DEVICES": device} if device else {"OMP_NUM_THREADS": "1"})


def gpus() -> list[str]:
    """The GPUs that may be used, without loading what would claim them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [device for device in chosen.split(",") if device.strip() not in ("", "-1")]
    return sorted(path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*"))


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
