"""Settings of the data sources (standard library only, so that parsing needs nothing heavy).

`TABLE` is the table of the room: procedural worlds, the readers of data sets, shards, and the
sources of other packages, whose entry points in `stepsight.data` name a class like these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from stepsight.data.readers.config import READERS, FileSettings, SourceSettings
from stepsight.plugins import Registry


@dataclass(frozen=True)
class ScenesSettings(SourceSettings):
    """Procedural worlds. Dials left at None take the value of the named level."""

    name: ClassVar[str] = "scenes"
    implementation: ClassVar[str] = "stepsight.data.scenes.source:Scenes"
    level: str = "standard"  # easy | standard | hard | shifted
    size: tuple[int, int] = (64, 64)  # height, width
    count: int = 12288  # training scenes; indices repeat after that
    eval_count: int = 512  # fresh scenes for validation and evaluation
    seed: int = 0  # of the scenes, in both splits
    objects: float | None = None  # expected number, less those that find no free place
    occlusion: float | None = None  # probability that an occluder is put before the chosen object
    texture: float | None = None  # texture contrast, 0 (plain) to 1
    displacement: float | None = None  # multiplies camera and object motion
    thin: float | None = None  # share of thin structures among the objects
    camera_only: bool | None = None  # objects keep still
    cache: str | None = None  # folder that keeps the rendered training scenes for later runs


@dataclass(frozen=True)
class ShardsSettings(FileSettings):
    """Tar shards written by `stepsight data shard`, with their index."""

    name: ClassVar[str] = "shards"
    implementation: ClassVar[str] = "stepsight.data.sharded.reading:Shards"


TABLE = Registry[type[SourceSettings]](
    {row.name: row for row in (ScenesSettings, *READERS, ShardsSettings)}, "data", SourceSettings
)
