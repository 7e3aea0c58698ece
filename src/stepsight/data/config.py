"""Settings of the data sources (standard library only, so that parsing needs nothing heavy).

One dataclass a source. `TABLE` is the table of the room: a new source is one settings class with
its row here and one file named by `implementation`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class SourceSettings:
    """What every source has."""

    name: ClassVar[str]
    implementation: ClassVar[str]  # "module:class", imported when chosen
    weight: float = 1.0  # share of the batches of each task this source can serve


@dataclass(frozen=True)
class FileSettings(SourceSettings):
    """What every source of files on disk has."""

    root: str = ""  # folder; relative to data.root when that is set
    split: str = "train"
    eval_split: str = "val"
    size: tuple[int, int] = (128, 128)  # working height, width


@dataclass(frozen=True)
class ScenesSettings(SourceSettings):
    """Procedural worlds. Dials left at None take the value of the named level."""

    name: ClassVar[str] = "scenes"
    implementation: ClassVar[str] = "stepsight.data.scenes.source:Scenes"
    level: str = "standard"  # easy | standard | hard | shifted
    size: tuple[int, int] = (64, 64)
    count: int = 12288  # training scenes; indices repeat after that
    eval_count: int = 512  # fresh scenes for validation and evaluation
    seed: int = 0
    objects: float | None = None  # expected number, less those that find no free place
    occlusion: float | None = None  # probability that an occluder is put before the chosen object
    texture: float | None = None  # texture contrast, 0 (plain) to 1
    displacement: float | None = None  # multiplies camera and object motion
    thin: float | None = None  # share of thin structures among the objects
    camera_only: bool | None = None  # objects keep still
    cache: str | None = None  # folder that keeps the rendered training scenes for later runs


@dataclass(frozen=True)
class HypersimSettings(FileSettings):
    """Hypersim in Marigold's PNG layout with its list file."""

    name: ClassVar[str] = "hypersim"
    implementation: ClassVar[str] = "stepsight.data.hypersim:Hypersim"


@dataclass(frozen=True)
class FlyingChairsSettings(FileSettings):
    """FlyingChairs: PPM pairs, .flo, and the split file."""

    name: ClassVar[str] = "flyingchairs"
    implementation: ClassVar[str] = "stepsight.data.flyingchairs:FlyingChairs"


@dataclass(frozen=True)
class Pix2GestaltSettings(FileSettings):
    """pix2gestalt's occlusion data: occluded image, visible mask, whole mask."""

    name: ClassVar[str] = "pix2gestalt"
    implementation: ClassVar[str] = "stepsight.data.pix2gestalt:Pix2Gestalt"


@dataclass(frozen=True)
class ImageFolderSettings(FileSettings):
    """Pictures sorted into one folder a class, as ImageNet is."""

    name: ClassVar[str] = "imagefolder"
    implementation: ClassVar[str] = "stepsight.data.imagefolder:ImageFolder"


TABLE: dict[str, type[SourceSettings]] = {
    row.name: row
    for row in (
        ScenesSettings,
        HypersimSettings,
        FlyingChairsSettings,
        Pix2GestaltSettings,
        ImageFolderSettings,
    )
}
