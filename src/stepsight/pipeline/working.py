"""Between an image's own grid and the size that a model works at."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace

from stepsight.data.quantities.grids import nearest
from stepsight.tasks.base import Task, resize
from stepsight.types import Batch, Prediction

Size = tuple[int, int]  # height, width


def grid_of(batch: Batch) -> Size:
    """The grid of its images."""
    return int(batch.image.shape[-2]), int(batch.image.shape[-1])


def working_size(trained: Size, grid: Size, stride: int) -> Size:
    """The size `grid` is processed at: the area of training, the image's own aspect ratio, both
    sides multiples of the stride. An image shaped as in training gets that size."""
    scale = math.sqrt(trained[0] * trained[1] / (grid[0] * grid[1]))
    height, width = (max(stride, round(side * scale / stride) * stride) for side in grid)
    return height, width


def inputs_at(batch: Batch, size: Size, further: Collection[str] = ()) -> Batch:
    """The inputs of a batch at another size, `further` ones that packages add among them; the truth
    is left behind."""
    inputs = Batch(resize(batch.image, size), keys=batch.keys, sources=batch.sources)
    inputs.class_id = batch.class_id
    if batch.second is not None:
        inputs.second = resize(batch.second, size)
    if batch.modal is not None:
        inputs.modal = resize(batch.modal.float(), size) > 0.5
    for name in further:
        if (value := batch.extra.get(name)) is not None:
            smooth = value.is_floating_point()
            inputs.extra[name] = resize(value, size) if smooth else nearest(value, size)
    return inputs


def brought_back(prediction: Prediction, task: Task, grid: Size, scale: float) -> Prediction:
    """A prediction at working size on another grid, its uncertainty times `scale`."""
    spread = prediction.uncertainty
    if spread is not None:
        spread = spread * scale
    if spread is not None and task.in_pixels:  # a length, which grows with the grid
        spread = spread * math.sqrt(grid[0] * grid[1] / math.prod(spread.shape[-2:]))
    return replace(
        prediction,
        values=task.rescale(prediction.values, grid),
        uncertainty=None if spread is None else resize(spread, grid),
    )
