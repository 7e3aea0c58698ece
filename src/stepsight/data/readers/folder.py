"""A user's own pictures, with whatever truth is there.

By folders: `<root>/images/*` and, with the same names, any of `second` (the next frame), `depth`,
`flow`, `normals` (formats: `data.truth`), `labels` (8-bit grey or palette, 255 unlabelled), `modal`
and `amodal` (8-bit grey masks, inside above 127), and masks `depth_valid`, `flow_valid`,
`normals_valid` that mark where a value counts. Or all of this below `<root>/train`, `val`, `test`.

By a list: lines of JSON, each an object with `image` and any of the names above, paths below the
root, and optionally `key` and `split`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stepsight.data.decoding.annotations import field, parse_json, read_text
from stepsight.data.decoding.images import read_image, read_labels, read_mask
from stepsight.data.decoding.labels import read_classes
from stepsight.data.decoding.truth import SUFFIXES, read_depth, read_flow, read_normals
from stepsight.data.files import FileSource, check_any, check_shapes, root_of
from stepsight.data.readers.config import FolderSettings
from stepsight.errors import DataFormatError, UserError, suggest
from stepsight.types import IGNORE, Sample

PICTURES = (".jpg", ".jpeg", ".png", ".ppm", ".webp")
MASKS = ("depth_valid", "flow_valid", "normals_valid", "modal", "amodal")
KINDS = {  # what a sample may have: suffixes of the files
    "image": PICTURES,
    "second": PICTURES,
    "labels": (".png",),
    **dict.fromkeys(MASKS, (".png",)),
    **SUFFIXES,
}
NEEDS = {  # quantity: the files it takes
    "depth": {"depth"},
    "flow": {"flow", "second"},
    "labels": {"labels"},
    "amodal": {"modal", "amodal"},
    "normals": {"normals"},
}
SPLITS = ("train", "val", "test")
LONGEST_KEY = 128  # bytes


class Files(NamedTuple):
    """The files of one sample, by kind."""

    key: str
    paths: dict[str, Path]


class Folder(FileSource[Files]):
    """Pictures with any of depth, flow, normals, labels and amodal masks.

    It has the quantities that all samples of the split have files for. Splits: all; by folders,
    those of train, val and test that are there; by a list, those it names.
    """

    offers = frozenset(NEEDS)

    def __init__(
        self, settings: FolderSettings, split: str, quantities: frozenset[str] | None = None
    ) -> None:
        self._settings = settings
        root = root_of(settings.root)
        self._splits = [name for name in SPLITS if (root / name / "images").is_dir()]
        if (root / "images").is_dir() or not self._splits:
            self._splits = [""]
        self.marker = "*" if settings.list else f"{self._splits[0]}/images/*".lstrip("/")
        super().__init__(settings, split, quantities)

    def find(self, split: str) -> list[Files]:
        if self._settings.list:
            parts = self._listed(self.root / self._settings.list)
        else:
            parts = {name or "all": self._files(self.root / name) for name in self._splits}
        found = self.pick(split, parts)
        kinds = set[str].intersection(*(set(entry.paths) for entry in found))
        self.quantities = frozenset(name for name in self.quantities if NEEDS[name] <= kinds)
        paths = [path for entry in found for path in self._used(entry)]
        self.refuse_missing([path for path in paths if not path.is_file()])
        if "labels" in self.quantities:
            every = [entry for part in parts.values() for entry in part]
            count = self._settings.classes or 1 + largest_label(every)
            self.classes = tuple(map(str, range(count)))
        return found

    def read(self, entry: Files) -> Sample:
        paths = entry.paths
        sample = Sample(image=read_image(paths["image"]), key=entry.key, source=self.name)
        if "second" in paths:
            sample.second = read_image(paths["second"])
            self._check(entry, "second", sample.image, sample.second)
        for quantity in sorted(self.quantities):
            for name, values in self._read(quantity, entry).items():
                self._check(entry, name, sample.image, values)
                setattr(sample, name, values)
        return sample

    def _listed(self, path: Path) -> dict[str, list[Files]]:
        if not path.is_file():
            where = f"--data.{self.name}.list names a file below the root"
            raise UserError(f"{self.name}: {path} not found; {where}.")
        return read_list(path, self.root)

    def _read(self, quantity: str, entry: Files) -> dict[str, Tensor]:
        """The fields of a sample that make up a quantity."""
        paths = entry.paths
        match quantity:
            case "labels":
                return {"labels": read_classes(paths["labels"], len(self.classes))}
            case "amodal":
                return read_masks(paths["modal"], paths["amodal"])
            case "depth":
                values, valid = read_depth(paths["depth"], self._settings.depth_scale)
            case "flow":
                values, valid = read_flow(paths["flow"])
            case _:
                values, valid = read_normals(paths["normals"])
        if mask := paths.get(f"{quantity}_valid"):
            marked = read_mask(mask)
            check_shapes([paths[quantity], mask], values, marked)
            valid = valid & marked
            check_any(valid, mask, "no pixel that has a value")
        return {quantity: values, f"{quantity}_valid": valid}

    def _check(self, entry: Files, name: str, image: Tensor, values: Tensor) -> None:
        path = entry.paths.get(name, entry.paths["image"])
        check_shapes([entry.paths["image"], path], image, values)

    def _used(self, entry: Files) -> Iterable[Path]:
        kinds = {"image", "second"}.union(*(NEEDS[name] for name in self.quantities))
        kinds |= {f"{name}_valid" for name in self.quantities}
        return (path for kind, path in entry.paths.items() if kind in kinds)

    def _files(self, root: Path) -> list[Files]:
        """The samples below a folder with `images`, each kind found by the picture's name."""
        pictures = by_name(root / "images", PICTURES)
        folders = {kind: root / kind for kind in KINDS if (root / kind).is_dir()}
        others = {kind: by_name(folder, KINDS[kind]) for kind, folder in folders.items()}
        found = []
        for name, picture in pictures.items():
            paths = {
                kind: index.get(name, folders[kind] / f"{name}{KINDS[kind][0]}")
                for kind, index in others.items()
            }
            key = (root.relative_to(self.root) / name).as_posix()
            found.append(Files(checked_key(key, picture), {"image": picture} | paths))
        return found


