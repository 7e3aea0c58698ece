"""Writing a checkpoint: staged under another name, flushed to disk, and renamed into place, so that
a killed run never leaves half of one."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from stepsight import distributed
from stepsight.checkpoint.format import (
    COMPLETE,
    CONFIG,
    FORMAT,
    META,
    OLD,
    SHARDED,
    STAGED,
    Entry,
    as_json,
    disk_error,
    entry,
    flush,
    manifest_of,
    read_json,
    seal,
    shard_name,
    step_name,
)
from stepsight.checkpoint.locate import completed, order
from stepsight.checkpoint.meta import outlines
from stepsight.checkpoint.shards import copied, heading, own_part, spread
from stepsight.config import RunConfig
from stepsight.errors import UserError

PARTS = ".parts"  # of a staged folder: what each process has written there
PATIENCE = 600.0  # seconds that the first process waits for the parts of the others
WRITING: set[Path] = set()  # staged folders that this process is at work on

Room = Mapping[str, Mapping[str, Tensor]]  # memory by file and name


@dataclass
class Snapshot:
    """A checkpoint as it was at one moment, in memory: the weights may change while it is written.

    With several parts every process takes its own and commits it; the first one waits for all.
    """

    folder: Path
    step: int
    staged: Path
    part: tuple[int, int]  # number of this process and how many there are
    config: RunConfig
    meta: dict[str, Any]
    files: dict[str, tuple[dict[str, Tensor], dict[str, str] | None]] = field(repr=False)

    @classmethod
    def of(
        cls,
        folder: Path,
        step: int,
        *,
        config: RunConfig,
        meta: Mapping[str, Any],
        tensors: Mapping[str, Mapping[str, Tensor]],
        part: tuple[int, int] = (0, 1),
        best: bool = False,
        room: Room | None = None,
    ) -> Self:
        """Copy the tensors, by file and name, to the CPU; of distributed ones the local shard.

        part: number of this process and how many of them write. With more than one all of them call
        this together. best: whether this is the best checkpoint so far. room: memory of an earlier
        snapshot that is written, which this one takes: new memory costs more than the copy.
        """
        rank, parts = part
        token = secrets.token_hex(4)
        if parts > 1:
            token = distributed.agreed(lambda: token)
        files: dict[str, tuple[dict[str, Tensor], dict[str, str] | None]] = {}
        taken, sharded = room or {}, False
        for name, values in tensors.items():
            if parts > 1 and spread(values):
                file, sharded = shard_name(name, rank, parts), True
                own, offsets = own_part(values, first=rank == 0, room=taken.get(file, {}))
                files[file] = own, heading(offsets)
            elif rank == 0:
                free = taken.get(name, {})
                files[name] = {key: copied(v, free.get(key)) for key, v in values.items()}, None
        facts = {"format": SHARDED if sharded else FORMAT, "step": step, "is_best": best, **meta}
        facts["tensors"] = outlines(tensors)
        staged = folder / f"{STAGED}{step_name(step)}-{token}"
        WRITING.add(staged)
        return cls(folder, step, staged, part, config, facts, files)

    def commit(self, patience: float = PATIENCE) -> Path | None:
        """Write this process's part. The first process waits for the others (at most `patience`
        seconds after its own), seals the whole and returns its path; the others return None.

        Raises UserError, with nothing left behind, if the disk is full or a part does not come.
        """
        rank, parts = self.part
        try:
            entries = self._write()
            if rank:
                return None
            entries |= self._others(patience)
            return self._publish(entries)
        except (OSError, SafetensorError) as error:
            failure = disk_error(self.staged, f"writing the checkpoint of step {self.step}", error)
            self._abandon(failure)
            raise failure from None
        except UserError as failure:
            self._abandon(failure)
            raise
        finally:
            WRITING.discard(self.staged)

    def _write(self) -> dict[str, Entry]:
        rank, parts = self.part
        if rank == 0:
            sweep(self.folder)
        for name, (values, metadata) in self.files.items():
            path = self.staged / name
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(values, path, metadata=metadata)
        if rank == 0:
            self._describe()
        names = [*self.files, *((CONFIG, META) if rank == 0 else ())]
        entries = {name: entry(self.staged / name) for name in names}
        for name in names:
            flush(self.staged / name)
        if rank:
            self._hand_in({"entries": entries})
        return entries

    def _describe(self) -> None:
        self.staged.mkdir(parents=True, exist_ok=True)
        (self.staged / CONFIG).write_text(self.config.to_yaml())
        meta = self.meta | {"serial": next_serial(self.folder)}
        (self.staged / META).write_text(as_json(meta | {"held": sorted({*meta, "held"})}))

    def _hand_in(self, said: dict[str, Any]) -> None:
        """Tell the first process what this one has written, or why it has not."""
        parts = self.staged / PARTS
        parts.mkdir(parents=True, exist_ok=True)
        draft, final = (parts / f"{self.part[0]}.{end}" for end in ("draft", "json"))
        draft.write_text(as_json(said))
        os.replace(draft, final)

    def _others(self, patience: float) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        waiting, until = set(range(1, self.part[1])), time.monotonic() + patience
        while waiting:
            for rank in sorted(waiting):
                path = self.staged / PARTS / f"{rank}.json"
                if path.exists():
                    said = read_json(path)
                    if "error" in said:
                        raise UserError(f"rank {rank}: {said['error']}")
                    entries |= said["entries"]
                    waiting.remove(rank)
            if waiting and time.monotonic() > until:
                raise UserError(
                    f"the checkpoint of step {self.step} is abandoned: rank "
                    f"{', '.join(map(str, sorted(waiting)))} of {self.part[1]} did not write its "
                    f"part to {self.staged} within {patience:.0f} s. Do all processes see the same "
                    f"folder? Continue with --resume auto: what was saved before is untouched."
                )
            time.sleep(0.02 if waiting else 0)
        shutil.rmtree(self.staged / PARTS, ignore_errors=True)
        return entries

    def _publish(self, entries: dict[str, Entry]) -> Path:
        seal(self.staged, entries)
        for path in [*(one for one in self.staged.rglob("*") if one.is_dir()), self.staged]:
            flush(path)
        final = self.folder / step_name(self.step)
        put(self.staged, final)
        flush(self.folder)
        return final

    def _abandon(self, failure: UserError) -> None:
        if self.part[0] == 0:
            shutil.rmtree(self.staged, ignore_errors=True)
        else:
            try:
                self._hand_in({"error": str(failure)})
            except OSError:
                pass  # then the first process waits for it in vain, and says so


def write(
    folder: Path,
    step: int,
    *,
    config: RunConfig,
    meta: Mapping[str, Any],
    tensors: Mapping[str, Mapping[str, Tensor]],
    best: bool = False,
) -> Path:
    """Write `folder/step-N` whole or not at all; returns its path."""
    snapshot = Snapshot.of(folder, step, config=config, meta=meta, tensors=tensors, best=best)
    path = snapshot.commit()
    assert path is not None
    return path


def next_serial(folder: Path) -> int:
    known = [serial for serial, _ in map(order, completed(folder)) if isinstance(serial, int)]
    return 1 + max(known, default=0)


def amend(path: Path, **facts: Any) -> None:
    """Add facts to the meta data of a complete checkpoint, whole or not at all."""
    final = path.with_name(path.name.removeprefix(OLD))
    sweep(path.parent)
    staged = path.with_name(f"{STAGED}{final.name}-{secrets.token_hex(4)}")
    manifest, meta = manifest_of(path), read_json(path / META) | facts
    try:
        shutil.copytree(path, staged, copy_function=_linked)
        if "held" in meta:
            meta["held"] = sorted({*meta["held"], *facts})
        (staged / META).unlink()
        (staged / META).write_text(as_json(meta))
        flush(staged / META)
        seal(staged, manifest | {META: entry(staged / META)})
        flush(staged)
        put(staged, final)
        flush(path.parent)
    except OSError as error:
        shutil.rmtree(staged, ignore_errors=True)
        raise disk_error(final, "adding to the checkpoint", error) from None


def _linked(old: str, new: str) -> None:
    """Another name of the same file; a copy where the file system has no such names."""
    try:
        os.link(old, new)
    except OSError:
        shutil.copy2(old, new)


def sweep(folder: Path) -> None:
    """Delete what writers that were killed have left."""
    for path in folder.glob(f"{STAGED}*"):
        if path.is_dir() and path not in WRITING:
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_file():
            path.unlink(missing_ok=True)
    for path in folder.glob(f"{OLD}*"):
        if (path.with_name(path.name.removeprefix(OLD)) / COMPLETE).exists():
            shutil.rmtree(path, ignore_errors=True)


def put(staged: Path, final: Path) -> None:
    """Rename into place; what was there is deleted only afterwards. Between the two renames it is
    read under its old name (see `locate.whole`)."""
    old = final.with_name(OLD + final.name)
    if final.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(final, old)
    try:
        os.replace(staged, final)
    except OSError:
        if old.exists():
            os.replace(old, final)
        raise
    shutil.rmtree(old, ignore_errors=True)
