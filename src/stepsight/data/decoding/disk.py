"""What the disk refuses, as errors that name the file, parts of files, and decoders that may not be
installed."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from stat import S_IFDIR, S_IFREG
from typing import Any

from stepsight.data.decoding.memory import check_memory
from stepsight.errors import DataFormatError, UserError

SHOWN = 8  # names in a refusal


@contextmanager
def reading(where: object) -> Iterator[None]:
    """Turn an `OSError` of the block into a `UserError` that begins with `where`. Of a path that is
    neither a file nor a folder nothing is read: a pipe may never end."""
    try:
        if isinstance(where, Path) and stat.S_IFMT(where.stat().st_mode) not in (S_IFREG, S_IFDIR):
            raise UserError(f"{where}: a device or a pipe, where a file is expected.")
        yield
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror}).") from error


@contextmanager
def writing(where: object) -> Iterator[None]:
    """The same for a block that writes: a full disk, a folder that is not there, no permission."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{where}: cannot be written ({error}).") from error


def extra(module: str, needed_by: str) -> Any:
    """A module of the extra `data`. Raises `UserError` if it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise UserError(f"{needed_by} need {package}: uv sync --extra data.") from error


def part_of(path: Path) -> tuple[Path, str]:
    """The file that a path names, and the part of it that follows `#`, or "".

    `room.h5#depth/17` is the part `depth/17` of `room.h5`. A file whose own name has a `#` is meant
    whole.
    """
    text = str(path)
    if "#" not in text or path.exists():
        return path, ""
    ends = [place for place, letter in enumerate(text) if letter == "#"]
    end = next((place for place in ends if Path(text[:place]).is_file()), ends[0])
    return Path(text[:end]), text[end + 1 :]


def pick(names: Iterable[str], part: str, wanted: Iterable[str], where: object) -> str:
    """The array of a file that is meant: the named part, the only one, or one that is wanted.

    Raises `DataFormatError` where none or several are.
    """
    names = list(names)
    shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "") or "nothing"
    if part:
        if part not in names:
            raise DataFormatError(f"{where}: no array '{part}' (it has: {shown}).")
        return part
    if len(names) == 1:
        return names[0]
    for name in wanted:
        if len(same := [one for one in names if one.lower() == name]) == 1:
            return same[0]
    raise DataFormatError(f"{where}: holds {shown}; say which is meant in a list: {where}#NAME.")


def read_bytes(path: Path) -> bytes:
    """A file's bytes. Raises `UserError` if it cannot be read, or is larger than files may be."""
    with reading(path):
        check_memory(path.stat().st_size, "its bytes", path)
        return path.read_bytes()
