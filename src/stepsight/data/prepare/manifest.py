"""What a prepared folder holds and how it came about: `manifest.json`.

It has no times, machine names or absolute paths, so the same source prepared twice gives the same
bytes, and its hash names the data a result was computed on.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from stepsight.data.decoding.disk import reading, writing
from stepsight.errors import DataFormatError

FILE_NAME = "manifest.json"
Fingerprint = dict[str, Any]  # {"bytes": size, "sha256": hex digits}


@dataclass(frozen=True)
class Manifest:
    """A prepared data set: where from, under which rules, and every file with its digest."""

    name: str  # of the data set, as in `stepsight.data.config.TABLE`
    source: str  # name of the root folder, without where it stood
    tool: str
    settings: Mapping[str, Any]  # the rules that decided what is in it
    counts: Mapping[str, int] = field(default_factory=dict)  # samples by split
    left_out: Mapping[str, str] = field(default_factory=dict)  # sample: the rule it fails
    damaged: Mapping[str, str] = field(default_factory=dict)  # sample: what is wrong with its files
    files: Mapping[str, Fingerprint] = field(default_factory=dict)  # path below the folder

    @property
    def hash(self) -> str:
        """sha256 of everything above, as hex digits."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def write(self, folder: Path) -> None:
        """Write `manifest.json` whole or not at all. Raises `UserError`."""
        text = json.dumps({"hash": self.hash, **asdict(self)}, indent=1, sort_keys=True)
        write_whole(folder / FILE_NAME, text + "\n")

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of a prepared folder. Raises `UserError`, `DataFormatError` if damaged."""
        path = folder / FILE_NAME
        try:
            with reading(path):
                record = json.loads(path.read_text(encoding="utf-8"))
            digest = record.pop("hash")
            manifest = cls(**record)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise DataFormatError(f"{path}: not a manifest of a prepared data set.") from error
        if manifest.hash != digest:
            raise DataFormatError(f"{path}: its hash does not fit what it says; it was changed.")
        return manifest


def tool() -> str:
    """This program and its version."""
    try:
        return f"stepsight {version('stepsight')}"
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "stepsight"


def fingerprint(path: Path) -> Fingerprint:
    """Size and digest of a file's bytes."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": digest}


def is_whole(path: Path, wanted: Fingerprint) -> bool:
    """Whether a file is there with the bytes it was written with."""
    try:
        return path.stat().st_size == wanted["bytes"] and fingerprint(path) == wanted
    except OSError:
        return False


def write_whole(path: Path, text: str) -> None:
    """Write a text file aside and rename it. Raises `UserError`."""
    staged = path.with_name(f".{path.name}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with staged.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
