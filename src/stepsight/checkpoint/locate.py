"""Which step folder is meant: by marks, by the order of writing; and which ones may go.

`last.txt` and `best.txt` are for people and for what opens a run to predict. What a run continues
from is never up to them: that is the newest by `order`.
"""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Collection
from pathlib import Path

from stepsight.checkpoint.archive import unpacked
from stepsight.checkpoint.format import (
    COMPLETE,
    META,
    OLD,
    STAGED,
    CheckpointError,
    fault,
    flush,
    manifest_of,
    read_json,
    step_of,
)
from stepsight.checkpoint.hub import local

PACKAGED = Path(__file__).parents[1] / "weights"  # the checkpoint that comes with stepsight
STEP = re.compile(r"(\.old-)?step-\d{6,18}")


def order(path: Path) -> tuple[float, int]:
    """Sorts step folders by when they were written.

    That is by `serial`, which every save of a run counts up, and not by step: a run that was
    continued from an earlier step has left later ones behind. Folders that do not tell come last,
    so that what is wrong with them is said; those of versions that did not count come first.
    """
    try:
        serial = read_json(path / META).get("serial", 0)
    except CheckpointError:
        serial = math.inf
    return serial if isinstance(serial, int) else math.inf, step_of(path)


def folders(folder: Path) -> list[Path]:
    """All step folders that hold anything, whole or not, in the order of writing."""
    found = {folder / path.name.removeprefix(OLD) for path in folder.glob("*step-*") if _is(path)}
    places = (whole(path) or path for path in found)
    return sorted((path for path in places if path.is_dir() and any(path.iterdir())), key=order)


def _is(path: Path) -> bool:
    return STEP.fullmatch(path.name) is not None


def completed(folder: Path) -> list[Path]:
    """The complete step folders in `folder`, in the order of writing."""
    return [path for path in folders(folder) if (path / COMPLETE).exists()]


def whole(path: Path) -> Path | None:
    """A complete step folder, or what was there when its replacement was killed half-way."""
    places = (path, path.with_name(OLD + path.name))
    return next((one for one in places if (one / COMPLETE).exists()), None)


def resolve(path: str | Path, prefer: str = "best") -> Path:
    """The step folder that `path` means: itself, or a run's best (else newest) one. Of a tar what
    it holds is meant, of a name on the hub the copy of it.

    prefer: "last" for the newest in any case. Raises CheckpointError saying what was found instead.
    """
    path = local(path)
    if path.is_file():
        path = unpacked(path)
    if not path.is_dir():
        path = whole(path) or path
    if not path.is_dir():
        raise CheckpointError(
            f"checkpoint {path} not found. Give a run folder, one of its checkpoints/step-* "
            f"folders or a tar. A name on the hub, user/name, is only fetched with "
            f"--allow-download (allow_download=True); nothing is looked up elsewhere."
        )
    if (path / META).exists() or _is(path):
        return path
    folder = home(path)
    if prefer == "best" and (best := marked(folder, "best")):
        return best
    if found := completed(folder):
        return found[-1]
    raise CheckpointError(
        f"{path} holds no complete checkpoint (looked for checkpoints/step-*/COMPLETE). "
        f"Give a run folder made by training, or let the run reach its first checkpoint."
    )


def home(run: Path) -> Path:
    """Where the checkpoints of a run lie: in a folder of its own, or in `run` itself."""
    return run / "checkpoints" if (run / "checkpoints").is_dir() else run


def mark(folder: Path, which: str, name: str) -> None:
    """Point `last.txt` or `best.txt` at a step folder, atomically."""
    staged = folder / f"{STAGED}{which}.txt"
    staged.write_text(name + "\n")
    flush(staged)
    os.replace(staged, folder / f"{which}.txt")


def marked(folder: Path, which: str) -> Path | None:
    """The complete step folder in `folder` that a mark names; None for a mark that names none."""
    try:
        name = (folder / f"{which}.txt").read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return whole(folder / name) if STEP.fullmatch(name) else None


def prune(folder: Path, keep: int, sound: Path | None = None, spared: Collection[int] = ()) -> None:
    """Delete all but the newest `keep` step folders by number, those that are marked, and the last
    that was written: in a run continued from an earlier step that one is not the newest by number.
    If that one is not intact, the last intact one stays as well.

    sound: a step folder that is known to be intact, such as one that has just been written.
    spared: steps that stay in any case, and are not counted.
    """
    every = (path for path in folder.glob("step-*") if path.is_dir())
    steps = sorted((path for path in every if step_of(path) not in spared), key=step_of)
    kept = {marked(folder, "best"), marked(folder, "last"), *completed(folder)[-1:]}
    gone = [path for path in steps[: max(0, len(steps) - keep)] if path not in kept]
    if gone:
        last_first = reversed(completed(folder))
        newest = next((path for path in last_first if path == sound or intact(path)), None)
        for path in gone:
            if path != newest:
                shutil.rmtree(path)


def intact(path: Path) -> bool:
    """Whether every file of a step folder is as its manifest says."""
    try:
        return not any(fault(path / name, one) for name, one in manifest_of(path).items())
    except (CheckpointError, OSError):
        return False
