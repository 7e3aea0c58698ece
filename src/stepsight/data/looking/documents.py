"""What text and JSON files of a tree say: which files belong together, splits, outlines of objects,
legends of classes, and the scale of depth."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from stepsight.data.decoding.annotations import read_json, read_text
from stepsight.data.decoding.outlines.objects import read_annotations
from stepsight.data.looking.depth import Fact
from stepsight.data.looking.names import SPLITS, words
from stepsight.errors import DataFormatError, UserError

LISTS = (".txt", ".csv", ".lst")
LARGEST = 512 << 20  # bytes of a document
SCALES = ("depth_scale", "depth_factor", "png_depth_scale", "depth_unit_scale_factor")
LEAST, MOST = 50.0, 1e5  # stored units per metre


@dataclass
class Documents:
    """What the documents of a tree say, paths below the root."""

    pairs: dict[str, str] = field(default_factory=dict)  # a file: that before it in its line
    splits: dict[str, str] = field(default_factory=dict)  # a file: its split
    outlines: dict[str, str] = field(default_factory=dict)  # picture: its part of a JSON
    units: list[Fact] = field(default_factory=list)  # of depth
    legend: list[dict[str, Any]] = field(default_factory=list)  # names and colours of classes
    unknown: list[str] = field(default_factory=list)  # JSON files named like a picture
    problems: list[str] = field(default_factory=list)


def documents_of(root: Path, files: Sequence[str], pictures: Sequence[str]) -> Documents:
    """Read the lists and JSON files among `files`; whatever else they hold is left aside."""
    found = Documents(units=list(_layouts(files)))
    names, known = _names(pictures), {*files}
    for file in files:
        path = root / file
        suffix = path.suffix.lower()
        if suffix not in (*LISTS, ".json"):
            continue
        if path.stat().st_size > LARGEST:
            found.problems.append(f"{file}: more than {LARGEST >> 20} MB of text are not read.")
            continue
        try:
            if suffix == ".json":
                _json(path, file, names, found)
            else:
                _rows(path, file, known, names, found)
        except UserError as error:
            if suffix == ".json":
                found.problems.append(str(error))
    return found


def _layouts(files: Sequence[str]) -> Iterator[Fact]:
    """What layouts that are widely used say of the unit of depth in whole numbers: guesses."""
    names = {PurePosixPath(file).name for file in files}
    if {"rgb.txt", "depth.txt"} <= names:
        text = "rgb.txt and depth.txt are of TUM RGB-D's layout, whose depth is in 1/5000 m."
        yield Fact("1/5000", text, decides=False)
    if any({"confidence", "conf"} & {*words(file)} for file in files):
        text = "maps of confidence lie beside depth, as apps of phones write them with millimetres."
        yield Fact("mm", text, decides=False)


def _names(pictures: Sequence[str]) -> Mapping[str, list[str]]:
    """Pictures by what a document may call them: their path or the end of it, with or without
    suffix."""
    index: defaultdict[str, list[str]] = defaultdict(list)
    for picture in pictures:
        parts = PurePosixPath(picture).parts
        for start in range(len(parts)):
            end = "/".join(parts[start:])
            for name in {end, end.removesuffix(PurePosixPath(end).suffix)}:
                index[name].append(picture)
    return index


def _rows(
    path: Path, file: str, files: set[str], names: Mapping[str, list[str]], found: Documents
) -> None:
    lines = [line for line in read_text(path).splitlines() if line and not line.startswith("#")]
    rows = list(csv.reader(lines)) if path.suffix == ".csv" else [line.split() for line in lines]
    if legend := list(_legend(rows)):
        found.legend = legend
        return
    split = SPLITS.get(path.stem.lower(), "")
    beside = PurePosixPath(file).parent.as_posix()
    for row in rows:
        places = [(word.removeprefix("./"), f"{beside}/{word}".removeprefix("./")) for word in row]
        known = [next((p for p in place if p in files), "") for place in places]
        known = [one for one in known if one]
        for one in known[1:]:
            found.pairs[one] = known[0]
        if split:
            held = known[:1] or (names.get(row[0], []) if row else [])
            found.splits |= dict.fromkeys(held if len(held) == 1 else [], split)


def _legend(rows: Sequence[Sequence[str]]) -> Iterator[dict[str, Any]]:
    """Classes of a table `name,r,g,b`, as CamVid's `class_dict.csv`."""
    if not rows or [word.strip().lower() for word in rows[0]][:4] != ["name", "r", "g", "b"]:
        return
    for name, *colour in rows[1:]:
        if len(colour) >= 3 and all(one.strip().isdecimal() for one in colour[:3]):
            yield {"name": name.strip(), "color": [int(one) for one in colour[:3]]}


def _json(path: Path, file: str, names: Mapping[str, list[str]], found: Documents) -> None:
    record = read_json(path)
    if isinstance(record, list):
        if record and all(_is_class(one) for one in record):
            found.legend = record
        return
    if not isinstance(record, dict):
        return
    before = len(found.outlines), len(found.units)
    _record(record, path, file, names, found)
    same = names.get(PurePosixPath(file).with_suffix("").as_posix())
    if same and (len(found.outlines), len(found.units)) == before:
        found.unknown.append(file)


def _record(
    record: dict[str, Any],
    path: Path,
    file: str,
    names: Mapping[str, list[str]],
    found: Documents,
) -> None:
    if "shapes" in record or {"images", "annotations", "categories"} <= record.keys():
        if any(
            "segments_info" in one for one in record.get("annotations", ()) if isinstance(one, dict)
        ):
            raise DataFormatError(f"{path}: COCO's panoptic JSON; use the reader coco_panoptic.")
        _outlines(path, file, names, found)
        return
    for key in SCALES:
        value = record.get(key)
        if type(value) in (int, float) and value:
            per_metre = value if value > 1 else 1 / value
            if LEAST <= per_metre <= MOST:
                unit = f"1/{per_metre:.6g}"
                unit = {"1/1000": "mm", "1/100": "cm"}.get(unit, unit)
                found.units.append(Fact(unit, f"{file} says {key} {value:g}: {unit}."))


def _is_class(record: object) -> bool:
    return isinstance(record, dict) and "name" in record and bool({"id", "color"} & record.keys())


def _outlines(path: Path, file: str, names: Mapping[str, list[str]], found: Documents) -> None:
    """The pictures that a LabelMe or COCO file outlines objects of."""
    beside = PurePosixPath(file).parent
    scenes = read_annotations(path).scenes
    lost = 0
    for scene in scenes:
        own = [(beside / PurePosixPath(scene.picture).name).as_posix(), scene.picture]
        own += [PurePosixPath(file).with_suffix("").as_posix()] if len(scenes) == 1 else []
        held = next((names[name] for name in own if len(names.get(name, [])) == 1), None)
        if held is None:
            lost += 1
        elif scene.objects:
            found.outlines[held[0]] = file if len(scenes) == 1 else f"{file}#{scene.picture}"
    if lost:
        raise DataFormatError(f"{path}: {lost} of its {len(scenes)} pictures are not in the tree.")