def by_name(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """The files in and below a folder by path without suffix, sorted, hidden ones left out.

    Raises `DataFormatError` where two files have the same name.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise DataFormatError(f"{path}: {found[name]} has the same name; keep one of them.")
        found[name] = path
    return found


def read_list(path: Path, root: Path) -> dict[str, list[Files]]:
    """The samples of a list file by split, or all as `all`. Raises `DataFormatError` by line."""
    parts: dict[str, list[Files]] = {}
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


def _listed_files(record: Any, root: Path, where: str) -> Files:
    image = field(record, "image", str, where)
    known = {*KINDS, "key", "split"}
    if unknown := sorted(set(record) - known):
        raise DataFormatError(f"{where}: unknown '{unknown[0]}'.{suggest(unknown[0], known)}")
    paths = {kind: root / field(record, kind, str, where) for kind in KINDS if kind in record}
    key = record.get("key", Path(image).with_suffix("").as_posix())
    return Files(checked_key(key, where), paths)


def checked_key(key: object, where: object) -> str:
    if not isinstance(key, str) or not 0 < len(key.encode()) <= LONGEST_KEY:
        raise DataFormatError(f"{where}: the key {key!r} is not a text of 1 to 128 bytes.")
    return key


def read_masks(visible: Path, whole: Path) -> dict[str, Tensor]:
    modal, amodal = read_mask(visible), read_mask(whole)
    check_shapes([visible, whole], modal, amodal)
    check_any(modal, visible, "no visible pixel")
    return {"modal": modal, "amodal": amodal | modal, "amodal_valid": torch.ones_like(modal)}


def largest_label(entries: Iterable[Files]) -> int:
    """The largest label of the set, read from all its label files."""
    largest = 0
    for entry in entries:
        if path := entry.paths.get("labels"):
            labels = read_labels(path)
            largest = max(largest, *labels[labels != IGNORE].unique().tolist(), 0)
    return largest
