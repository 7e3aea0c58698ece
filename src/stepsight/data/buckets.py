"""Resolution buckets: a stream of pictures of many shapes, cut into streams of equal shapes.

Every sample goes to the bucket whose aspect ratio is nearest, so that bringing it to the
working size of the bucket distorts it least.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stepsight.data.mixture import Stream
from stepsight.data.quantities.grids import Size
from stepsight.errors import UserError


def parse_size(text: str, where: str) -> Size:
    """Height and width of "96x128". Raises `UserError` naming `where`."""
    sides = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not sides:
        raise UserError(f"{where}: '{text}' is no size. Write height x width, such as 96x128.")
    return int(sides[1]), int(sides[2])


def cut(
    stream: Stream, native: Sequence[Size], buckets: Sequence[Size], least: float
) -> list[Stream]:
    """One stream per bucket that the stream has samples for, weighted by them.

    native: height and width of every sample of the source. least: the smallest weight a bucket may
    have; the samples of smaller ones join the bucket that is then nearest.
    """
    shapes, own = _log_aspects(native), stream.indices()
    kept = sorted(set(buckets))
    while True:
        nearest = np.abs(shapes[:, None] - _log_aspects(kept)).argmin(axis=1)
        counts = np.bincount(nearest[own], minlength=len(kept))
        smallest = int(counts.argmin())
        if len(kept) == 1 or stream.weight * counts[smallest] >= least * len(own):
            break
        del kept[smallest]
    return [
        replace(
            stream.only(nearest == number),
            weight=stream.weight * int(count) / len(own),
            size=size,
        )
        for number, (size, count) in enumerate(zip(kept, counts))
    ]


def _log_aspects(sizes: Sequence[Size]) -> np.ndarray:
    height, width = np.asarray(sizes, float).T
    return np.log(width / height)
