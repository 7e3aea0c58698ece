"""ADE20K SceneParse150 (Zhou et al. 2017): scenes with 150 classes.

`<root>/images/{training,validation}/ADE_*.jpg` and `<root>/annotations/` with the same names, 8-bit
grey PNG: class + 1, and 0 for everything else, which the benchmark leaves out of its scores.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from stepsight.data.decoding.images import read_image, read_labels
from stepsight.data.decoding.labels import check_labels, lookup_table
from stepsight.data.files import FileSource, check_shapes
from stepsight.errors import DataFormatError
from stepsight.types import Sample

FOLDERS = {"train": "training", "val": "validation"}
OTHER = 0  # what the 150 classes leave over

# The first name of each row of the benchmark's `objectInfo150.txt` (CSAILVision/sceneparsing).
NAMES = """
wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person,
earth, door, table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea,
mirror, rug, field, armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion,
base, box, column, signboard, chest of drawers, counter, sand, sink, skyscraper, fireplace,
refrigerator, grandstand, path, stairs, runway, case, pool table, pillow, screen door, stairway,
river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill, bench, countertop, stove,
palm, kitchen island, computer, swivel chair, boat, bar, arcade machine, hovel, bus, towel, light,
truck, tower, chandelier, awning, streetlight, booth, television, airplane, dirt track, apparel,
pole, land, bannister, escalator, ottoman, bottle, buffet, poster, stage, van, ship, fountain,
conveyer belt, canopy, washer, plaything, swimming pool, stool, barrel, basket, waterfall, tent,
bag, minibike, cradle, oven, ball, food, step, tank, trade name, microwave, pot, animal, bicycle,
lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan,
pier, crt screen, plate, monitor, bulletin board, shower, radiator, glass, clock, flag
"""
CLASSES = tuple(" ".join(NAMES.split()).split(", "))
TABLE = lookup_table({place + 1: place for place in range(len(CLASSES))})


class Ade20k(FileSource[str]):
    """Scenes in and out of doors. Splits: train, val, all. An entry is a path below `images`."""

    offers = frozenset({"labels"})
    published = {"train": 20210, "val": 2000}
    classes = CLASSES
    marker = "images/*/*.jpg"

    def find(self, split: str) -> list[str]:
        return self.pick(split, {name: self._names(folder) for name, folder in FOLDERS.items()})

    def needed(self, entry: str) -> Iterable[Path]:
        return [self._annotation(entry)] if "labels" in self.quantities else []

    def read(self, entry: str) -> Sample:
        picture, annotation = self.root / "images" / f"{entry}.jpg", self._annotation(entry)
        sample = Sample(image=read_image(picture, upright=False), key=entry, source=self.name)
        if "labels" in self.quantities:
            stored = read_labels(annotation)[0].long()
            check_shapes([picture, annotation], sample.image, stored)
            if stored.max() > len(CLASSES):
                reason = f"holds the value {stored.max()}, where {len(CLASSES)} is the largest"
                raise DataFormatError(f"{annotation}: {reason}.")
            sample.labels = TABLE[stored]
            check_labels(sample.labels, len(CLASSES), annotation)
        return sample

    def _annotation(self, entry: str) -> Path:
        return self.root / "annotations" / f"{entry}.png"

    def _names(self, folder: str) -> list[str]:
        base = self.root / "images"
        paths = (base / folder).glob("*.jpg")
        return sorted(path.relative_to(base).with_suffix("").as_posix() for path in paths)
