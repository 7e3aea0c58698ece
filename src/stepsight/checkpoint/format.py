"""The checkpoint format: a folder of safetensors and JSON, complete or absent.

    step-000600/
      config.yaml                                     the resolved run
      stepsight.json                                  format, tasks, sizes, images seen
      backbone/diffusion_pytorch_model.safetensors    averaged weights: what a user wants
      raw/diffusion_pytorch_model.safetensors         the weights being trained
      baselines/statistics.safetensors                training statistics of the trivial predictors
      train_state/optimizer.safetensors               moments and momentum
      manifest.json                                   size and sha256 of every file
      COMPLETE                                        sha256 of the manifest; written last

Format 2 is the same but for tensors that are spread over processes: in place of one file there are
`shard-00001-of-00004.safetensors` and so on (see `shards`). No pickle is written or read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors import SafetensorError

from stepsight.errors import UserError

FORMAT, SHARDED = 1, 2
WEIGHTS = "diffusion_pytorch_model.safetensors"
BACKBONE, RAW = f"backbone/{WEIGHTS}", f"raw/{WEIGHTS}"
STATISTICS = "baselines/statistics.safetensors"
OPTIMIZER = "train_state/optimizer.safetensors"
CODEC = "codec"  # of a run folder: its own copy of the VAE
CONFIG, META, MANIFEST, COMPLETE = "config.yaml", "stepsight.json", "manifest.json", "COMPLETE"
OLD = ".old-"  # of a name: a step folder that is being replaced
STAGED = ".staged-"  # of a name: a step folder, or a mark, that is being written
SHARD = re.compile(r"shard-(\d{5})-of-(\d{5})\.safetensors")
BEFORE_SEALS = "complete\n"  # what COMPLETE said before it held a digest

Entry = dict[str, Any]  # of the manifest: bytes, sha256


class CheckpointError(UserError):
    """A checkpoint that is missing, unfinished, damaged or of another model."""


def step_name(step: int) -> str:
    return f"step-{step:06d}"


def step_of(folder: Path) -> int:
    """The number of a step folder, beyond six digits too."""
    return int(folder.name.removeprefix(OLD).removeprefix("step-"))


def shard_name(name: str, rank: int, parts: int) -> str:
    """Where process `rank` of `parts` puts its share of the tensors of file `name`."""
    return str(Path(name).with_name(f"shard-{rank + 1:05d}-of-{parts:05d}.safetensors"))


def entry(path: Path) -> Entry:
    """A file in the manifest."""
    return {"bytes": path.stat().st_size, "sha256": digest(path)}


def seal(folder: Path, entries: dict[str, Entry]) -> None:
    """Write the manifest and, after it, COMPLETE, which holds the manifest's own digest in the form
    of `sha256sum`. Both reach the disk in that order."""
    manifest, complete = folder / MANIFEST, folder / COMPLETE
    _write(manifest, as_json(dict(sorted(entries.items()))))
    _write(complete, f"{digest(manifest)}  {MANIFEST}\n")


def _write(path: Path, text: str) -> None:
    """Under a new file: the old one may be shared with another folder."""
    path.unlink(missing_ok=True)
    path.write_text(text)
    flush(path)


def manifest_of(folder: Path) -> dict[str, Entry]:
    """The manifest of a complete folder, which COMPLETE vouches for.

    Raises CheckpointError if it was changed, or names files outside the folder.
    """
    path, complete = folder / MANIFEST, folder / COMPLETE
    found = read_json(path)
    try:
        said = complete.read_text()
    except (OSError, UnicodeDecodeError):
        said = ""
    if said != BEFORE_SEALS and said != f"{digest(path)}  {MANIFEST}\n":
        raise CheckpointError(
            f"{path} does not match the sha256 in {COMPLETE}: one of them is damaged. "
            f"Copy the checkpoint again, or use another."
        )
    for name, one in found.items():
        inside = PurePosixPath(name)  # by its name: a cache of downloads holds links to its files
        odd = "\0" in name or len(name) > 200 or ".." in inside.parts
        if odd or inside.is_absolute():
            raise CheckpointError(f"{path} names {name!r}, outside the folder.")
        if not isinstance(one, dict) or not _sound(one):
            raise CheckpointError(f"{path}: the entry of {name} is not a size and a sha256.")
    return found


def _sound(one: Entry) -> bool:
    return type(one.get("bytes")) is int and isinstance(one.get("sha256"), str)


def check_held(folder: Path, manifest: dict[str, Entry], names: Iterable[str]) -> None:
    """Raise CheckpointError for a file that has to be there and that the manifest does not name."""
    for name in names:
        if not held(manifest, name):
            raise CheckpointError(
                f"{folder / MANIFEST} does not name {name}, which was written: it is damaged. "
                f"Copy the checkpoint again, or use another."
            )


def held(manifest: dict[str, Entry], name: str) -> list[str]:
    """The files of a manifest that hold the tensors of file `name`: itself, its shards, or none.

    Raises CheckpointError if some of the shards are not listed.
    """
    if name in manifest:
        return [name]
    home = str(Path(name).parent)
    shards = sorted(
        one for one in manifest if str(Path(one).parent) == home and SHARD.fullmatch(Path(one).name)
    )
    wanted = [shard_name(name, rank, len(shards)) for rank in range(len(shards))]
    if shards != wanted:
        raise CheckpointError(f"{home}/ holds {', '.join(shards)}: not all shards are there.")
    return shards


def fault(path: Path, wanted: Entry, thorough: bool = True) -> str:
    """What is wrong with a file of a checkpoint, by its entry in the manifest; thorough: whether
    its bytes are looked at, else only its size."""
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    if size != wanted["bytes"]:
        return f"has {size} bytes, its manifest says {wanted['bytes']}: truncated or overwritten"
    whole = not thorough or digest(path) == wanted["sha256"]
    return "" if whole else f"does not match its sha256 in {MANIFEST}: it is damaged"


def read_json(path: Path) -> dict[str, Any]:
    """A table in JSON. Raises CheckpointError."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing: this is not a stepsight checkpoint.") from None
    except (ValueError, RecursionError) as error:  # of JSON, of UTF-8, nested too deep
        raise CheckpointError(f"{path} is not valid JSON: {error}") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} is not valid: it must hold a table.")
    return found


def as_json(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=2) + "\n"


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def disk_error(path: Path, doing: str, error: OSError | SafetensorError) -> UserError:
    """What a file system that takes no more, or nothing, means for the user."""
    there = next(one for one in (path, *path.absolute().parents) if one.exists())
    reason = getattr(error, "strerror", None) or str(error)
    return UserError(
        f"{path}: {doing} failed: {reason} ({shutil.disk_usage(there).free / 2**20:,.0f} MiB are "
        f"free there). Make room or let it be written to, then go on with --resume auto: what was "
        f"saved before is untouched."
    )
