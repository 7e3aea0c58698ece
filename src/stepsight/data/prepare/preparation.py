"""A prepared folder in the making: which jobs are done, by a journal that survives being killed.

A line of the journal records the digests of a job's files once they are in place. Whoever is killed
at any point leaves complete files, and at worst repeats the jobs that had no line yet. A later run
believes a record only if the files still have its bytes. At the end the manifest takes the place of
the journal.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TextIO

from stepsight.data.decoding.disk import writing
from stepsight.data.prepare.jobs import STAGING, Job, Outcome, Work, perform
from stepsight.data.prepare.manifest import (
    FILE_NAME,
    Fingerprint,
    Manifest,
    fingerprint,
    tool,
    write_whole,
)
from stepsight.data.workers import each
from stepsight.errors import DataFormatError, UserError

JOURNAL = ".journal.jsonl"
REPORT_EVERY = 5.0  # seconds
IDENTITY = ("name", "settings")  # what a resumed run must have in common

Report = Callable[[str], None]


class Listing(NamedTuple):
    """A list file and the samples that belong into it, as far as they can be made."""

    split: str
    path: str  # below the prepared folder
    jobs: list[Job]


class Preparation:
    """One run over `root` into `out`, knowing what earlier runs did."""

    def __init__(self, name: str, root: Path, out: Path, settings: dict[str, Any]) -> None:
        """Raises `UserError` if there is no `root`, or `out` holds something prepared otherwise."""
        if not root.is_dir():
            raise UserError(f"{name}: {root} not found; name the folder of the published data set.")
        if root.resolve() == out.resolve():
            raise UserError(f"{name}: {out} is the source itself; name another folder to make.")
        self.root, self.out = root, out
        self.manifest = Manifest(name, root.resolve().name, tool(), settings)
        self.files: dict[str, Fingerprint] = {}
        self.left_out: dict[str, str] = {}
        self.damaged: dict[str, str] = {}
        self._recall()

    def known(self, job: Job) -> Outcome | None:
        """What earlier runs recorded of a job."""
        if job.name in self.left_out:
            return Outcome(left_out=self.left_out[job.name])
        if all(path in self.files for path in job.outputs):
            return Outcome({path: self.files[path] for path in job.outputs})
        return None

    def run(
        self, listings: Sequence[Listing], work: Work, *, report: Report, workers: int, strict: bool
    ) -> Manifest:
        """Do what is not done yet; then write the lists and the manifest, and drop the journal.

        Raises `UserError` if there is nothing to do or it cannot be written, and if `strict` the
        first `DataFormatError`.
        """
        jobs = [job for listing in listings for job in listing.jobs]
        self._check(jobs, workers)
        self._begin()
        self._perform(jobs, work, report, workers, strict)
        counts = self._write_lists(listings)
        made = {"left_out": self.left_out, "damaged": self.damaged, "files": self.files}
        manifest = replace(self.manifest, counts=counts, **made)
        manifest.write(self.out)
        shutil.rmtree(self.out / STAGING)
        (self.out / JOURNAL).unlink()
        return manifest

    def _perform(
        self, jobs: Sequence[Job], work: Work, report: Report, workers: int, strict: bool
    ) -> None:
        known = {job.name: self.known(job) for job in jobs}
        self.files, self.left_out = {}, {}
        calls = [(work, job, self.out, known[job.name]) for job in jobs]
        reported = time.monotonic()
        with (self.out / JOURNAL).open("a", encoding="utf-8") as journal:
            outcomes = each(perform, calls, workers if workers > 1 else 0, start="spawn")
            for done, (job, outcome) in enumerate(zip(jobs, outcomes), 1):
                if outcome.damaged and strict:
                    raise DataFormatError(outcome.damaged)
                self._record(job, outcome, None if outcome == known[job.name] else journal)
                if outcome.damaged:
                    report(f"damaged, left out: {outcome.damaged}")
                if done == len(jobs) or time.monotonic() - reported > REPORT_EVERY:
                    reported = time.monotonic()
                    less = f"{len(self.left_out)} left out by rule, {len(self.damaged)} damaged"
                    report(f"{done} of {len(jobs)} samples ({less})")

    def _write_lists(self, listings: Sequence[Listing]) -> dict[str, int]:
        """Write the lists of what is there, and count it by split."""
        counts = dict.fromkeys((listing.split for listing in listings), 0)
        absent = self.left_out.keys() | self.damaged.keys()
        for split, path, jobs in listings:
            lines = [f"{job.line}\n" for job in jobs if job.name not in absent]
            write_whole(self.out / path, "".join(lines))
            self.files[path] = fingerprint(self.out / path)
            counts[split] += len(lines)
        return counts

    def _recall(self) -> None:
        """Take over what earlier runs recorded."""
        if (self.out / FILE_NAME).exists():
            self._take(asdict(Manifest.read(self.out)))
        if (self.out / JOURNAL).exists():
            for record in _read_journal(self.out / JOURNAL):
                self._take(record)

    def _take(self, record: dict[str, Any]) -> None:
        mine = json.loads(json.dumps(asdict(self.manifest)))  # as it reads from a file
        for part in IDENTITY:
            if part in record and record[part] != mine[part]:
                raise UserError(
                    f"{self.out}: was prepared with {part} {record[part]!r}, not {mine[part]!r}. "
                    "Name another folder, or remove this one to make it anew."
                )
        self.files |= record["files"]
        self.left_out |= record["left_out"]

    def _begin(self) -> None:
        """An empty staging folder, and a journal that starts with what is known so far."""
        shutil.rmtree(self.out / STAGING, ignore_errors=True)
        with writing(self.out):
            (self.out / STAGING).mkdir(parents=True)
        known = replace(self.manifest, files=self.files, left_out=self.left_out)
        write_whole(self.out / JOURNAL, json.dumps(asdict(known)) + "\n")

    def _check(self, jobs: Sequence[Job], workers: int) -> None:
        if workers < 1:
            raise UserError(f"--workers {workers}: must be at least 1.")
        if not jobs:
            raise UserError(f"{self.manifest.name}: found nothing to prepare in {self.root}.")
        outputs = [path for job in jobs for path in job.outputs]
        for names in ([job.name for job in jobs], outputs):
            name, times = Counter(names).most_common(1)[0]
            if times > 1:
                raise DataFormatError(f"{self.root}: {name} would be made {times} times.")
        for path in map(PurePosixPath, outputs):
            if path.is_absolute() or ".." in path.parts:
                raise DataFormatError(f"{self.root}: {path} is outside the prepared folder.")

    def _record(self, job: Job, outcome: Outcome, journal: TextIO | None) -> None:
        self.files |= outcome.files
        left_out = {job.name: outcome.left_out} if outcome.left_out else {}
        self.left_out |= left_out
        if outcome.damaged:  # not in the journal: the file may be fixed before the next run
            self.damaged[job.name] = outcome.damaged.replace(f"{self.root}{os.sep}", "")
        elif journal:
            line = json.dumps({"files": outcome.files, "left_out": left_out})
            print(line, file=journal, flush=True)


def _read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """Its records, up to a line that was being written when a run was killed."""
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return
