"""Objects that people outlined with LabelMe, or that COCO's instances JSON lists, as masks and as
label maps.

LabelMe (wkentaro/labelme) writes a JSON per picture: `imageHeight`, `imageWidth` and `shapes` with
`label`, `shape_type` and `points`; the tool's own export draws them in order over `_background_`
and leaves `__ignore__` out. COCO's JSON holds `images`, `categories` and `annotations` of a whole
set; there larger objects are drawn first, so that what lies in front of them stays, and a crowd
(`iscrowd`) is no class. An object is `FILE#ID`: the place of a shape in its list, from 0, or the
`id` of an annotation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stepsight.data.decoding.annotations import annotation_records, field, read_json
from stepsight.data.decoding.disk import part_of, reading
from stepsight.data.decoding.images import MAX_PIXELS
from stepsight.data.decoding.outlines.regions import read_region
from stepsight.errors import DataFormatError, suggest
from stepsight.types import IGNORE

BACKGROUND = ("_background_", "background", "__background__")  # names of what no object covers
UNKNOWN = "__ignore__"
CORNERS = 64  # of the polygon that a circle becomes
KEPT = 4  # files whose objects are kept: a set may be one large file


class Drawn(NamedTuple):
    """An object: the name of its class, or "" where it has none, and a region."""

    id: str
    name: str
    region: Any  # as `decoding.outlines.regions` takes it
    where: str


class Scene(NamedTuple):
    """The objects of a picture, those in front last."""

    picture: str
    ids: frozenset[str]  # that a list may call it by
    size: tuple[int, int]  # height, width
    objects: list[Drawn]


class Annotations(NamedTuple):
    """What a file says."""

    names: tuple[str, ...]  # of its classes, background first
    scenes: list[Scene]


def read_annotations(path: Path) -> Annotations:
    """The objects of a LabelMe or COCO file. Raises `DataFormatError` for another, or damage."""
    with reading(path):
        about = path.stat()
    return _kept(path, about.st_mtime_ns, about.st_size)


@lru_cache(KEPT)
def _kept(path: Path, *_: int) -> Annotations:
    record = read_json(path)
    if isinstance(record, dict) and "shapes" in record:
        return _labelme(record, path)
    if isinstance(record, dict) and {"images", "annotations", "categories"} <= record.keys():
        return _coco(record, path)
    raise DataFormatError(f"{path}: neither LabelMe's JSON nor COCO's instances.")


def read_object(path: Path) -> Tensor:
    """The mask bool "1 h w" of an object: `FILE#ID`, or `FILE` that holds one alone. Raises
    `DataFormatError` if there is none."""
    file, part = part_of(path)
    scenes = read_annotations(file).scenes
    every = [(scene, one) for scene in scenes for one in scene.objects]
    found = [pair for pair in every if pair[1].id == part] if part else every
    if not found or not part and len(found) > 1:
        ids = [one.id for _, one in every]
        some = ", ".join(ids[:8]) + (", ..." if len(ids) > 8 else "")
        raise DataFormatError(
            f"{file}: no object '{part}'; write {file.name}#ID, ID one of {some}."
        )
    scene, drawn = found[0]
    return read_region(drawn.region, *scene.size, drawn.where)


def scene_of(path: Path) -> Scene:
    """The objects of a picture: `FILE#NAME`, `FILE#ID`, or `FILE` that is of one picture alone."""
    file, part = part_of(path)
    scenes = read_annotations(file).scenes
    found = [scene for scene in scenes if part in scene.ids or not part and len(scenes) == 1]
    if len(found) != 1:
        names = [scene.picture for scene in scenes]
        hint = suggest(part, names) if len(names) < 9 else f" It has {names[0]} and others."
        many = f"{len(scenes)} pictures; write {file.name}#PICTURE in a list."
        raise DataFormatError(f"{file}: no picture '{part}'.{hint}" if part else f"{file}: {many}")
    return found[0]


def draw_labels(path: Path, classes: Mapping[str, int]) -> Tensor:
    """The label map int64 "h w" of a picture: its objects over the background, or over `IGNORE`
    where that is no class. classes: the number of each name; one of them may be in `BACKGROUND`.

    Raises `DataFormatError` for a name that is no class.
    """
    scene = scene_of(path)
    under = next((classes[name] for name in BACKGROUND if name in classes), IGNORE)
    labels = torch.full(scene.size, under)
    for drawn in scene.objects:
        if drawn.name and drawn.name not in classes:
            known = suggest(drawn.name, classes)
            raise DataFormatError(f"{drawn.where}: '{drawn.name}' is no class.{known}")
        mask = read_region(drawn.region, *scene.size, drawn.where)[0]
        labels[mask] = classes[drawn.name] if drawn.name else IGNORE
    return labels


def _labelme(record: dict[str, Any], path: Path) -> Annotations:
    size = _size(record, "imageHeight", "imageWidth", path)
    objects = []
    for number, shape in enumerate(field(record, "shapes", list, path)):
        where = f"{path}, shape {number}"
        name = field(shape, "label", str, where)
        region = _outline(shape, where)
        objects.append(Drawn(str(number), "" if name == UNKNOWN else name, region, where))
    picture = Path(field(record, "imagePath", str, path).replace("\\", "/")).name
    scene = Scene(picture, frozenset({picture, Path(picture).stem}), size, objects)
    return Annotations(_with_background({one.name for one in objects} - {""}), [scene])


def _outline(shape: Any, where: str) -> list[list[float]]:
    """The polygon of a LabelMe shape. Raises `DataFormatError` for one without an area."""
    kind = shape.get("shape_type") or "polygon"
    points = field(shape, "points", list, where)
    if not all(
        isinstance(p, list) and len(p) == 2 and all(type(x) in (int, float) for x in p)
        for p in points
    ):
        raise DataFormatError(f"{where}: its points are not pairs of numbers.")
    if kind == "rectangle" and len(points) == 2:
        (left, top), (right, bottom) = points
        points = [[left, top], [right, top], [right, bottom], [left, bottom]]
    elif kind == "circle" and len(points) == 2:  # its centre, and a point of its rim
        (x, y), rim = points[0], math.dist(*points)
        turns = [2 * math.pi * corner / CORNERS for corner in range(CORNERS)]
        points = [[x + rim * math.cos(turn), y + rim * math.sin(turn)] for turn in turns]
    elif kind != "polygon" or len(points) < 3:
        what = f"{str(kind)[:20]!r} of {len(points)} points"
        raise DataFormatError(f"{where}: a {what} has no area; draw a polygon, or remove it.")
    return [[float(number) for point in points for number in point]]


def _coco(record: dict[str, Any], path: Path) -> Annotations:
    categories: dict[int, str] = {}
    for number, one in enumerate(field(record, "categories", list, path)):
        where = f"{path}, category {number}"
        categories[field(one, "id", int, where)] = field(one, "name", str, where)
    objects: dict[int, list[tuple[float, Drawn]]] = {}
    for one, image, where in annotation_records(record, path):
        kind = field(one, "category_id", int, where)
        if kind not in categories:
            raise DataFormatError(f"{where}: category {kind} is not in the list.")
        name = "" if one.get("iscrowd") else categories[kind]
        drawn = Drawn(str(field(one, "id", int, where)), name, one.get("segmentation"), where)
        area: Any = one.get("area")
        size = area if type(area) in (int, float) and math.isfinite(area) else 0.0
        objects.setdefault(image["id"], []).append((-size, drawn))
    scenes = []
    for image in field(record, "images", list, path):
        name, number = image["file_name"], image["id"]
        called = {name, Path(name).name, Path(name).stem, str(number)}
        inside = sorted(objects.get(number, []), key=lambda pair: pair[0])
        height_width = _size(image, "height", "width", path)
        scenes.append(Scene(name, frozenset(called), height_width, [one for _, one in inside]))
    names = [categories[number] for number in sorted(categories)]
    return Annotations(_with_background(names), scenes)


def _with_background(names: Any) -> tuple[str, ...]:
    """Names of classes, in their order or sorted if they have none, background first."""
    ordered = sorted(names) if isinstance(names, set) else list(dict.fromkeys(names))
    under = [name for name in ordered if name in BACKGROUND] or [BACKGROUND[0]]
    return (under[0], *(name for name in ordered if name != under[0]))


def _size(record: Any, height: str, width: str, path: Path) -> tuple[int, int]:
    size = field(record, height, int, path), field(record, width, int, path)
    if min(size) < 1 or math.prod(size) > MAX_PIXELS:
        raise DataFormatError(f"{path}: a picture of {size[0]} x {size[1]} pixels.")
    return size
