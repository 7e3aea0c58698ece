"""Any source into tar shards, exactly: `stepsight data shard`. Every sample is held to the rules of
`data.plausible` on its way, as `stepsight data check` does; what they say is kept in the index.

Each tar is written aside, together with its part of the index, and renamed when it is whole; the
index comes last. Whoever is interrupted continues with the first missing tar, and the bytes do not
depend on how often that happened or on how many processes wrote.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stepsight.data.bad import QUARANTINE, BadItems, OnBad
from stepsight.data.check import CLOSELY
from stepsight.data.decoding.annotations import read_json
from stepsight.data.decoding.disk import writing
from stepsight.data.plausible.judging import QUICK, RULES, summary, votes
from stepsight.data.plausible.rules import Vote
from stepsight.data.prepare.manifest import fingerprint
from stepsight.data.resize import resize_sample
from stepsight.data.sharded.index import (
    ABSENT,
    INDEX,
    Index,
    Tar,
    read_index,
    tar_name,
    write_index,
    write_json,
)
from stepsight.data.sharded.members import digests, encode, escape
from stepsight.data.sharded.reading import Shards
from stepsight.data.table import Source, read_sample, specific_options
from stepsight.data.workers import each
from stepsight.errors import DataFormatError, UserError
from stepsight.types import Sample

PARTS = ".parts"  # folder of what is not finished
PLAN = "plan.json"


def write_shards(
    source: Source,
    out: str | Path,
    *,
    split: str = "all",
    per_shard: int,
    quality: int | None = None,
    size: tuple[int, int] | None = None,
    workers: int = 0,
    on_bad: OnBad = "stop",
    bad_cap: float = 0.01,
    report: Callable[[int, int], None] | None = None,
) -> Index:
    """Write `source` into `out` as tars of `per_shard` samples, or finish what was begun there.

    split: the name under which readers find these samples. quality: of JPEG for the pictures; None
    keeps them exactly, as PNG. size: height, width to bring the samples to; None keeps theirs.
    on_bad: `skip` leaves out what cannot be read, up to a share `bad_cap` of the samples, lists it
    in `quarantine.jsonl` beside the tars, and says in the index how many. `report(done, total)`
    counts samples. One that lacks a truth of others is written without it. What is implausible
    stands in the index under `remarks`, each with whether it is grave. Raises `UserError` if `out`
    holds anything else, `DataFormatError` for samples that cannot be read or share a key.
    """
    assert per_shard > 0 and len(source) > 0, (per_shard, len(source))
    made = {"size": size and list(size), "quality": quality, "per_shard": per_shard}
    about = {**_described(source, split), **made}
    bad = BadItems(on_bad, bad_cap, Path(out) / QUARANTINE)
    job = _Job(source, Path(out), quality, size, per_shard, bad)
    with writing(job.out):
        if (job.out / INDEX).is_file():
            written = read_index(job.out / INDEX).about
            whole = written["count"] + written.get("skipped", 0)
            _refuse_other(job.out, {**written, "count": whole}, about)
        else:
            _begin(job, about)
            _write_missing(job, workers, report)
            _finish(job, about)
        shutil.rmtree(job.parts, ignore_errors=True)
        return read_index(job.out / INDEX)


@dataclass(frozen=True)
class _Job:
    source: Source
    out: Path
    quality: int | None
    size: tuple[int, int] | None
    per_shard: int
    bad: BadItems

    @property
    def parts(self) -> Path:
        return self.out / PARTS

    @property
    def count(self) -> int:
        return -(-len(self.source) // self.per_shard)

    def indices(self, number: int) -> range:
        start = number * self.per_shard
        return range(start, min(start + self.per_shard, len(self.source)))

    def part(self, number: int) -> Path:
        return self.parts / f"{tar_name(number)}.json"

    def is_whole(self, number: int) -> bool:
        """The tar is renamed after its part of the index was written."""
        return self.part(number).is_file() and (self.out / tar_name(number)).is_file()

    def write(self, number: int) -> int:
        """Write a tar and its part of the index; return how many samples it was to hold."""
        with writing(self.out):
            aside = self.parts / tar_name(number)
            tar, cast = self._write_tar(aside, number)
            write_json(self.part(number), {**tar.as_json(), "votes": cast})
            aside.replace(self.out / tar_name(number))
        return len(self.indices(number))

    def _write_tar(self, path: Path, number: int) -> tuple[Tar, list[Vote]]:
        keys, sizes, members, cast, stored = [], [], [], list[Vote](), Stored()
        with path.open("wb") as file, tarfile.open(fileobj=file, mode="w") as tar:
            for index in self.indices(number):
                if (sample := self._read(index)) is None:
                    continue
                cast += votes(sample, self.source, RULES if index < CLOSELY else QUICK)
                sample = sample if self.size is None else resize_sample(sample, self.size)
                members.append(_add_sample(tar, sample, self.quality, stored))
                keys.append(sample.key)
                sizes.append(sample.image.shape[-2:])
            tar.close()
            file.flush()
            os.fsync(file.fileno())
        if not keys:
            raise UserError(
                f"{self.out}: nothing that {path.name} is to hold can be read. Set a larger "
                f"--per-shard."
            )
        suffixes = tuple(sorted({suffix for places in members for suffix in places}))
        table = [[places.get(suffix, ABSENT) for suffix in suffixes] for places in members]
        return Tar(
            name=tar_name(number),
            bytes=path.stat().st_size,
            sha256=fingerprint(path)["sha256"],
            suffixes=suffixes,
            keys=tuple(keys),
            sizes=np.array(sizes),
            members=np.array(table),
        ), cast

    def _read(self, index: int) -> Sample | None:
        """A sample, None for one to leave out."""
        try:
            return read_sample(self.source, index)  # its `OSError` is none of writing
        except UserError as error:
            self.bad.met(self.source.name, index, error, of=len(self.source))
            return None


def _described(source: Source, split: str) -> dict[str, Any]:
    if isinstance(source, Shards):  # they hand on the options with which they were written
        settings = source.options
    else:
        given = getattr(source, "settings", None)
        settings = {} if given is None else specific_options(given)
    return {
        "source": source.name,
        "split": split,
        "count": len(source),
        "classes": list(source.classes),
        "categories": list(source.categories),
        "quantities": sorted(source.quantities),
        "settings": settings,
        "published": dict(getattr(source, "published", {})),
    }


def _begin(job: _Job, about: dict[str, Any]) -> None:
    """Lay out the folder, or recognise what was begun there."""
    plan = job.parts / PLAN
    if plan.is_file():
        return _refuse_other(job.out, read_json(plan), about)
    if job.out.is_dir() and any(path.name != PARTS for path in job.out.iterdir()):
        raise UserError(f"{job.out}: not empty, and no shards were begun here. Name a new folder.")
    job.parts.mkdir(parents=True, exist_ok=True)
    write_json(plan, about)


def _refuse_other(out: Path, written: dict[str, Any], wanted: dict[str, Any]) -> None:
    if differing := [name for name in wanted if written.get(name) != wanted[name]]:
        raise UserError(
            f"{out}: holds shards that differ in {', '.join(differing)}. Name a new folder, or "
            f"remove this one."
        )


def _write_missing(job: _Job, workers: int, report: Callable[[int, int], None] | None) -> None:
    missing = [number for number in range(job.count) if not job.is_whole(number)]
    written = len(job.source) - sum(len(job.indices(number)) for number in missing)
    for samples in each(job.write, missing, workers):
        written += samples
        if report is not None:
            report(written, len(job.source))


def _finish(job: _Job, about: dict[str, Any]) -> None:
    parts = [read_json(job.part(n)) for n in range(job.count)]
    tars = tuple(Tar.from_json(part, n) for n, part in enumerate(parts))
    counts = Counter(key for tar in tars for key in tar.keys)
    if repeated := [key for key, count in counts.items() if count > 1]:
        raise DataFormatError(
            f"{job.source.name}: {len(repeated)} keys are not unique, the first is {repeated[0]}."
        )
    if skipped := about["count"] - sum(map(len, tars)):
        about = {**about, "count": about["count"] - skipped, "skipped": skipped}
    said = summary(Vote(*one) for part in parts for one in part.get("votes", ()))
    about = {**about, "remarks": [[str(remark), remark.grave] for remark in said]}
    write_index(job.out, Index(about, tars))


Place = tuple[int, ...]  # where data start, their bytes and CRC-32
Stored = dict[
    tuple[str, bytes], tuple[str, str, Place]
]  # a field and what it shows: the suffix and
# name of its member in this tar, and its place


def _add_sample(
    tar: tarfile.TarFile, sample: Sample, quality: int | None, stored: Stored
) -> dict[str, Place]:
    """Append the members of a sample but for pictures that lie there already; all by suffix."""
    shown = {(name, digest): name for name, digest in digests(sample).items()}
    found = {name: stored[what] for what, name in shown.items() if what in stored}
    held = {name: member for name, (_, member, _) in found.items()}
    key = escape(sample.key)
    places = _add(tar, key, encode(sample, quality, held))
    for what, name in shown.items():
        for suffix, place in places.items():
            if suffix.partition(".")[0] == name:
                stored[what] = (suffix, f"{key}.{suffix}", place)
    return places | {suffix: place for suffix, _, place in found.values()}


def _add(tar: tarfile.TarFile, key: str, members: dict[str, bytes]) -> dict[str, Place]:
    """Append the members of a sample; their places by suffix."""
    places = {}
    for suffix, data in members.items():
        info = tarfile.TarInfo(f"{key}.{suffix}")  # of no time and nobody: equal bytes every time
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
        start = tar.offset - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        places[suffix] = (start, len(data), zlib.crc32(data))
    return places
