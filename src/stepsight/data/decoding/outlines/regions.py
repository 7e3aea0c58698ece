"""Regions of annotation files -> masks: COCO's run lengths, decoded here, and polygons.

A region is one of
- a run-length record `{"size": [height, width], "counts": ...}`: column by column, numbers of
  pixels outside, inside, outside, ...; as a list, or packed into a text (`maskApi.c`, rleToString);
- a polygon, a flat list x0, y0, x1, y1, ... in pixels, or a list of polygons, which are united.

Native decoders trust these numbers; here they are held against the size of the picture before
anything is allocated. Polygons are drawn by pycocotools, whose rule the data sets were made with.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from stepsight.data.decoding.disk import extra
from stepsight.data.decoding.images import MAX_PIXELS
from stepsight.errors import DataFormatError

LONGEST_NUMBER = 7  # characters of 5 bits: more than any run within MAX_PIXELS needs
LONGEST_OUTLINE = 1 << 20  # pixels along a polygon: what drawing it allocates grows with it


def read_region(region: object, height: int, width: int, where: object) -> Tensor:
    """The mask bool "1 h w" of a region.

    Raises `DataFormatError`, which begins with `where`, unless the region is well formed and of the
    size height x width; `UserError` for a polygon without pycocotools.
    """
    assert 0 < height and 0 < width and height * width <= MAX_PIXELS, (height, width)
    try:
        record = region if isinstance(region, dict) else _draw(region, height, width)
        mask = _fill(_runs(record, height, width), height, width)
    except ValueError as error:
        raise DataFormatError(f"{where}: {error}.") from error
    return torch.from_numpy(np.ascontiguousarray(mask))[None]


def is_empty(region: object, height: int, width: int) -> bool:
    """Whether a region has no pixel, without filling it in.

    A malformed region is not empty: reading it says what is wrong. Raises `UserError` for a polygon
    without pycocotools.
    """
    try:
        record = region if isinstance(region, dict) else _draw(region, height, width)
        counts = record.get("counts")
        if isinstance(counts, str) and len(counts) > 2 * LONGEST_NUMBER:
            return False  # more than one run; only the first may be without pixels
        return sum(_runs(record, height, width)[1::2]) == 0
    except ValueError:
        return False


def _runs(record: dict[str, Any], height: int, width: int) -> list[int]:
    """The run lengths of a record. Raises `ValueError` unless they fill height x width."""
    if record.get("size") != [height, width]:
        raise ValueError(f"a region of size {record.get('size')} on {height} x {width} pixels")
    counts, pixels = record.get("counts"), height * width
    runs = _unpack(counts, pixels) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(type(run) is int and run >= 0 for run in runs):
        raise ValueError("the counts of a region are neither a text nor whole numbers from 0 on")
    if sum(runs) != pixels:
        raise ValueError(f"the runs of a region cover {sum(runs)} of {pixels} pixels")
    return runs


def _unpack(text: str, pixels: int) -> list[int]:
    """The numbers packed into a text, 5 bits per character, from the fourth as a difference.

    Bit 5 of a character says that more follow, bit 4 of the last is the sign; the difference is to
    the number two before. Raises `ValueError` where no run of `pixels` can come of it.
    """
    runs: list[int] = []
    value = length = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or length == LONGEST_NUMBER:
            raise ValueError(f"the packed counts of a region are damaged at {character!r}")
        value, length = value | (code & 31) << 5 * length, length + 1
        if code & 32:
            continue
        if code & 16:
            value -= 1 << 5 * length
        run = value + (runs[-2] if len(runs) > 2 else 0)
        if not 0 <= run <= pixels:
            raise ValueError(f"a region holds a run of {run} pixels")
        runs.append(run)
        value = length = 0
    if length:
        raise ValueError("the packed counts of a region are cut off")
    return runs


def _fill(runs: list[int], height: int, width: int) -> np.ndarray:
    """bool "h w" from runs that are known to cover it."""
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(width, height).T


def _draw(region: object, height: int, width: int) -> dict[str, Any]:
    """The polygons of a region, united, as a run-length record."""
    polygons = region if isinstance(region, list) and region else [region]
    if not isinstance(polygons[0], list):
        polygons = [region]
    for polygon in polygons:
        _check_polygon(polygon, height, width)
    coco = extra("pycocotools.mask", "Polygons")
    record = coco.merge(coco.frPyObjects(polygons, height, width))
    return {"size": [height, width], "counts": record["counts"].decode("ascii")}


def _check_polygon(polygon: object, height: int, width: int) -> None:
    """Raise `ValueError` unless a polygon can be drawn in bounded memory."""
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        raise ValueError("a polygon is not a list of x, y for at least three corners")
    reach = 4 * max(height, width)  # objects may reach out of the picture, but not without end
    if not all(type(number) in (int, float) and abs(number) <= reach for number in polygon):
        raise ValueError(f"a polygon has a coordinate that is not a number within {reach} pixels")
    corners = np.array(polygon, np.float64).reshape(-1, 2)
    steps = np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1)
    if steps.sum() + len(steps) > LONGEST_OUTLINE:
        raise ValueError(f"the outline of a polygon is longer than {LONGEST_OUTLINE} pixels")
