"""Samples: a picture with the files of truth that are its own."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from stepsight.data.looking.documents import Documents
from stepsight.data.looking.found import FoundTree
from stepsight.data.looking.names import MAPS, Key, Name
from stepsight.data.looking.pairing import Pairs, paired
from stepsight.data.looking.roles import ByRole
from stepsight.data.looking.tree import FileKind

LONGEST = 120  # bytes of a key
OBJECTS = ("modal", "amodal")  # of which a picture may have several
Objects = dict[str, dict[Key, dict[str, str]]]  # by picture and key: files by role
NEEDS = {"modal": "amodal", "second": "flow"} | {f"{name}_valid": name for name in MAPS}


@dataclass
class Line:
    """A sample: paths below the root by the names that a list gives them."""

    picture: Name
    split: str
    files: dict[str, str] = field(default_factory=dict)
    key: str = ""

    def kept(self, quantities: Iterable[str]) -> dict[str, str]:
        """The files of those quantities, and what belongs to them."""
        known = {*quantities}
        return {role: path for role, path in self.files.items() if NEEDS.get(role, role) in known}

    def as_json(self, quantities: Iterable[str], split: bool) -> dict[str, str]:
        line = {"key": self.key, "image": self.picture.path} | self.kept(quantities)
        return line | ({"split": self.split} if split else {})


def lines_of(by_role: ByRole, documents: Documents, found: FoundTree) -> list[Line]:
    """The samples of a tree, one a picture, or one an object where a picture has several."""
    pictures = [name for kind in by_role.get("image", []) for name in kind.names]
    splits = documents.splits
    lines = {name.path: Line(name, splits.get(name.path, name.split)) for name in pictures}
    objects: Objects = defaultdict(lambda: defaultdict(dict))
    for role, kinds in by_role.items():
        if role == "image":
            continue
        several: dict[str, str] = {}  # pictures, and the files that contend for them
        for kind in kinds:
            pairs = _pairs(role, kind, pictures, lines, documents, found)
            names = {name.path: name for name in kind.names}
            for picture, paths in pairs.items():
                if role in OBJECTS:
                    for path in paths:
                        objects[picture][names[path].key].setdefault(role, path)
                elif len(paths) > 1 or role in lines[picture].files or picture in several:
                    taken = lines[picture].files.pop(role, several.get(picture, ""))
                    several[picture] = ", ".join(filter(None, [taken, *paths]))
                else:
                    lines[picture].files[role] = paths[0]
        if several:
            picture, clash = next(iter(several.items()))
            found.problems.append(
                f"{len(several)} pictures have several {role} files each, none of which is taken, "
                f"such as {picture} ({clash})."
            )
    for picture, part in documents.outlines.items():
        lines[picture].files.setdefault("labels", part)
    samples = _separate(lines, objects)
    _name(samples)
    return samples


def _separate(lines: dict[str, Line], objects: Objects) -> list[Line]:
    """A sample for each object; of pictures that are only the next frame of others, none."""
    second = {line.files["second"] for line in lines.values() if "second" in line.files}
    samples = [
        line
        for path, line in lines.items()
        if path not in objects and (line.files or path not in second)
    ]
    for path, held in objects.items():
        line = lines[path]
        samples += [Line(line.picture, line.split, line.files | own) for own in held.values()]
    return sorted(samples, key=lambda line: (line.picture.path, *line.files.values()))


def _pairs(
    role: str,
    kind: FileKind,
    pictures: Sequence[Name],
    lines: dict[str, Line],
    documents: Documents,
    found: FoundTree,
) -> Pairs:
    """The files of a kind by picture: as a list says, else by names."""
    pairs: Pairs = {}
    for name in kind.names:
        if (picture := documents.pairs.get(name.path)) in lines:
            pairs.setdefault(picture, []).append(name.path)
    listed = {path for paths in pairs.values() for path in paths}
    rest = [name for name in kind.names if name.path not in listed]
    if role == "flow":
        return pairs | _frames(pictures, rest, lines)
    others, how = paired(pictures, rest) if rest else ({}, "")
    _tell(role, kind, pairs | others, how, pictures, found)
    return pairs | others


def _tell(
    role: str, kind: FileKind, pairs: Pairs, how: str, pictures: Sequence[Name], found: FoundTree
) -> None:
    """Note how files were paired, and those that were not."""
    paired = {path for paths in pairs.values() for path in paths}
    lost = [name for name in kind.names if name.path not in paired]
    if how and how != "equal names":
        found.notes.append(f"{role}: {kind.suffix} files go with pictures by {how}.")
    if lost:
        several = [one.path for one in pictures if one.key == lost[0].key][:2]
        why = f", which may be that of {' or '.join(several)}" if len(several) > 1 else ""
        found.problems.append(
            f"{len(lost)} of {len(kind.names)} {role} files go with no one picture, such as "
            f"{lost[0].path}{why}."
        )


def _frames(pictures: Sequence[Name], flows: Sequence[Name], lines: dict[str, Line]) -> Pairs:
    """Flow files with the first of their two pictures; the second is written into its line. It is
    named by the flow and a number (`7_img1`, `7_img2`), or it is the next frame."""
    by_key = {name.key: name.path for name in pictures}
    after = {key: by_key[nxt] for key in by_key if (nxt := _next(key)) in by_key}
    pairs: Pairs = {}
    for flow in flows:
        base = flow.key[:-1] if flow.key[-1:] in (("01",), ("12",)) else flow.key
        numbered = [(*base, number) for number in ("0", "1", "2")]
        two = [by_key[key] for key in numbered if key in by_key]
        if len(two) == 2:
            pairs[two[0]] = [flow.path]
            lines[two[0]].files.setdefault("second", two[1])
    taken = {path for paths in pairs.values() for path in paths}
    rest = [flow for flow in flows if flow.path not in taken]
    found, _ = paired(pictures, rest)
    keys = {name.path: name.key for name in pictures}
    for picture, paths in found.items():
        pairs[picture] = paths
        if "second" not in lines[picture].files and keys[picture] in after:
            lines[picture].files["second"] = after[keys[picture]]
    return pairs


def _next(key: Key) -> Key:
    """The key of the next frame: its last number, one more."""
    for place in range(len(key) - 1, -1, -1):
        if key[place].isdecimal():
            number = str(int(key[place]) + 1).zfill(len(key[place]))
            return (*key[:place], number, *key[place + 1 :])
    return ()


def _name(samples: Sequence[Line]) -> None:
    """A key for each: the picture's path without suffix, with what tells samples apart."""
    stems = Counter(_stem(line.picture.path) for line in samples)
    used = Counter[str]()
    for line in samples:
        stem = _stem(line.picture.path)
        key = stem if stems[stem] == 1 else f"{line.picture.path}#{used[stem]}"
        used[stem] += 1
        line.key = key if len(key.encode()) <= LONGEST else f"...{key[-LONGEST // 2 :]}"


def _stem(path: str) -> str:
    return PurePosixPath(path).with_suffix("").as_posix()
