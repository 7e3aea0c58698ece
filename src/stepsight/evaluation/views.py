"""What a protocol does to an image before anything is predicted: its crop and its working size.

Protocols that agree on both share one prediction; for any other the image is predicted anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from stepsight.data import augment
from stepsight.metrics.masks.regions import Crop, window
from stepsight.metrics.protocol import Protocol
from stepsight.types import Sample


class View(NamedTuple):
    """How an image is brought before a model."""

    crop: Crop  # see `metrics.regions.window`
    working: int | None  # longest side at work, pixels; 0: native; None: as the model was trained

    @property
    def name(self) -> str:
        """For a folder of predictions made this way."""
        return self.crop if self.working is None else f"{self.crop}-{self.working or 'native'}"


def view_of(protocol: Protocol) -> View:
    """The view a protocol asks for."""
    return View(protocol.crop, protocol.working)


def by_view(protocols: Iterable[Protocol]) -> dict[View, list[Protocol]]:
    """Protocols that can be scored on one prediction, together."""
    found: dict[View, list[Protocol]] = {}
    for protocol in protocols:
        found.setdefault(view_of(protocol), []).append(protocol)
    return found


def cropped(sample: Sample, crop: Crop) -> Sample:
    """The part of the image, and of its truth, that a protocol looks at."""
    if crop == "none":
        return sample
    height, width = sample.image.shape[-2:]
    return augment.crop(sample, *window(crop, height, width))
