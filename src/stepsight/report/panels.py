"""The pictures that stand first in a report: one image of a set with its truth, what one call and
the best setting answer, where they err, and what the colours mean.

Whoever scores a set writes one panel a task to `panels/` of its folder: `<task>.json` as
`PicturePanel` has it, and a PNG per tile beside it in the picture's own pixels. Pages enlarge them.
Others of the same form are the best and the worst image of an evaluation (`extremes/`), and the
film strip of a sweep (`films/`), whose answers stand in rows. Nothing here loads torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

from stepsight.errors import DataFormatError
from stepsight.legends import ClassColour, Legend
from stepsight.tasks.config import scored_tasks

FOLDER = "panels"
Kind = Literal["panels", "extremes", "films"]  # folders
_SCALES = "scale", "spread_scale", "error_scale"
TileName = Literal[
    "image",
    "second",
    "prompt",
    "truth",
    "one call",
    "fewest calls",
    "most calls",
    "more calls",
    "best setting",
    "answer",
    "spread",
    "error",
]


@dataclass(frozen=True)
class PanelTile:
    """A picture of the panel.

    setting: what predicted it, "8 x 4, T 0" for 8 calls of 4 members from starts scaled by 0; ""
    for what is given.
    score: of this image, by the panel's metric; over_set: of the whole set at the same setting.
    Both None where they are not known.
    best: whether no setting scores better over the set, of those that were tried.
    row: of a strip, where answers of one row differ in their calls alone.
    """

    name: TileName
    alt: str  # what is to be seen, for those who cannot
    setting: str = ""
    score: float | None = None
    over_set: float | None = None
    best: bool = False
    row: str = ""
    file: str = ""  # beside the JSON, once it is written


@dataclass(frozen=True)
class PicturePanel:
    """One image of a set and what is predicted for it.

    key: of the image; chosen: why this one, as in "median image by abs_rel of 512".
    metric: of the scores, by its name in `measures`.
    scale: the colours that truth and predictions share; spread_scale and error_scale: of the tiles
    of that name. None where there is no such tile, or nothing to explain (pictures as answers).
    """

    task: str
    data: str
    protocol: str
    key: str
    chosen: str
    metric: str
    tiles: tuple[PanelTile, ...]
    scale: Legend | None = None
    spread_scale: Legend | None = None
    error_scale: Legend | None = None

    def tile(self, name: TileName) -> PanelTile | None:
        """The tile of that name."""
        return next((tile for tile in self.tiles if tile.name == name), None)


def write_panel(
    folder: Path,
    panel: PicturePanel,
    pictures: Sequence[np.ndarray],
    kind: Kind = "panels",
    which: str = "",
) -> PicturePanel:
    """Write a panel to a folder: a picture uint8 "h w 3" for every tile. Returns it with its files.

    which: tells several panels of a task and kind apart.
    """
    place, stem = folder / kind, "-".join(filter(None, (panel.task, which)))
    place.mkdir(parents=True, exist_ok=True)
    for old in place.glob(f"{stem}-[0-9][0-9]-*.png"):
        old.unlink()
    tiles = list[PanelTile]()
    for number, (tile, picture) in enumerate(zip(panel.tiles, pictures, strict=True)):
        tiles.append(replace(tile, file=f"{stem}-{number:02d}-{tile.name.replace(' ', '-')}.png"))
        Image.fromarray(picture).save(place / tiles[-1].file)
    panel = replace(panel, tiles=tuple(tiles))
    text = json.dumps(_finite(asdict(panel)), indent=1, ensure_ascii=False) + "\n"
    (place / f"{stem}.json").write_text(text, "utf-8")
    return panel


def read_panels(folder: Path, kind: Kind = "panels") -> list[PicturePanel]:
    """The panels of a kind in an evaluation's or sweep's folder, tasks as the house lists them; []
    where there are none. Their tiles lie in `folder / kind`.

    Raises DataFormatError for one that is not as `write_panel` writes it, or lacks a picture.
    """
    found = [_read(path) for path in sorted((folder / kind).glob("*.json"))]
    house = list(scored_tasks())
    return sorted(found, key=lambda one: house.index(one.task) if one.task in house else len(house))


def _read(path: Path) -> PicturePanel:
    try:
        found = json.loads(path.read_text("utf-8"))
        tiles = tuple(PanelTile(**tile) for tile in found.pop("tiles"))
        scales: dict[str, Any] = {name: _legend(found[name]) for name in _SCALES}
        panel = PicturePanel(**found | scales, tiles=tiles)
        wrong = next((t for t in tiles if t.name not in get_args(TileName)), None)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataFormatError(f"{path}: no panel of pictures ({error}). Evaluate again.") from error
    if wrong is not None:
        raise DataFormatError(f"{path}: no tile is called '{wrong.name}'. Evaluate again.")
    for tile in tiles:
        if (
            not tile.file
            or Path(tile.file).name != tile.file
            or not (path.parent / tile.file).is_file()
        ):
            raise DataFormatError(f"{path}: its picture {tile.file} is not there. Evaluate again.")
    return panel


def _legend(found: dict[str, Any] | None) -> Legend | None:
    if found is None:
        return None
    classes = tuple(ClassColour(*each.values()) for each in found.pop("classes"))
    return Legend(**found | {"stops": tuple(found["stops"]), "classes": classes})


def _finite(value: Any) -> Any:
    """Without numbers that JSON does not have, and with names beside the parts of tuples."""
    match value:
        case float() if not math.isfinite(value):
            return None
        case ClassColour():
            return value._asdict()
        case dict():
            return {key: _finite(each) for key, each in value.items()}
        case list() | tuple():
            return [_finite(each) for each in value]
    return value
