"""A user's own pictures, with whatever truth is there.

By folders: `<root>/images/*` and, with the same names, any of `second` (the next frame), `depth`,
`flow`, `normals` (formats: `data.truth`), `labels` (8-bit grey or palette, 255 unlabelled), `modal`
and `amodal` (8-bit grey masks, inside above 127), and masks `depth_valid`, `flow_valid`,
`normals_valid` that mark where a value counts; further quantities of packages, if their rows in the
table of fields have suffixes. Or all of this below `<root>/train`, `val`, `test`.

By a list: lines of JSON, each an object with `image` and any of the names above, paths below the
root, and optionally `key` and `split`.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from stepsight.data.decoding.annotations import field, is_text, parse_json, read_text, stem
from stepsight.data.decoding.images import read_image, read_labels, read_mask
from stepsight.data.decoding.labels import read_classes
from stepsight.data.fields import PICTURES, Field, row_of, table, with_values
from stepsight.data.files import FileSource, check_any, check_shapes
from stepsight.data.readers.config import FolderSettings
from stepsight.data.readers.masks.amodal import read_amodal
from stepsight.errors import DataFormatError, UserError, suggest
from stepsight.types import IGNORE, Sample

SPLITS = ("train", "val", "test")
LONGEST_KEY = 128  # bytes


class SampleFiles(NamedTuple):
    """The files of a sample, by kind."""

    key: str
    paths: dict[str, Path]


class Folder(FileSource[SampleFiles]):
    """Pictures with any of depth, flow, normals, labels and amodal masks.

    It has the quantities that all samples of the split have files for. Splits: all; by folders,
    those of train, val and test that are there; by a list, those it names.
    """

    settings: FolderSettings
    offers = frozenset({"depth", "flow", "labels", "amodal", "normals"})

    def survey(self, root: Path, split: str) -> None:
        self._splits = [name for name in SPLITS if (root / name / "images").is_dir()]
        if (root / "images").is_dir() or not self._splits:
            self._splits = [""]
        by_folder = f"{self._splits[0]}/images/*".lstrip("/")
        self.marker = "*" if self.settings.list else by_folder
        self._required = files_required()

    def offered(self) -> frozenset[str]:
        return frozenset(self._required)

    def find(self, split: str) -> list[SampleFiles]:
        if self.settings.list:
            parts = self._listed(self.root / self.settings.list)
        else:
            parts = {name or "all": self._files(self.root / name) for name in self._splits}
        entries = self.pick(split, parts)
        kinds = set[str].intersection(*(set(entry.paths) for entry in entries))
        self.quantities = frozenset(q for q in self.quantities if self._required[q] <= kinds)
        self.refuse_missing(path for entry in entries for path in self._used(entry))
        if "labels" in self.quantities:
            labelled = [entry for part in parts.values() for entry in part]
            count = self.settings.classes or 1 + largest_label(labelled)
            self.classes = tuple(map(str, range(count)))
        return entries

    def read(self, entry: SampleFiles) -> Sample:
        paths = entry.paths
        sample = Sample(image=read_image(paths["image"]), key=entry.key, source=self.name)
        values: dict[str, Tensor] = {}
        if "second" in paths:
            values["second"] = read_image(paths["second"])
        for quantity in sorted(self.quantities):
            for name in sorted(self._required[quantity] - {"image", "second"}):
                values |= self._read(row_of(name), entry, sample.image)
        for name, value in values.items():
            path = paths.get(name, paths["image"])
            check_shapes([paths["image"], path], sample.image, value)
        return with_values(sample, values)

    def _listed(self, path: Path) -> dict[str, list[SampleFiles]]:
        if not path.is_file():
            where = f"--data.{self.name}.list names a file below the root"
            raise UserError(f"{self.name}: {path} not found; {where}.")
        return read_list(path, self.root)

    def _read(self, row: Field, entry: SampleFiles, image: Tensor) -> dict[str, Tensor]:
        """A field of a sample, with the mask where it counts."""
        path = entry.paths[row.name]
        match row.name, row.kind:
            case "labels", _:
                return {"labels": read_classes(path, len(self.classes))}
            case "amodal", _:
                return read_amodal([entry.paths["image"], entry.paths["modal"], path], image)
            case "modal", _:
                return {}  # read with the whole mask
            case _, "picture":
                return {row.name: read_image(path)}
            case _, "mask":
                return {row.name: read_mask(path)}
        assert row.read is not None, row.name
        if row.kind != "map":
            return {row.name: row.read(path, self.settings)}
        values, valid = row.read(path, self.settings)
        if mask := entry.paths.get(row.valid):
            marked = read_mask(mask)
            check_shapes([path, mask], values, marked)
            valid = valid & marked
            check_any(valid, mask, "no pixel that has a value")
        return {row.name: values, row.valid: valid} if row.valid else {row.name: values}

    def _used(self, entry: SampleFiles) -> Iterable[Path]:
        kinds = {"image", "second"}.union(*(self._required[name] for name in self.quantities))
        kinds |= {f"{name}_valid" for name in self.quantities}
        return (path for kind, path in entry.paths.items() if kind in kinds)

    def _files(self, root: Path) -> list[SampleFiles]:
        """The samples below a folder with `images`, each kind by the picture's name."""
        pictures = by_name(root / "images", PICTURES)
        suffixes = file_suffixes()
        folders = {kind: root / kind for kind in suffixes if (root / kind).is_dir()}
        others = {kind: by_name(folder, suffixes[kind]) for kind, folder in folders.items()}
        entries = []
        for name, picture in pictures.items():
            paths = {
                kind: index.get(name, folders[kind] / f"{name}{suffixes[kind][0]}")
                for kind, index in others.items()
            }
            key = (root.relative_to(self.root) / name).as_posix()
            entries.append(SampleFiles(checked_key(key, picture), {"image": picture} | paths))
        return entries


