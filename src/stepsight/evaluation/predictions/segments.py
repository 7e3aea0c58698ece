"""Panoptic predictions as COCO's servers take them: PNG files of segments, and a JSON that says of
which category each segment is (cocodataset/panopticapi, format of results)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stepsight.data.decoding.annotations import field
from stepsight.data.table import Source
from stepsight.errors import DataFormatError, UserError
from stepsight.evaluation.predictions.reading import Segments


def listed_segments(folder: Path, source: Source) -> dict[str, Segments]:
    """By the name of a PNG file, class and instance number of its segments; {} without a JSON.

    Raises UserError for a source whose categories have no ids, and DataFormatError for a JSON that
    is not of results.
    """
    found: dict[str, Segments] = {}
    for path, listed in _results(folder):
        places: dict[int, int] | None = getattr(source, "places", None)
        if places is None:
            raise UserError(
                f"{path} lists segments by the ids of COCO's categories, which {source.name} does "
                "not have. Write ids as 1000 class + instance instead, and remove the JSON."
            )
        for number, record in enumerate(listed):
            where = f"{path}, annotation {number}"
            name = field(record, "file_name", str, where)
            found[name] = _segments(record, where, places, getattr(source, "things", set()))
    return found


def _results(folder: Path) -> Iterator[tuple[Path, list[Any]]]:
    """The JSON files below a folder that hold results, and what they list."""
    for path in sorted(folder.rglob("*.json")):
        try:
            read = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, OSError):
            continue
        listed = read.get("annotations") if isinstance(read, dict) else None
        if isinstance(listed, list) and any("segments_info" in one for one in listed):
            yield path, listed


def _segments(record: Any, where: str, places: dict[int, int], things: set[int]) -> Segments:
    segments, seen = dict[int, tuple[int, int]](), Counter[int]()
    for segment in field(record, "segments_info", list, where):
        number = field(segment, "id", int, where)
        category = field(segment, "category_id", int, where)
        if category not in places:
            raise DataFormatError(f"{where}: category {category} is none of the data's.")
        seen[category] += category in things
        segments[number] = places[category], seen[category]
    return segments
