"""What names of files and folders say: the role of a file, its split, and the key that it shares
with the other files of its sample."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from pathlib import PurePosixPath
from typing import NamedTuple

WORDS = {  # role: words that say so
    "depth": "depth depths depthmap depthmaps dpt disp disparity disparities invdepth",
    "flow": "flow flows opticalflow forwardflow flowfw",
    "normals": "normal normals",
    "labels": "label labels seg segs segmentation segmentations semantic semantics annotation "
    "annotations labelids labeltrainids trainids segmentationclass classes gtfine",
    "modal": "modal inmodal visible visib",
    "amodal": "amodal whole",
    "mask": "mask masks silhouette silhouettes matte mattes",
    "second": "second next",
    "image": "image images img imgs im rgb color colour colors colours picture pictures photo "
    "photos jpegimages leftimg occlusion frame frames left input inputs clean",
    "aside": "pose poses intrinsic intrinsics extrinsic extrinsics calib calibration instance "
    "instances instanceids confidence conf ir infrared preview previews polygons panoptic",
}
ROLE = {word: role for role, words in WORDS.items() for word in words.split()}
MAPS = ("depth", "flow", "normals")
TRUTHS = ("depth", "flow", "normals", "labels", "modal", "amodal", "mask", "aside", "second")
FAINT = {"frame", "frames", "left", "input", "im", "clean"}  # often said of what is no picture
NEUTRAL = {"gt", "groundtruth", "ground", "truth", "map", "maps", "plane", "raw", "bit", "data"}
NEUTRAL |= {"mm", "cm", "meters", "metres", "meter", "metre", "object", "sync", "valid"}
SPLITS = {"train": "train", "training": "train", "val": "val", "validation": "val"}
SPLITS |= {"valid": "val", "test": "test", "testing": "test"}
WORD = re.compile(r"[^\W\d_]+|\d+")
BITS = re.compile(r"(?<!\d)(8|16|32)[ _-]?bits?(?![a-z])")
SECONDS = re.compile(r"\d{9,10}\.\d{1,9}")
TICKS = {13: 1e3, 16: 1e6, 19: 1e9}  # digits of a time since 1970: ticks a second
HOLDERS = (".npz", ".h5", ".hdf5", ".mat", ".json")  # files of several arrays, of outlines
BACKWARDS = {"bw", "backward", "backwards", "past"}  # flow to the frame before
IGNORED = {  # suffixes of files that are no pictures and no truth
    f".{suffix}"
    for suffix in "txt md yaml yml csv lst xml log py zip tar gz json jsonl html pdf ply obj sh "
    "toml ini".split()
}
Key = tuple[str, ...]


class Name(NamedTuple):
    """A file by its name."""

    path: str  # below the root
    roles: tuple[str, ...]  # the likeliest first
    key: Key
    split: str  # "" where no folder says one
    pattern: str  # equal for files of one kind


@cache
def words(text: str) -> tuple[str, ...]:
    """Runs of letters of any script, lower-case, and runs of digits; without `8bit`, which says how
    a file is stored."""
    return tuple(WORD.findall(BITS.sub(" ", unicodedata.normalize("NFC", text).lower())))


def name_of(path: str) -> Name:
    """What a path below the root says; `file.h5#name/3` as the path `file/name/3` would."""
    file, part = split_part(path)
    pure = PurePosixPath(file)
    parts = [*pure.parent.parts, pure.stem, *part.split("/")] if part else pure.parts
    *folders, last = parts
    stem = last if part else pure.stem
    split = next((found for f in folders if (found := _split(f))), "")
    places = [f for f in folders if f.lower() not in SPLITS]
    pattern = [f if _roles(f) else "*" for f in places]
    said = " ".join(word for word in words(stem) if word in ROLE)
    kind = "/".join([*pattern, f"{said}{pure.suffix.lower()}"])
    key = tuple(word for part in (*places, stem) for word in words(part) if _kept(word))
    return Name(path, _ordered(stem, places), (split, *key) if split else key, split, kind)


def split_part(path: str) -> tuple[str, str]:
    """The file of a path, and the part of it that follows `#`; other files may have a # in their
    own names."""
    file, mark, part = path.rpartition("#")
    holds = mark and PurePosixPath(file).suffix.lower() in HOLDERS
    return (file, part) if holds else (path, "")


def _split(folder: str) -> str:
    """The split that a folder is, with or without a role: `train`, `train_rgb`."""
    rest = [word for word in words(folder) if word not in ROLE and word not in NEUTRAL - {"valid"}]
    alone = len(rest) == 1 and (rest[0] != "valid" or folder.lower() == "valid")
    return SPLITS.get(rest[0], "") if alone else ""


def seconds(path: str) -> float | None:
    """The time that a file is named by, in seconds, if it is."""
    stem = PurePosixPath(path).stem
    if SECONDS.fullmatch(stem):
        return float(stem)
    if stem.isdecimal() and len(stem) in TICKS:
        return int(stem) / TICKS[len(stem)]
    return None


def _kept(word: str) -> bool:
    return word not in ROLE and word not in NEUTRAL


def _roles(part: str) -> list[str]:
    said = words(part)
    for quantity in MAPS:
        if quantity in map(ROLE.get, said) and {"valid", "mask", "masks"} & {*said}:
            return [f"{quantity}_valid"]
    if BACKWARDS & {*said} and "flow" in map(ROLE.get, said):
        return ["aside"]
    if "mask" in said and {"whole", "amodal"} & {*said}:
        return ["amodal"]
    if {"visible", "visib", "modal"} & {*said} and "mask" in said:
        return ["modal"]
    found = [ROLE[word] for word in said if word in ROLE]
    return sorted(dict.fromkeys(found), key=lambda role: role not in TRUTHS)


def _ordered(stem: str, folders: list[str]) -> tuple[str, ...]:
    """A truth in the name, then a clear picture's word there, then folders, the deepest first."""
    own = _roles(stem)
    if own == ["mask"] and any(role in MAPS for folder in folders for role in _roles(folder)):
        return ("aside",)  # of where a map counts, or does not: nobody can tell
    if "aside" in own:
        return ("aside",)
    clear = any(ROLE.get(word) == "image" and word not in FAINT for word in words(stem))
    roles = [role for role in own if role in TRUTHS] + ["image"] * clear
    roles += [role for folder in reversed(folders) for role in _roles(folder)] + own
    return tuple(dict.fromkeys(roles))
