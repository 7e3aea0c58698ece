"""Which pictures and films are meant, and what their answers are called.

What is named is a picture, a film, a folder (with all below it), a pattern, or a list: `.txt` with
a path a line, or `.jsonl` with objects as of a list of `data.folder` (`image`; `second`, `modal`
and `key` where they matter), whose paths start at the list's own folder, else at the current one.
An answer is called as its picture, without suffix, below the deepest folder that holds all that is
named: the tree out mirrors the tree in. Names are in the order in which people count (2 before 10),
those of a list in its own.
"""

from __future__ import annotations

import glob
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from stepsight.data.decoding.annotations import field, parse_json, read_text
from stepsight.data.fields import PICTURES
from stepsight.data.looking.names import TRUTHS, name_of
from stepsight.errors import UserError, printable
from stepsight.predicting.film.reading import SUFFIXES
from stepsight.predicting.item import Item
from stepsight.predicting.journal import JOURNAL, written

FILMS = tuple(suffix for suffix in SUFFIXES if suffix not in PICTURES)
LISTS = (".txt", ".jsonl")
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
SHOWN = 3  # collisions that are named


def gather(named: Sequence[str]) -> list[Item]:
    """What is meant by the paths named, each file once. Hidden files and what `predict` wrote are
    left out of folders and patterns. Raises UserError where one of them holds nothing to read, for
    addresses of the web, and where two pictures would have answers of one name.
    """
    if not named:
        raise UserError("name the pictures to predict from.")
    anchors, found = list[Path](), dict[Item, Item]()
    for text in named:
        anchor, items = _meant(text)
        anchors.append(anchor)
        for item in items:
            found.setdefault(replace(item, path=_absolute(item.path)), item)
    top = Path(os.path.commonpath(anchors))
    items = [replace(item, name=item.name or _name(item.path, top)) for item in found.values()]
    _refuse_collisions(items)
    return items


def with_other(items: Sequence[Item], kind: Literal["second", "mask"], given: str) -> list[Item]:
    """Items with what `--second` or `--mask` names: the file of the only one, or the files of a
    folder that are called as they are, with their folders or without. Raises UserError where there
    are several pictures for one file, or none has a file."""
    path = Path(given)
    if path.is_file():
        if len(items) > 1:
            raise UserError(
                f"--{kind} {given}: one file belongs to one picture, and there are {len(items)}. "
                "Name a folder whose files are called as the pictures are."
            )
        return [replace(items[0], **{kind: path})]
    if not path.is_dir():
        raise UserError(f"--{kind} {given}: no such picture, nor a folder of them.")
    there = {_name(file, path): file for file in _walk(path)}
    found = [_fitting(item, there) for item in items]
    if not any(found):
        raise UserError(
            f"--{kind} {given}: no file there is called as a picture, such as {items[0].name}."
        )
    # One that is missing is named when its picture's turn comes, as other damage is.
    missing = (path / f"{item.name}{item.path.suffix}" for item in items)
    pairs = zip(items, found, missing)
    return [replace(item, **{kind: file or gap}) for item, file, gap in pairs]


def consecutive(items: Sequence[Item]) -> list[Item]:
    """Each picture of a folder with the next one as its second frame, and says so; the last ones,
    which have none, are left out. Films, and pictures with a second frame, stay as they are."""
    ready = [item for item in items if item.film or item.second]
    folders = defaultdict[Path, list[Item]](list)
    for item in items:
        if not (item.film or item.second):
            folders[_absolute(item.path).parent].append(item)
    pairs = [pair for frames in folders.values() for pair in pairwise(frames)]
    if pairs:
        (first, second), *_ = pairs
        print(
            f"{len(pairs)} pairs of consecutive frames by their names, such as {first.path} and "
            f"{second.path.name}; the last of each folder has no next one"
        )
    return ready + [replace(first, second=second.path) for first, second in pairs]


def as_films(items: Sequence[Item]) -> list[Item]:
    """The pictures of each folder as a film, whose frames keep their names. Films stay."""
    folders, films = defaultdict[Path, list[Item]](list), list[Item]()
    for item in items:
        if item.film:
            films.append(item)
        else:
            folders[_absolute(item.path).parent].append(item)
    for folder, frames in folders.items():
        name = PurePosixPath(frames[0].name).parent
        named = str(name) if name.name else folder.name
        films.append(Item(frames[0].path.parent, named, frames=tuple(frames)))
    return films


