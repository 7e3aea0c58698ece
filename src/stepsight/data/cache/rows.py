"""A sample as a row of a structured numpy array, exactly and compactly.

Pictures and labels take a byte per pixel, masks a bit, maps their float32. The row type holds only
what the samples of a source have, and describes itself in the array's header. Where some samples
lack what others have, each row says which fields it lacks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from stepsight.data.fields import BUILT_IN, DTYPES, present, row_of
from stepsight.errors import UserError
from stepsight.types import Sample

KEY_BYTES = 128
ABOUT = {"key", "masks", "lacks"}  # parts of a row that are no field of their own


def row_dtype(sample: Sample, *others: Sample) -> np.dtype:
    """The row type of samples that have the fields and the size of `sample`; with `others`, of
    samples that have some of the fields of all of these.

    Raises `UserError` for a field of no fixed size.
    """
    pixels = sample.image.shape[-2] * sample.image.shape[-1]
    every = {row.name: (row, value) for one in (sample, *others) for row, value in present(one)}
    held = [*every.values()]
    if unsized := [row.name for row, _ in held if row.kind == "points"]:
        raise UserError(f"{sample.key}: {unsized[0]} has no fixed size. Set 'stream' to true.")
    lacking = [("lacks", [(name, np.bool_) for name in every])] if others else []
    planes = [(row, np.shape(value)) for row, value in held if row.kind != "mask"]
    planes.sort(key=lambda plane: (-np.dtype(plane[0].row_type).itemsize, plane[0].rank))  # aligned
    masks = [(row.name, np.uint8, (-(-pixels // 8),)) for row, _ in held if row.kind == "mask"]
    parts = [(row.name, row.row_type, shape) for row, shape in planes]
    key = ("key", f"S{KEY_BYTES}")
    return np.dtype([*parts, *([("masks", masks)] if masks else []), *lacking, key], align=True)


def pack(sample: Sample, into: np.void) -> None:
    """Write a sample into a row. Raises `UserError` if it does not fit the row type."""
    names = set(_names(into)) - ABOUT | set(_mask_names(into))
    held, key = present(sample), sample.key.encode()
    lost = names - {row.name for row, _ in held}
    optional = "lacks" in _names(into)
    if differing := {row.name for row, _ in held} - names | (set() if optional else lost):
        raise UserError(f"{sample.key}: unlike the first sample in {', '.join(sorted(differing))}.")
    for name in lost:
        into["lacks"][name] = True
    if len(key) > KEY_BYTES:
        raise UserError(f"{sample.key}: keys may have {KEY_BYTES} bytes.")
    into["key"] = key
    for row, value in held:
        if row.kind == "mask":
            into["masks"][row.name] = np.packbits(value.numpy())
        else:
            into[row.name] = _narrow(value, row.row_type, f"{sample.key}: {row.name}")


def unpack(rows: np.ndarray, source: str) -> list[Sample]:
    """The samples in some rows, equal bit for bit to those packed. They share the rows' memory."""
    columns = {name: list(value) for name, value in _unpacked(rows).items()}
    typed = {name: columns.pop(name) for name in columns.keys() & BUILT_IN.keys()}
    return [
        Sample(
            key=key.decode(),
            source=source,
            extra={name: values[i] for name, values in columns.items() if values[i] is not None},
            **{name: values[i] for name, values in typed.items()},
        )
        for i, key in enumerate(rows["key"])
    ]


def _unpacked(rows: np.ndarray) -> dict[str, Any]:
    """Each stored field of all rows, with a leading axis for the rows."""
    values: dict[str, Any] = {}
    for name in _names(rows):
        if name not in ABOUT:
            kind = row_of(name).kind
            values[name] = torch.from_numpy(rows[name]).to(DTYPES[kind])
            values[name] = values[name].tolist() if kind == "number" else values[name]
    if names := _mask_names(rows):
        height, width = rows.dtype["image"].shape[-2:]
        packed = rows["masks"].view((np.uint8, rows.dtype["masks"].itemsize))
        bits = np.unpackbits(
            packed.reshape(len(rows), len(names), -1), axis=-1, count=height * width
        )
        masks = torch.from_numpy(bits.view(bool).reshape(len(rows), len(names), 1, height, width))
        values |= dict(zip(names, masks.unbind(1)))
    if "lacks" in _names(rows):
        for name, lost in ((name, rows["lacks"][name]) for name in values):
            values[name] = [None if gone else value for value, gone in zip(values[name], lost)]
    return values


def _names(rows: np.ndarray | np.void) -> tuple[str, ...]:
    return rows.dtype.names or ()


def _mask_names(rows: np.ndarray | np.void) -> tuple[str, ...]:
    return rows.dtype["masks"].names or () if "masks" in _names(rows) else ()


def _narrow(value: Tensor | int, dtype: type, what: str) -> np.ndarray:
    """`value` as `dtype`. Raises `UserError` unless that keeps it exactly."""
    wide = np.asarray(value)
    narrow = wide.astype(dtype)
    if not np.array_equal(narrow, wide, equal_nan=wide.dtype.kind == "f"):
        raise UserError(f"{what} does not fit {np.dtype(dtype)}.")
    return narrow
