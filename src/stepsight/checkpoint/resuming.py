"""What a run goes on from: its newest checkpoint that is whole, past those that are not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path

from stepsight.checkpoint.format import (
    BACKBONE,
    META,
    OPTIMIZER,
    RAW,
    STATISTICS,
    CheckpointError,
    held,
    read_json,
    step_name,
    step_of,
)
from stepsight.checkpoint.locate import completed, folders, home, intact, mark, marked, whole
from stepsight.checkpoint.reading import Checkpoint, read
from stepsight.checkpoint.snapshot import amend, next_serial
from stepsight.errors import UserError

ALWAYS = ("step", "images_seen", "training_flops", "losses", "best")  # of every version's runs
Say = Callable[[str], None]


def read_newest(run: Path, say: Say = print, upto: float = math.inf) -> Checkpoint | None:
    """The newest checkpoint of a run, by the order of writing, from which training can go on: every
    file is verified. None before there is one. upto: the last step that may be it.

    Each one that is passed over is said, with the reason and what is used in its place. Raises
    CheckpointError if none is whole.
    """
    found = [path for path in folders(home(run)) if step_of(path) <= upto]
    return _first(reversed(found), resumable, run, say)


def read_best(run: Path, say: Say = print) -> Checkpoint:
    """The best checkpoint of a run to predict with, or, if that is damaged, which is said, the
    newest whole one.

    Raises CheckpointError if there is none.
    """

    def opened(path: Path) -> Checkpoint:
        saved = read(path, lazy=True)
        saved.sound(BACKBONE)
        saved.sound(STATISTICS)
        return saved

    best, newest = marked(home(run), "best"), reversed(folders(home(run)))
    found = _first([best, *newest] if best else newest, opened, run, say)
    return found or read(run)  # which says what is missing


def _first(
    paths: Iterable[Path], opened: Callable[[Path], Checkpoint], run: Path, say: Say
) -> Checkpoint | None:
    faults: dict[Path, UserError] = {}
    for path in paths:
        try:
            saved = opened(path)
        except UserError as error:
            faults[path] = error
            continue
        for damaged, error in faults.items():
            say(f"{damaged.name} is passed over, {saved.path.name} is used in its place: {error}")
        return saved
    if faults:
        raise CheckpointError(
            f"{run} holds no whole checkpoint: {next(iter(faults.values()))} "
            f"Begin anew with --overwrite, or in another folder."
        )
    return None


def resumable(path: Path) -> Checkpoint:
    """A checkpoint from which training can go on, all of it verified. Raises CheckpointError."""
    saved = read(path)
    for name in (RAW, OPTIMIZER):
        if not held(saved.manifest, name):
            raise CheckpointError(
                f"{saved.path} holds no {name}: training cannot go on from it. Start from its "
                f"weights with --init-from."
            )
    for name in saved.meta.get("tensors", {}):
        saved.shapes(name)
    if lost := [key for key in ALWAYS if key not in saved.meta]:
        raise CheckpointError(f"{saved.path / META} lacks {', '.join(lost)}: use another.")
    if saved.meta["step"] != step_of(path):
        raise CheckpointError(
            f"{saved.path} holds step {saved.meta['step']}. Give the folder its name back."
        )
    return saved


def settle(folder: Path, step: int, say: Say = print) -> None:
    """Make the checkpoint of `step`, which was verified, the one that counts as written last.

    The best is then the latest whole one that was so by that step: what came later is not of this
    run any more, and a kill between a checkpoint and its mark is made good.
    """
    chosen = whole(folder / step_name(step))
    if chosen is None:
        return
    if chosen.name != step_name(step):  # the kill came between two renames
        chosen = chosen.rename(folder / step_name(step))
    if completed(folder)[-1] != chosen:
        amend(chosen, serial=next_serial(folder))
    mark(folder, "last", chosen.name)
    before, past = marked(folder, "best"), [p for p in completed(folder) if step_of(p) <= step]
    best = [path for path in past if _flagged(path)] or [path for path in past if path == before]
    latest_first = sorted(best, key=step_of, reverse=True)
    sound = next((path for path in latest_first if path == chosen or intact(path)), None)
    if sound is not None:
        mark(folder, "best", step_name(step_of(sound)))
    elif (folder / "best.txt").exists():
        (folder / "best.txt").unlink()
        say(f"{folder / 'best.txt'} names no whole checkpoint up to step {step}: it is removed")


def _flagged(path: Path) -> bool:
    """Whether a checkpoint was the best when it was written."""
    try:
        return read_json(path / META).get("is_best") is True
    except CheckpointError:
        return False
