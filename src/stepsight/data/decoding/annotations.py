"""JSON annotation files, read without trust in what they hold.

The file is parsed whole; `field` then takes a value out of it only if it has the type the reader
counts on, so that a damaged file ends in an error that names it and the place in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from stepsight.data.decoding.disk import reading
from stepsight.errors import DataFormatError

Value = TypeVar("Value")
NAMES = {dict: "an object", list: "a list", str: "a text", int: "a whole number"}


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises `DataFormatError` if it is damaged, `UserError` if absent."""
    return parse_json(read_text(path), path)


def read_text(path: Path) -> str:
    """A text file in UTF-8. Raises `DataFormatError` if it is not, `UserError` if absent."""
    try:
        with reading(path):
            text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataFormatError(f"{path}: not a text file ({error}).") from error
    if "\0" in text:
        raise DataFormatError(f"{path}: not a text file, it holds NUL.")
    return text


def parse_json(text: str, where: object) -> Any:
    """The value a JSON text stands for. Raises `DataFormatError` that begins with `where`."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # too deep a nesting is damage as well
        raise DataFormatError(f"{where}: not JSON ({error}).") from error


def field(record: object, name: str, kind: type[Value], where: object) -> Value:
    """`record[name]` if it is a `kind`. Raises `DataFormatError` that begins with `where`."""
    value = record.get(name) if isinstance(record, dict) else None
    whole = is_text(value) if kind is str else isinstance(value, kind)
    if not whole or isinstance(value, bool):
        raise DataFormatError(f"{where}: '{name}' is missing or not {NAMES[kind]}.")
    return value  # type: ignore[return-value]


def is_text(value: object) -> bool:
    """Whether a value is a text that a file could be called: no NUL, no half of a character, which
    JSON can write."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def stem(name: str, where: object) -> str:
    """The path that names a file, without its suffix. Raises `DataFormatError` for that of none."""
    path = PurePosixPath(name)
    if path.name in ("", ".."):
        raise DataFormatError(f"{where}: '{name}' names no file.")
    return path.with_suffix("").as_posix()


def image_records(annotations: object, path: Path) -> dict[int, dict[str, Any]]:
    """COCO's list `images` by id, each with an int `height`, `width` and a str `file_name`."""
    records = {}
    for number, record in enumerate(field(annotations, "images", list, path)):
        where = f"{path}, image {number}"
        field(record, "file_name", str, where)
        if min(field(record, "height", int, where), field(record, "width", int, where)) < 1:
            raise DataFormatError(f"{where}: height and width must be at least 1.")
        records[field(record, "id", int, where)] = record
    return records


def annotation_records(
    annotations: object, path: Path
) -> Iterator[tuple[dict[str, Any], dict[str, Any], str]]:
    """COCO's list `annotations`: each record, that of its image, and where it is, for errors."""
    images = image_records(annotations, path)
    for number, record in enumerate(field(annotations, "annotations", list, path)):
        where = f"{path}, annotation {number}"
        image = field(record, "image_id", int, where)
        if image not in images:
            raise DataFormatError(f"{where}: image {image} is not in the list.")
        yield record, images[image], where
