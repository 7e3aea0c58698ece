"""What a protocol does to an image before anything is predicted: its crop and its working size.

Protocols that agree on both share a prediction; for any other the image is predicted anew.
"""

from __future__ import annotations

from typing import NamedTuple

from stepsight.data import augment
from stepsight.metrics.masks.regions import Crop, window
from stepsight.metrics.protocol import Protocol
from stepsight.pipeline.working import Size
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
