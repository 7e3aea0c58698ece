"""One sample as one row of a structured numpy array, exactly and compactly.

Pictures and labels take a byte a pixel, masks a bit, depth, flow and normals their float32. The row
type holds only what the samples of a source have, and describes itself in the array's header.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from stepsight.errors import UserError
from stepsight.types import Sample

PLANES = {  # what a row stores, wide types first so that they stay aligned
    "depth": np.float32,
    "flow": np.float32,
    "normals": np.float32,
    "class_id": np.int32,
    "instances": np.int32,
    "image": np.uint8,
    "second": np.uint8,
    "whole": np.uint8,
    "labels": np.uint8,
}
MASKS = (
    "depth_valid",
    "flow_valid",
    "occluded",
    "modal",
    "amodal",
    "amodal_valid",
    "normals_valid",
)
KEY_BYTES = 128


def row_dtype(sample: Sample) -> np.dtype:
    """The row type of samples that have the fields and the size of `sample`."""
    pixels = sample.image.shape[-2] * sample.image.shape[-1]
    present = _present(sample)
    planes = [(n, t, np.shape(present[n])) for n, t in PLANES.items() if n in present]
    masks = [(name, np.uint8, (-(-pixels // 8),)) for name in MASKS if name in present]
    key = ("key", f"S{KEY_BYTES}")
    return np.dtype([*planes, *([("masks", masks)] if masks else []), key], align=True)


def pack(sample: Sample, row: np.void) -> None:
    """Write a sample into a row. Raises `UserError` if it does not fit the row type."""
    names = set(_names(row)) - {"key", "masks"} | set(_mask_names(row))
    present, key = _present(sample), sample.key.encode()
    if differing := names ^ present.keys():
        raise UserError(f"{sample.key}: unlike the first sample in {', '.join(sorted(differing))}.")
    if len(key) > KEY_BYTES:
        raise UserError(f"{sample.key}: keys may have {KEY_BYTES} bytes.")
    row["key"] = key
    for name, value in present.items():
        if name in MASKS:
            row["masks"][name] = np.packbits(value.numpy())
        else:
            row[name] = _narrow(value, PLANES[name], f"{sample.key}: {name}")


def unpack(rows: np.ndarray, source: str) -> list[Sample]:
    """The samples in some rows, equal bit for bit to those packed. They share the rows' memory."""
    fields = {name: list(value) for name, value in _unpacked(rows).items()}
    keys = [key.decode() for key in rows["key"]]
    return [
        Sample(key=key, source=source, **{name: values[i] for name, values in fields.items()})
        for i, key in enumerate(keys)
    ]


def _unpacked(rows: np.ndarray) -> dict[str, Any]:
    """Each stored field of all rows, with a leading axis for the rows."""
    values: dict[str, Any] = {
        name: torch.from_numpy(rows[name]) for name in PLANES if name in _names(rows)
    }
    for name in {"labels", "instances"} & values.keys():
        values[name] = values[name].long()
    if "class_id" in values:
        values["class_id"] = values["class_id"].tolist()
    if names := _mask_names(rows):
        height, width = rows.dtype["image"].shape[-2:]
        packed = rows["masks"].view((np.uint8, rows.dtype["masks"].itemsize))
        bits = np.unpackbits(
            packed.reshape(len(rows), len(names), -1), axis=-1, count=height * width
        )
        masks = torch.from_numpy(bits.view(bool).reshape(len(rows), len(names), 1, height, width))
        values |= dict(zip(names, masks.unbind(1)))
    return values


def _present(sample: Sample) -> dict[str, Any]:
    values = {name: getattr(sample, name) for name in (*PLANES, *MASKS)}
    return {name: value for name, value in values.items() if value is not None}


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
