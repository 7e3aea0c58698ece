"""Crops and scored regions of the depth benchmarks.

A crop cuts image and truth before the model sees them; a region is the part of what is left that
counts. Both are rules of one data set's image size and move scores by tenths, so they are part of a
protocol's id.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from stepsight.errors import UserError

Crop = Literal["none", "kitti_benchmark"]
Mask = Literal["none", "garg", "eigen", "nyu"]

BENCHMARK = (352, 1216)  # height, width of the KITTI depth benchmark's images

# First and last row, first and last column as fractions of the size, cut down to whole pixels:
# Garg et al. 2016 as in monodepth2, `evaluate_depth.py`; Eigen et al. 2014 as in Marigold,
# `src/dataset/kitti_dataset.py`.
FRACTIONS = {
    "garg": (0.40810811, 0.99189189, 0.03594771, 0.96405229),
    "eigen": (0.3324324, 0.91351351, 0.0359477, 0.96405229),
}
NYU_SIZE = (480, 640)
NYU = (45, 471, 41, 601)  # Eigen's crop: rows 45:471, columns 41:601


def window(crop: Crop, height: int, width: int) -> tuple[int, int, int, int]:
    """Top, left, height and width of what `crop` keeps of an image.

    KITTI's benchmark crop keeps 352 x 1216 at the bottom, in the middle of the columns. Raises
    UserError for an image that is smaller.
    """
    if crop == "none":
        return 0, 0, height, width
    assert crop == "kitti_benchmark", crop
    rows, columns = BENCHMARK
    if height < rows or width < columns:
        raise UserError(
            f"KITTI's benchmark crop keeps {rows} x {columns} pixels, but the image has "
            f"{height} x {width}. Read KITTI at its own size, or choose a protocol without a crop."
        )
    return height - rows, (width - columns) // 2, rows, columns


def region(mask: Mask, height: int, width: int) -> Tensor:
    """The scored pixels, bool "h w". Raises UserError where NYU's rule meets another size."""
    top, bottom, left, right = _edges(mask, height, width)
    inside = torch.zeros(height, width, dtype=torch.bool)
    inside[top:bottom, left:right] = True
    return inside


def _edges(mask: Mask, height: int, width: int) -> tuple[int, int, int, int]:
    if mask == "none":
        return 0, height, 0, width
    if mask == "nyu":
        if (height, width) != NYU_SIZE:
            raise UserError(
                f"NYU's scored region is rows 45:471 and columns 41:601 of 480 x 640 pixels, but "
                f"the image has {height} x {width}. Read NYU at its own size, or choose another "
                "protocol."
            )
        return NYU
    top, bottom, left, right = FRACTIONS[mask]
    return int(top * height), int(bottom * height), int(left * width), int(right * width)