def file_suffixes() -> dict[str, tuple[str, ...]]:
    """What a sample may have files of, with their suffixes."""
    return {row.name: row.suffixes for row in table().values() if row.suffixes}


def files_required() -> dict[str, set[str]]:
    """The files that each quantity takes; masks of where it counts may be there besides."""
    readable = [row for row in table().values() if row.suffixes]
    masks = {row.valid for row in readable}
    fields = [row for row in readable if row.name not in masks]
    return {
        quantity.name: {row.name for row in fields if quantity.name in row.quantities}
        for quantity in fields
        if quantity.name in quantity.quantities and quantity.name != "image"
    }


def by_name(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """The files in and below a folder by path without suffix, sorted, hidden ones left out.

    Raises `DataFormatError` where two files have the same name.
    """
    paths: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in paths:
            raise DataFormatError(f"{path}: {paths[name]} has the same name; keep one of them.")
        paths[name] = path
    return paths


def read_list(path: Path, root: Path) -> dict[str, list[SampleFiles]]:
    """The samples of a list file by split, or all as `all`. Raises `DataFormatError` by line."""
    parts: dict[str, list[SampleFiles]] = {}
    keys: set[str] = set()
    for number, line in enumerate(read_text(path).splitlines(), 1):
        where = f"{path}, line {number}"
        record = parse_json(line, where)
        files = _listed_files(record, root, where)
        if files.key in keys:
            raise DataFormatError(f"{where}: the key '{files.key}' was there before.")
        keys.add(files.key)
        split = field(record, "split", str, where) if "split" in record else "all"
        parts.setdefault(split, []).append(files)
    if "all" in parts and len(parts) > 1:
        raise DataFormatError(f"{path}: some lines name a split, and some do not.")
    return parts


def _listed_files(record: Any, root: Path, where: str) -> SampleFiles:
    image = field(record, "image", str, where)
    kinds = file_suffixes()
    known = {*kinds, "key", "split"}
    if unknown := sorted(set(record) - known):
        raise DataFormatError(f"{where}: unknown '{unknown[0]}'.{suggest(unknown[0], known)}")
    paths = {kind: root / field(record, kind, str, where) for kind in kinds if kind in record}
    key = record["key"] if "key" in record else stem(image, where)
    return SampleFiles(checked_key(key, where), paths)


def checked_key(key: object, where: object) -> str:
    if not is_text(key) or not 0 < len(str(key).encode()) <= LONGEST_KEY:
        raise DataFormatError(f"{where}: the key {key!r} is not a text of 1 to 128 bytes.")
    return str(key)


def largest_label(entries: Iterable[SampleFiles]) -> int:
    """The largest label of the set, read from all its label files. One that is damaged counts for
    nothing: it is refused, or left out, when its sample is read."""
    largest = 0
    for entry in entries:
        if path := entry.paths.get("labels"):
            with suppress(DataFormatError):
                labels = read_labels(path)
                largest = max(largest, *labels[labels != IGNORE].unique().tolist(), 0)
    return largest
