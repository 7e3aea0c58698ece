"""Checkpoints in a tar: one file to hand over."""

from __future__ import annotations

import atexit
import os
import shutil
import tarfile
import tempfile
import zlib
from functools import lru_cache
from pathlib import Path

from stepsight.checkpoint.format import CheckpointError


def packed(folder: Path, tar: Path) -> None:
    """Write what `folder` holds as a tar. The same files make the same bytes: names in order, no
    owner, no time."""

    def anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uid = info.gid = info.mtime = 0
        info.uname = info.gname = ""
        info.mode = 0o755 if info.isdir() else 0o644
        return info

    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as opened:
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            opened.add(path, name, recursive=False, filter=anonymous)


def unpacked(tar: Path) -> Path:
    """The folder in a tar, unpacked once among the temporary files of this process, which go when
    it ends. Raises CheckpointError for a file that is no tar, is cut off, or cannot be unpacked."""
    state = tar.stat()
    return _unpacked(tar.resolve(), state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=16)
def _unpacked(tar: Path, _changed: int, _size: int) -> Path:
    folder, owner = Path(tempfile.mkdtemp(prefix="stepsight-")), os.getpid()

    def clear() -> None:
        if os.getpid() == owner:  # and not a child that was forked from it
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(clear)
    try:
        with tarfile.open(tar) as opened:
            opened.extractall(folder, filter="data")
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
        clear()
        reason = getattr(error, "strerror", None) or str(error).partition(":\n")[0]
        raise CheckpointError(
            f"{tar}: not a checkpoint in a tar ({reason}). Give a run folder, one of its "
            f"checkpoints/step-* folders, or a tar that save_pretrained wrote."
        ) from None
    inside = [*folder.iterdir()]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder
