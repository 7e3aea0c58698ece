"""Maps of class labels: from what files hold to contiguous classes, checked.

Files hold classes themselves, other numbers, colours, or outlines of objects (`objects`). What they
stand for is said by `class_codes`: nothing (a value is its class, 255 is none), `1..` (0 is none,
classes from 1, as in ADE20K's files), `cityscapes` (its labelIds), or a legend: a JSON list whose
entries are the classes in order, each with a `name` and the `id` or the `color` ([r, g, b]) that
files hold; entries with `"ignore": true` are no class.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stepsight.data.decoding.annotations import field, read_json
from stepsight.data.decoding.disk import part_of
from stepsight.data.decoding.images import decode, plane, read_image, read_labels
from stepsight.data.decoding.outlines.objects import draw_labels, read_annotations
from stepsight.data.decoding.truth import ARRAYS, read_array
from stepsight.errors import DataFormatError, UserError
from stepsight.types import IGNORE

SUFFIXES = (".png", ".bmp", ".gif", *ARRAYS, ".json")
LABEL_BYTES = 16  # of a pixel, while it is made a class
UNKNOWN = -1  # class of values that stand for nothing
FROM_ONE, CITYSCAPES = "1..", "cityscapes"
CITYSCAPES_IDS = {  # name: id in the files; the order is that of the trainIds
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}


@dataclass(frozen=True)
class LabelCodes:
    """What the label files of a set stand for; made by `label_codes`."""

    names: tuple[str, ...]  # of the classes
    ids: Mapping[int, int] | None = None  # stored value: class, or IGNORE; None: named outlines
    colours: bool = False  # whether the stored values are colours, R 2^16 + G 2^8 + B
    told_by: str = ""  # what says so

    def read(self, path: Path) -> Tensor:
        """The labels int64 "h w" of a file, `IGNORE` where there is none.

        Raises `DataFormatError` if it is damaged, of another kind, without a label, or holds what
        stands for no class.
        """
        if part_of(path)[0].suffix.lower() == ".json":
            labels = draw_labels(path, {name: n for n, name in enumerate(self.names)})
            check_labels(labels, len(self.names), path)
            return labels
        stored = _packed(path) if self.colours else _stored(path)
        if self.ids is None:
            raise DataFormatError(f"{path}: a map of values, where others of the set are outlines.")
        most = 1 << (24 if self.colours else 16)  # from there on, and below 0, nothing is told
        table = np.full(most + 1, UNKNOWN, np.int16)
        table[[*self.ids]] = [*self.ids.values()]
        strange = stored.min() < 0 or stored.max() > most
        labels = table[
            np.where((stored < 0) | (stored > most), most, stored) if strange else stored
        ]
        if labels.min() == UNKNOWN:
            unknown = np.unique(stored[labels == UNKNOWN]).tolist()
            raise DataFormatError(f"{path}: holds {self._words(unknown)}.")
        found = torch.from_numpy(labels).long()
        check_labels(found, len(self.names), path)
        return found

    def _words(self, unknown: list[int]) -> str:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        if self.colours:
            colour = ", ".join(str(unknown[0] >> shift & 255) for shift in (16, 8, 0))
            return f"the colour {colour}{more}, which {self.told_by} does not name"
        return f"the label {unknown[0]}{more}, where there are {self.told_by}"


def label_codes(codes: str, root: Path, paths: Iterable[Path] = (), classes: int = 0) -> LabelCodes:
    """What label files stand for by `class_codes`; a legend lies where it says, or below `root`.

    paths: all label files of the set, which say how many classes there are where neither `codes`
    nor `classes` does; damaged ones are left aside until they are read. Raises `UserError` for
    codes that are none, and `DataFormatError` for a damaged legend.
    """
    if codes == CITYSCAPES:
        ids = dict.fromkeys(range(256), IGNORE)
        ids |= {value: place for place, value in enumerate(CITYSCAPES_IDS.values())}
        return LabelCodes(tuple(CITYSCAPES_IDS), ids, told_by="Cityscapes' ids")
    if codes not in ("", FROM_ONE):
        return _legend(codes, root)
    first, paths = (1 if codes else 0), list(paths)
    if outlined := [path for path in paths if part_of(path)[0].suffix.lower() == ".json"]:
        return LabelCodes(_names_in(outlined))
    count = classes or max(0, largest_label(paths) + 1 - first)
    known = {value + first: value for value in range(count)}
    ids = {0: IGNORE} | known if codes else known
    return LabelCodes(
        tuple(map(str, range(count))), {IGNORE: IGNORE} | ids, told_by=f"{count} classes"
    )


def _legend(codes: str, root: Path) -> LabelCodes:
    path = next((one for one in (Path(codes), root / codes) if one.is_file()), None)
    if path is None:
        known = f"'', {FROM_ONE}, {CITYSCAPES}, or a JSON file"
        raise UserError(
            f"class_codes={codes} is none of {known}; no such file is here or in {root}."
        )
    record = read_json(path)
    if not isinstance(record, list) or not record:
        raise DataFormatError(
            f"{path}: a legend is a list of objects with 'name' and 'id' or 'color'."
        )
    coloured = isinstance(record[0], dict) and "color" in record[0]
    names: list[str] = []
    ids: dict[int, int] = {} if coloured else {IGNORE: IGNORE}
    for number, entry in enumerate(record):
        where = f"{path}, entry {number}"
        value = _colour(entry, where) if coloured else field(entry, "id", int, where)
        if not coloured and not 0 <= value < 1 << 16:
            raise DataFormatError(f"{where}: the id {value} is none of 0 to 65535.")
        ignored = entry.get("ignore") is True
        ids[value] = IGNORE if ignored else len(names)
        if not ignored:
            names.append(field(entry, "name", str, where))
    told_by = str(path) if coloured else f"the ids of {path}"
    return LabelCodes(tuple(names), ids, coloured, told_by)


def _colour(entry: Any, where: str) -> int:
    colour = field(entry, "color", list, where)
    if len(colour) != 3 or not all(type(one) is int and 0 <= one < 256 for one in colour):
        raise DataFormatError(f"{where}: 'color' is not [r, g, b] of 0 to 255.")
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def _names_in(paths: Iterable[Path]) -> tuple[str, ...]:
    """The classes of outlines: in the order of a file that lists all of them, else sorted."""
    found: list[tuple[str, ...]] = []
    for file in dict.fromkeys(part_of(path)[0] for path in paths):
        with suppress(DataFormatError):
            found.append(read_annotations(file).names)
    names = {name for one in found for name in one[1:]}
    under = found[0][:1] if found else ()
    full = next((one for one in found if names <= set(one)), None)
    return full or (*under, *sorted(names))


def largest_label(paths: Iterable[Path]) -> int:
    """The largest label of the files, from 0. One that is damaged counts for nothing: it is
    refused, or left out, when its sample is read."""
    largest = 0
    for path in paths:
        with suppress(DataFormatError):
            values = _stored(path)
            labels = values[values != IGNORE]
            if labels.size and (most := int(labels.max())) < IGNORE:
                largest = max(largest, most)
    return largest


def stored_labels(path: Path) -> Tensor:
    """The values int64 "h w" of a label file: grey of 1, 8 or 16 bits, a palette's indices, colours
    that are all grey, or an array of whole numbers.

    Raises `DataFormatError` if it is damaged, coloured, or kept with losses.
    """
    return torch.from_numpy(_stored(path).astype(np.int64))


def _stored(path: Path) -> np.ndarray:
    if part_of(path)[0].suffix.lower() in ARRAYS:
        return _whole(read_array(path, "labels"), path)
    image, bits = decode(path, LABEL_BYTES)
    if image.format in ("JPEG", "MPO", "WEBP", "AVIF", "HEIF"):
        raise DataFormatError(f"{path}: {image.format} changes values; labels need PNG.")
    if image.mode in ("1", "L", "P") and bits <= 8 or image.mode.startswith("I;16"):
        return plane(image).numpy()
    colours = read_image(path)
    if (colours != colours[:1]).any():
        way_out = "name a legend of its colours (--data.folder.class-codes legend.json)"
        raise DataFormatError(f"{path}: a label map in colours; {way_out}.")
    return colours[0].numpy()


def _whole(values: np.ndarray, path: Path) -> np.ndarray:
    """An array of whole numbers, "h w"."""
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[-1]):
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    whole = values.dtype.kind in "biu" or (values.dtype.kind == "f" and (values % 1 == 0).all())
    if values.ndim != 2 or not whole or not values.size:
        reason = f"{values.dtype} of shape {values.shape}, where whole numbers (h, w) are expected"
        raise DataFormatError(f"{path}: {reason}.")
    return values if values.dtype.kind == "u" else values.astype(np.int64)


def _packed(path: Path) -> np.ndarray:
    """The colours of a picture as R 2^16 + G 2^8 + B, int32 "h w"."""
    red, green, blue = read_image(path, LABEL_BYTES).numpy()
    return red.astype(np.int32) << 16 | green.astype(np.int32) << 8 | blue


def lookup_table(classes: dict[int, int]) -> Tensor:
    """int64 "256" that takes a file's value to its class, and all other values to `IGNORE`."""
    table = torch.full((256,), IGNORE)
    table[list(classes)] = torch.tensor(list(classes.values()))
    return table


def read_classes(path: Path, classes: int) -> Tensor:
    """The labels int64 "h w" of a file whose values are classes, or `IGNORE`.

    Raises `DataFormatError` if the file is damaged, has a value from `classes` on, or no label.
    """
    labels = read_labels(path)[0].to(torch.int64)
    check_labels(labels, classes, path)
    return labels


def check_labels(labels: Tensor, classes: int, path: Path) -> None:
    """Raise `DataFormatError` unless some of "h w" are labelled, and all below `classes`."""
    counts = torch.bincount(labels.flatten(), minlength=IGNORE + 1)
    counts[IGNORE] = 0
    if not (present := counts.nonzero()).numel():
        raise DataFormatError(f"{path}: holds no labelled pixel.")
    if (most := int(present.max())) >= classes:
        reason = f"holds the label {most}, where there are {classes} classes"
        raise DataFormatError(f"{path}: {reason}.")
