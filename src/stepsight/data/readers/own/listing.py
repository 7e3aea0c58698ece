"""Which files of a user belong to one sample: by folders whose files have equal names, or by a list
of JSON lines. A sample has whatever truth has files for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from stepsight.data.decoding.annotations import field, is_text, parse_json, read_text, stem
from stepsight.data.fields import PICTURES, table
from stepsight.errors import DataFormatError, suggest

LONGEST_KEY = 128  # bytes
NAMED = 3  # files that a note names


class SampleFiles(NamedTuple):
    """The files of a sample, by kind."""

    key: str
    paths: dict[str, Path]

    def truths(self, required: Mapping[str, set[str]]) -> frozenset[str]:
        """The quantities, of those in `required` (`files_required`), that it has the files of."""
        return frozenset(name for name, kinds in required.items() if kinds <= self.paths.keys())


def by_folders(root: Path, below: str) -> tuple[list[SampleFiles], list[str]]:
    """The samples of the folder `below` that holds `images`, each kind by the picture's name; and
    sentences on files that belong to no picture.

    Raises `DataFormatError` for a folder of truth none of whose files has the name of a picture.
    """
    folder = root / below
    pictures = by_name(folder / "images", PICTURES)
    entries = {name: {"image": picture} for name, picture in pictures.items()}
    notes = []
    for kind, suffixes in file_suffixes().items():
        if kind == "image" or not (folder / kind).is_dir():
            continue
        files = by_name(folder / kind, suffixes)
        for name in files.keys() & pictures.keys():
            entries[name][kind] = files[name]
        if lost := sorted(files.keys() - pictures.keys()):
            notes.append(_unpaired(folder / kind, files, lost, pictures))
        if other := _unread(folder / kind, suffixes):
            what = f"{folder / kind}: {other} of another format than {', '.join(suffixes)}"
            if not files:
                raise DataFormatError(f"{what}; none is of these.")
            notes.append(f"{what}: not read")
    return [
        SampleFiles(checked_key((Path(below) / name).as_posix(), paths["image"]), paths)
        for name, paths in entries.items()
    ], notes


def _unread(folder: Path, suffixes: tuple[str, ...]) -> str:
    """How many files are of no format that is read, and the first; "" for none."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name[0] != ".")
    others = sorted(path.name for path in files if path.suffix.lower() not in suffixes)
    return f"{len(others)} files, such as {others[0]}," if others else ""


def _unpaired(
    folder: Path, files: Mapping[str, Path], lost: list[str], pictures: Iterable[str]
) -> str:
    """What to say of files without a picture. Raises `DataFormatError` where that is all."""
    names = ", ".join(files[name].name for name in lost[:NAMED])
    if len(lost) < len(files):
        return f"{folder}: {len(lost)} of {len(files)} files have no picture, such as {names}"
    raise DataFormatError(
        f"{folder}: none of its {len(files)} files ({names}) has the name of a picture "
        f"({', '.join(list(pictures)[:NAMED])}). Give them equal names, or let "
        f"`stepsight data look {folder.parent}` pair them."
    )


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
        if not line.strip():
            continue
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