def _meant(text: str) -> tuple[Path, list[Item]]:
    """The folder that something named hangs below, absolute, and what it holds."""
    if URL.match(text):
        raise UserError(f"{text}: an address. Files are read: download it first, then name it.")
    path = Path(text)
    if path.is_dir():
        found = [Item(file) for file in _walk(path)]
        _remark_truths(path, found)
        return _absolute(path), found or _nothing(text, "no picture or film lies below it")
    if path.is_file():
        if path.suffix.lower() in LISTS:
            items = list(_listed(path)) or _nothing(text, "an empty list")
            return Path(os.path.commonpath([_absolute(item.path).parent for item in items])), items
        if path.suffix.lower() not in (*PICTURES, *FILMS):
            return _nothing(text, f"neither a picture ({', '.join(PICTURES)}), a film, nor a list")
        return _absolute(path).parent, [Item(path)]
    if glob.has_magic(text):
        files = [Path(name) for name in glob.iglob(text, recursive=True)]
        folders = {folder for file in files for folder in file.parents}
        ours = {file for folder in folders for file in written(folder)}
        found = [
            Item(file)
            for file in sorted(files, key=_counted)
            if _readable(file) and file.is_file() and _absolute(file) not in ours
        ]
        fixed = re.split(r"[*?[]", text)[0]
        return _absolute(Path(fixed + "x")).parent, found or _nothing(text, "no picture fits it")
    return _nothing(text, f"no such picture, nor a folder of {', '.join(PICTURES)}")


def _remark_truths(top: Path, items: Sequence[Item]) -> None:
    """Say where some files of a folder are by their names what is known of its pictures."""
    roles = {item.path: name_of(item.path.relative_to(top).as_posix()).roles for item in items}
    truths = [path for path, role in roles.items() if role and role[0] in TRUTHS]
    if truths and any(role[:1] == ("image",) for role in roles.values()):
        print(
            f"warning: {len(truths)} of {len(items)} files in {top} are by their names no pictures "
            f"but what is known of them, such as {truths[0]}. They are answered as pictures: name "
            "the folder of the pictures alone if they are none.",
            file=sys.stderr,
        )


def _nothing(text: str, why: str) -> Any:
    raise UserError(f"{text}: {why}.")


def _absolute(path: Path) -> Path:
    """Without `..` and `.`; links keep their names."""
    return Path(os.path.abspath(path))


def _readable(path: Path) -> bool:
    return path.suffix.lower() in (*PICTURES, *FILMS) and not path.name.startswith(".")


def _walk(top: Path) -> Iterator[Path]:
    """Pictures and films below a folder, in order; hidden ones and our own are left out."""
    ours, been, files = set[Path](), set[str](), list[Path]()
    for folder, below, names in os.walk(top, followlinks=True):
        real = os.path.realpath(folder)
        below[:] = [] if real in been else [name for name in below if not name.startswith(".")]
        been.add(real)
        if JOURNAL in names:
            ours |= written(Path(folder))
        files += (path for name in names if _readable(path := Path(folder, name)))
    return iter(sorted((file for file in files if _absolute(file) not in ours), key=_counted))


def _counted(path: Path) -> list[list[str | int]]:
    """Sorts as people count: numbers within names by their value."""
    return [
        [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name.casefold())]
        for name in path.parts
    ]


def _listed(path: Path) -> Iterator[Item]:
    def located(name: str) -> Path:
        paths = [path.parent / name, Path(name)]
        return next((one for one in paths if one.exists()), paths[0])

    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not (line := line.strip()):
            continue
        if path.suffix.lower() == ".txt":
            yield Item(located(line))
            continue
        where = f"{path}, line {number}"
        record = parse_json(line, where)
        others = {"second": "second", "mask": "modal"}
        files = {to: located(field(record, of, str, where)) for to, of in others.items()
                 if of in record}  # fmt: skip
        key = field(record, "key", str, where) if "key" in record else ""
        if PurePosixPath(key).is_absolute() or ".." in PurePosixPath(key).parts:
            raise UserError(f"{where}: the key {printable(key)} leads out of the answers' folder.")
        image = located(field(record, "image", str, where))
        yield Item(image, key, files.get("second"), files.get("mask"))


def _name(path: Path, top: Path) -> str:
    return _absolute(path).relative_to(_absolute(top)).with_suffix("").as_posix()


def _fitting(item: Item, there: dict[str, Path]) -> Path | None:
    """The file called as the item, below as many of its folders as possible."""
    parts = PurePosixPath(item.name).parts
    names = ("/".join(parts[first:]) for first in range(len(parts)))
    return next((there[name] for name in names if name in there), None)


def _refuse_collisions(items: Iterable[Item]) -> None:
    """Also of a picture in a folder that is called as a film, whose frames go there."""
    owners = defaultdict[str, list[Path]](list)
    films = {item.name: item.path for item in items if item.film}
    for item in items:
        owners[f"{item.name}/" if item.film else item.name].append(item.path)
        for folder in PurePosixPath(item.name).parents:
            if film := films.get(str(folder)):
                owners[f"{folder}/"] += [film, item.path]
    shared = {name: list(dict.fromkeys(paths)) for name, paths in owners.items()}
    shared = {name: paths for name, paths in shared.items() if len(paths) > 1}
    if shared:
        named = "; ".join(" and ".join(map(str, paths)) for paths in [*shared.values()][:SHOWN])
        raise UserError(
            f"{len(shared)} answers would overwrite each other, those of {named}. Rename them, or "
            "predict them apart, each with its own --out."
        )
