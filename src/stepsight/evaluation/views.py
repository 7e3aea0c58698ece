"""What a protocol does to an image before anything is predicted: its crop and its working size.

Protocols that agree on both share a prediction; for any other the image is predicted anew.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

from stepsight.data import augment
from stepsight.diffusion.config import DiffusionSettings
from stepsight.metrics.masks.regions import Crop, window
from stepsight.metrics.protocol import Protocol
from stepsight.pipeline.dense import DensePipeline
from stepsight.pipeline.working import Size
from stepsight.scaling.sampling.paired import Setting
from stepsight.types import Sample


class ProtocolView(NamedTuple):
    """How an image is brought before a model."""

    crop: Crop  # see `metrics.regions.window`
    working: int | None  # longest side at work, pixels; 0: native; None: as the model was trained

    @property
    def name(self) -> str:
        """For a folder of predictions made this way."""
        return self.crop if self.working is None else f"{self.crop}-{self.working or 'native'}"


def view_of(protocol: Protocol) -> ProtocolView:
    """The view a protocol asks for."""
    return ProtocolView(protocol.crop, protocol.working)


def cropped(sample: Sample, crop: Crop) -> Sample:
    """The part of the image, and of its truth, that a protocol looks at."""
    return sample if crop == "none" else augment.crop(sample, *window(crop, *size_of(sample)))


def size_of(sample: Sample) -> Size:
    """Height and width of its image."""
    return int(sample.image.shape[-2]), int(sample.image.shape[-1])


def working_at(
    pipeline: DensePipeline, task: str, grid: Size, size: int | None, usual: int | None
) -> DensePipeline:
    """The pipeline at another working size: `size` is that of the longer side, or else `usual`; 0
    is the grid's, None what the task was trained at. Sides are rounded to multiples of the stride,
    but for profiles that say themselves how sides follow from the longer one.
    """
    longest = usual if size is None else size
    square = pipeline.profile.fit == "square"  # and no protocol of others moves it
    if longest is None or (square and size is None):
        return pipeline
    if pipeline.profile.fit != "area":
        return pipeline.at(longest)
    scale = longest / max(grid) if longest else 1.0
    other = copy.copy(pipeline)
    other.sizes = pipeline.sizes | {task: (round(grid[0] * scale), round(grid[1] * scale))}
    return other


def fits(working: Size, grid: Size, asked: int | None) -> bool:
    """Whether a grid is worked at as a protocol asks: its longer side at so many pixels, 0 for its
    own; the other side may be rounded either way."""
    if asked is None:
        return True
    longest = asked or max(grid)
    wanted = [side * longest / max(grid) for side in grid]
    return all(abs(side - want) < 1 for side, want in zip(working, wanted))


def setting_text(setting: Setting, used: DiffusionSettings) -> str:
    """`8 x 4, T 0.5, mirror`: calls, members, the scale of the noise they start from, and what
    further calls see."""
    views = f", {used.views}" if used.views != "none" and setting[0] > 1 else ""
    return f"{setting[0]} x {setting[1]}, T {used.temperature:g}{views}"
