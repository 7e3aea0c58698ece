"""Between an image's own grid and the size that a model works at."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor

from stepsight.data.quantities.grids import nearest
from stepsight.errors import UserError
from stepsight.pipeline.config import STEPSIGHT, Profile, Resampling
from stepsight.tasks.base import Task, resize
from stepsight.types import Batch, Prediction

Size = tuple[int, int]  # height, width


def grid_of(batch: Batch) -> Size:
    """The grid of its images."""
    height, width = batch.image.shape[-2:]
    return height, width


def working_size(profile: Profile, trained: Size, grid: Size, stride: int) -> Size:
    """The size `grid` is processed at, before padding (`Profile`). With fit "area" an image shaped
    as in training gets that size, unless there is a resolution.

    Raises UserError for an image too narrow for its profile, or a square that its network cannot
    see.
    """
    if profile.fit == "area":
        scale = math.sqrt(trained[0] * trained[1] / (grid[0] * grid[1]))
        if profile.resolution:
            scale = profile.resolution / max(grid)
        height, width = (max(stride, round(side * scale / stride) * stride) for side in grid)
        return height, width
    longest = profile.resolution or max(grid)
    if profile.fit == "square":
        if longest % stride:
            raise UserError(
                f"the profile {profile.name} squashes pictures to squares, here of {longest} "
                f"pixels: the network needs a multiple of {stride}."
            )
        height, width = longest, longest
    elif profile.fit == "longest_scaled":
        scale = min(longest / grid[0], longest / grid[1])
        height, width = (int(side * scale) for side in grid)
    else:
        height, width = (side * longest // max(grid) for side in grid)
    if profile.fit == "multiples":
        height, width = (
            round(side / profile.multiple) * profile.multiple for side in (height, width)
        )
    if min(height, width) < 1:
        raise UserError(
            f"an image of {grid[0]}x{grid[1]} pixels is too narrow for the profile {profile.name}: "
            f"it would be seen at {height}x{width}. Use --profile stepsight."
        )
    return height, width


def inputs_at(
    batch: Batch, size: Size, further: Collection[str] = (), profile: Profile = STEPSIGHT
) -> Batch:
    """The inputs of a batch at another size, padded as the profile has it, `further` ones that
    packages add among them; the truth is left behind."""

    def fitted(x: Tensor, how: Resampling = profile.resize_input) -> Tensor:
        return padded(resize(x, size, how), profile.pad)

    inputs = Batch(fitted(batch.image), keys=batch.keys, sources=batch.sources)
    inputs.class_id = batch.class_id
    if batch.second is not None:
        inputs.second = fitted(batch.second)
    if batch.modal is not None:
        inputs.modal = fitted(batch.modal.float(), profile.resize_mask) > 0.5
    for name in further:
        if (value := batch.extra.get(name)) is not None:
            smooth = value.is_floating_point()
            whole = padded(nearest(value, size), profile.pad)
            inputs.extra[name] = fitted(value) if smooth else whole
    return inputs


def padded(x: Tensor, multiple: int) -> Tensor:
    """ "b c h w", numbers of any kind, with its last column and row repeated up to multiples."""
    high, wide = (-(-side // multiple) * multiple for side in x.shape[-2:])
    if (high, wide) == x.shape[-2:]:
        return x
    rows, columns = (
        torch.arange(new, device=x.device).clamp(max=old - 1)
        for new, old in zip((high, wide), x.shape[-2:])
    )
    return x[..., rows[:, None], columns]


def brought_back(
    prediction: Prediction, task: Task, grid: Size, scale: float, profile: Profile = STEPSIGHT
) -> Prediction:
    """A prediction at working size on another grid, its uncertainty times `scale`."""
    how, spread = profile.resize_output, prediction.uncertainty
    if spread is not None:
        spread = spread * scale
    if spread is not None and task.in_pixels:  # a length, which grows with the grid
        spread = spread * math.sqrt(grid[0] * grid[1] / math.prod(spread.shape[-2:]))
    return replace(
        prediction,
        values=task.rescale(prediction.values, grid, how),
        uncertainty=None if spread is None else resize(spread, grid, how),
    )
