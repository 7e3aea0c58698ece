"""Pictures to try: scenes of the procedural worlds that a run learned from, of those held out."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Self

from torch import Tensor

from stepsight.data.config import ScenesSettings
from stepsight.data.decoding.images import write_image
from stepsight.data.scenes.source import Scenes
from stepsight.pipeline.dense import DensePipeline

SIDE = 256  # pixels of a scene's longer side


@dataclass(frozen=True)
class DemoWorlds:
    """Scenes as files, for which `folder` is."""

    scenes: Scenes
    folder: Path

    @classmethod
    def of(cls, pipeline: DensePipeline, folder: Path) -> Self | None:
        """The worlds of the run, large enough to be looked at; None where it knows none."""
        settings = pipeline.config.data.get("scenes")
        if not isinstance(settings, ScenesSettings):
            return None
        height, width = settings.size
        times = max(1, SIDE // max(height, width))
        settings = replace(settings, size=(times * height, times * width))
        return cls(Scenes(settings, "eval", frozenset({"flow", "amodal"})), folder)

    def __len__(self) -> int:
        return len(self.scenes)

    def draw(self, number: int) -> list[str]:
        """Files of the first scene from `number` on that has an object: the picture, the next frame
        and the visible part of the object."""
        place = Path(tempfile.mkdtemp(dir=self.folder))
        samples = (self.scenes[index % len(self)] for index in count(number))
        sample = next(one for one in samples if one.modal is not None and one.modal.any())
        assert sample.second is not None and sample.modal is not None
        mask = (sample.modal * 255).byte().expand(3, -1, -1)
        named = {"scene": sample.image, "next": sample.second, "visible": mask}
        return [*_written(place, named)]


def _written(place: Path, named: dict[str, Tensor]) -> Iterator[str]:
    for name, picture in named.items():
        write_image(place / f"{name}.png", picture)
        yield str(place / f"{name}.png")
