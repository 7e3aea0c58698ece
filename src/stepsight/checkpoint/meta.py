"""What `stepsight.json` holds: checked once, where a checkpoint is opened."""

from __future__ import annotations

import hashlib
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from stepsight.checkpoint.format import CheckpointError

Number = int | float


class Count(int):
    """A form: a whole number, from 0 up."""


class Positive(int):
    """A form: a whole number, from 1 up."""


class Amount(float):
    """A form: a finite number, from 0 up."""


class Share(float):
    """A form: a number above 0, at most 1."""


# What is there has this form; which of it has to be there `held` says, which the writer notes.
SCHEMA: dict[str, Any] = {
    "format": Count,
    "step": Count,
    "alone": bool,  # saved to travel: what a run folder holds beside its steps lies in it
    "serial": Count,  # of the saves of this run: the highest is what a run continues from
    "is_best": bool,
    "held": list[str],  # all the keys that were written
    "tensors": dict[str, str],  # by file: what `outline` makes of names and shapes
    "images_seen": Count,
    "training_flops": Amount,
    "inherited_flops": Amount,
    "best": Number | None,
    "losses": dict[str, Number | None],
    "loss_bins": dict[str, list[Number | None]],
    "parent": str,
    "skipped": Count,
    "skipped_in_row": Count,
    "norms": list[Amount],
    "rewinds": Count,
    "rate": Share,
    "scale": Amount,
    "scaled": Count,
    "pending": dict[str, dict[str, Any]],
    "ledger": list[dict[str, Any]],
    "ema_warmup": bool,
    "sizes": dict[str, tuple[Positive, Positive]],
    "tasks": list[str],
    "codec": str,
    "precision": str,
    "samples": dict[str, Count],
    "run": str,
    "revision": str,
    "sampling": dict[str, dict[str, Any]],
    "calibration": dict[str, dict[str, Any]],
    "metric": dict[str, dict[str, Any]],
}
INNER = {  # of what is chosen and fitted for a task
    "sampling": {"nfe": Positive, "members": Positive, "temperature": Amount, "views": str},
    "calibration": {"scale": Amount | None},
    "metric": {"scale": Amount, "shift": Number, "profile": str},
}
PENDING = {"loss": dict[str, list[Number]], "usage": dict[str, list[list[Count]]]}


def check_meta(meta: Mapping[str, Any], where: Path) -> None:
    """Raise CheckpointError naming a key that has another form than `SCHEMA` says, or is gone."""
    for key, value in meta.items():
        if key in SCHEMA and not fits(value, SCHEMA[key]):
            raise CheckpointError(
                f"{where}: {key!r} is {_short(value)}, it must be {_said(SCHEMA[key])}. "
                f"Copy the checkpoint again, or use another."
            )
    for name, kinds in INNER.items():
        for task, found in meta.get(name, {}).items():
            if wrong := [key for key, kind in kinds.items() if not fits(found.get(key), kind)]:
                raise CheckpointError(f"{where}: {name!r} of {task} has no sound {wrong[0]!r}.")
    for key, value in meta.get("pending", {}).items():
        if not fits(value, PENDING.get(key, Any)):
            raise CheckpointError(f"{where}: 'pending' has no sound {key!r}.")
    if lost := [key for key in meta.get("held", ()) if key not in meta]:
        raise CheckpointError(f"{where} lacks {', '.join(lost)}, which were written to it.")


def fits(value: Any, kind: Any) -> bool:
    """Whether a value from JSON has the form of a type such as `dict[str, tuple[int, int]]`."""
    parts = typing.get_args(kind)
    match typing.get_origin(kind):
        case types.UnionType | typing.Union:
            return any(fits(value, one) for one in parts)
        case None:
            return _is(value, kind)
        case origin if origin is dict:
            return isinstance(value, dict) and all(fits(one, parts[1]) for one in value.values())
        case origin if origin is tuple:
            sound = isinstance(value, list) and len(value) == len(parts)
            return sound and all(fits(one, part) for one, part in zip(value, parts))
        case _:
            return isinstance(value, list) and all(fits(one, parts[0]) for one in value)


def _is(value: Any, kind: Any) -> bool:
    number = type(value) in (int, float) and abs(value) <= sys.float_info.max
    if kind is Count or kind is Positive:
        return type(value) is int and value >= (kind is Positive)
    if kind is Amount:
        return number and value >= 0
    if kind is Share:
        return number and 0 < value <= 1
    return kind is Any or type(value) is kind


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _said(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)


def outline(sizes: Mapping[str, Sequence[int]]) -> str:
    """12 hex digits of the names and shapes of tensors: one that is gone changes them."""
    lines = sorted(f"{name} {tuple(size)}" for name, size in sizes.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def outlines(tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, str]:
    """The `outline` of every file."""
    return {
        name: outline({key: tuple(value.shape) for key, value in values.items()})
        for name, values in tensors.items()
    }


def check_outline(
    meta: Mapping[str, Any], name: str, sizes: Mapping[str, Sequence[int]], where: Path
) -> None:
    """Raise CheckpointError unless a file holds the tensors that were written to it."""
    wanted = meta.get("tensors", {}).get(name)
    if wanted not in (None, outline(sizes)):
        raise CheckpointError(
            f"{where / name} does not hold the tensors that were written to it: some are missing, "
            f"or have another shape. Copy the checkpoint again, or use another."
        )
