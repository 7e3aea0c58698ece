"""Small jobs that make files from files: whole or not at all, in any number of processes.

A job writes its outputs in a staging folder; they are renamed into place when all of them are
there. Outcomes come in the order of the jobs, so nothing depends on the number of processes.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread

import torch

from stepsight.data.prepare.manifest import Fingerprint, fingerprint, is_whole
from stepsight.errors import DataFormatError, UserError

STAGING = ".staging"
AHEAD = 4  # jobs handed out in advance to each process


@dataclass(frozen=True)
class Job:
    """One sample to make."""

    name: str  # what messages and the manifest call it
    inputs: tuple[Path, ...]
    outputs: tuple[str, ...]  # below the prepared folder, with forward slashes
    line: str  # of the list file it belongs to


Work = Callable[[Job, list[Path]], str | None]
"""Writes the outputs of a job to the given paths, or returns why a rule leaves the sample out.
Raises `DataFormatError` naming the input that is damaged. A function of a module, not a closure."""


@dataclass(frozen=True)
class Outcome:
    """What came of a job: files, or the reason why there are none."""

    files: dict[str, Fingerprint] = field(default_factory=dict)
    left_out: str = ""
    damaged: str = ""


Call = tuple[Work, Job, Path, Outcome | None]  # with the prepared folder and what is on record


def perform_all(calls: Iterator[Call], workers: int) -> Iterator[Outcome]:
    """The outcomes of jobs, in order. Raises `UserError` if a process is killed."""
    if workers == 1:
        yield from (perform(*call) for call in calls)
        return
    # Not by fork: the threads of torch do not survive it.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_start_worker)
    waiting: deque[Future[Outcome]] = deque()
    try:
        for call in calls:
            waiting.append(pool.submit(perform, *call))
            if len(waiting) == AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise UserError(
            "A worker was killed, perhaps for want of memory; run again with fewer --workers."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def perform(work: Work, job: Job, out: Path, known: Outcome | None) -> Outcome:
    """Do a job, unless what is on record of it still holds."""
    if known and all(is_whole(out / path, wanted) for path, wanted in known.files.items()):
        return known
    staged = [out / STAGING / path.replace("/", "+") for path in job.outputs]
    try:
        _refuse_missing(job)
        if reason := work(job, staged):
            return Outcome(left_out=reason)
    except DataFormatError as error:
        return Outcome(damaged=str(error))
    return Outcome({path: _put(out / path, one) for path, one in zip(job.outputs, staged)})


def _start_worker() -> None:
    """One thread a process, and no process outlives a killed parent."""
    torch.set_num_threads(1)
    parent = parent_process()
    assert parent is not None

    def leave() -> None:
        parent.join()
        os._exit(1)

    Thread(target=leave, daemon=True).start()


def _refuse_missing(job: Job) -> None:
    for path in job.inputs:
        if not path.is_file():
            raise DataFormatError(f"{path}: missing.")


def _put(path: Path, staged: Path) -> Fingerprint:
    """Rename a staged file into place."""
    try:
        found = fingerprint(staged)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(staged, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error}).") from error
    return found
