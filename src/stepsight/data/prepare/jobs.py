"""Small jobs that make files from files: whole or not at all, in any number of processes.

A job writes its outputs in a staging folder; they are renamed into place when all of them are
there. Outcomes come in the order of the jobs, so nothing depends on the number of processes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from stepsight.data.decoding.disk import writing
from stepsight.data.prepare.manifest import Fingerprint, fingerprint, is_whole
from stepsight.errors import DataFormatError

STAGING = ".staging"


@dataclass(frozen=True)
class Job:
    """A sample to make."""

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


def perform(call: Call) -> Outcome:
    """Do a job, unless what is on record of it still holds."""
    work, job, out, known = call
    if known and all(is_whole(out / path, wanted) for path, wanted in known.files.items()):
        return known
    staged = [out / STAGING / path.replace("/", "+") for path in job.outputs]
    try:
        if missing := next((path for path in job.inputs if not path.is_file()), None):
            raise DataFormatError(f"{missing}: missing.")
        if reason := work(job, staged):
            return Outcome(left_out=reason)
    except DataFormatError as error:
        return Outcome(damaged=str(error))
    files = {}
    for name, ready in zip(job.outputs, staged):
        with writing(out / name):
            files[name] = fingerprint(ready)
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            ready.replace(out / name)
    return Outcome(files)
