"""Which file of a folder of predictions belongs to a sample.

Names are those of other programs (`find_files`), or those that `stepsight predict` gives, whose
manifest says which formats there are and what their numbers stand for. What files hold is read by
`predictions.reading`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from stepsight.data.table import Source
from stepsight.errors import UserError

SUFFIXES = (".npy", ".png", ".flo", ".pfm")
PREFERRED = ("npy", "exr", "flo", "png16")  # of the formats of `predict`, those that hold values


@dataclass(frozen=True)
class Written:
    """How `stepsight predict` ends the names of a task's files, and how many units a metre whole
    numbers in them have; None where there is no manifest to say so."""

    endings: tuple[str, ...]
    scale: float | None = None


def written(task: str, manifest: Mapping[str, Any] | None) -> Written:
    """What the manifest says of the best format there is; without one, the usual endings.

    Raises UserError where `predict` wrote nothing that can be scored.
    """
    if manifest is None or "formats" not in manifest:
        return Written((f"-{task}.npy", f"-{task}.exr", f"-{task}.flo"))
    formats = manifest["formats"]
    kept = [formats[name] for name in PREFERRED if name in formats]
    if not kept:
        raise UserError(
            f"only {', '.join(formats) or 'nothing'} of {task} was saved, which holds no values to "
            "be scored. Predict with --save npy."
        )
    return Written((kept[0]["ending"],), kept[0].get("scale"))


def find_files(
    folder: Path,
    keys: Sequence[str],
    pattern: str | None = None,
    further: Iterable[str] = (),
    endings: Sequence[str] = (),
    pictures: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Path]:
    """The file of each key that has one.

    Without a `pattern` the file is the key with one of the `endings`, of `SUFFIXES` or of the
    `further` suffixes of a task, Marigold's name for it (`marigold_name`), or either below fewer of
    its folders, down to the last name alone. Failing that, one of these below further folders, or
    with some between; the same of the sample's picture, whose path without suffix `pictures` has by
    key; or, if no other fits, a name that begins with that of the key, as `<key>_labelIds.png`. A
    pattern is a path below `folder` in which {key} and {name} stand for the key and its last part.
    Raises UserError if there is no such folder, two keys lead to the same file, or two files fit.
    """
    if not folder.is_dir():
        raise UserError(f"--predictions {folder}: no such folder.")
    there = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.*"))}
    ends = (*endings, *dict.fromkeys((*SUFFIXES, *further)))
    named = _by_name(there)
    files: dict[str, Path] = {}
    owners: dict[Path, str] = {}
    for key in keys:
        if pattern:
            path = there.get(_filled(pattern, key))
        else:
            path = _called(key, there, named, ends)
            if path is None and key in pictures:
                path = _called(pictures[key], there, named, ends)
        if path in owners:
            raise UserError(
                f"{path} fits both {owners[path]} and {key}. Keep the folders of the data set in "
                "the names of the predictions, or say where they are with --pattern."
            )
        if path is not None:
            files[key], owners[path] = path, key
    left = [path for path in there.values() if path not in owners]
    for key in () if pattern else keys:
        if key not in files and (path := _begun(key, left, endings) or _begun(key, left, ends)):
            files[key] = path
    return {key: files[key] for key in keys if key in files}


def pictures_of(source: Source) -> dict[str, str]:
    """Where the pictures of samples lie below the root, without suffix, by key: as far as the
    source says so in its entries."""
    found = dict[str, str]()
    for entry in getattr(source, "entries", ()):
        path = getattr(entry, "image", None) or getattr(entry, "paths", {}).get("image")
        if isinstance(path, Path) and hasattr(entry, "key"):
            root = getattr(source, "root", path.parent)
            inside = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
            found[entry.key] = inside.with_suffix("").as_posix()
    return found


def marigold_name(name: str) -> str:
    """What Marigold's evaluation calls the prediction of the image `name` (without suffix).

    rgb_cam_00_fr0000 -> pred_cam_00_fr0000, rgb_0001 -> pred_0001, any other -> pred_other.
    """
    return f"pred_{name.removeprefix('rgb_')}"


def _filled(pattern: str, key: str) -> str:
    return pattern.replace("{key}", key).replace("{name}", PurePosixPath(key).name)


def _called(
    key: str,
    there: Mapping[str, Path],
    named: Mapping[str, list[tuple[Path, tuple[str, ...]]]],
    ends: Sequence[str],
) -> Path | None:
    found = next((there[name] for name in _candidates(key, ends) if name in there), None)
    return found or _deeper(key, named, ends)


def _candidates(key: str, ends: Sequence[str]) -> Iterator[str]:
    parts = PurePosixPath(key).parts
    for first in range(len(parts)):
        *folders, last = parts[first:]
        for name in (last, marigold_name(last)):
            for end in ends:
                yield "/".join([*folders, name + end])


def _by_name(there: Mapping[str, Path]) -> dict[str, list[tuple[Path, tuple[str, ...]]]]:
    """Files and their folders by their last names."""
    named = defaultdict[str, list[tuple[Path, tuple[str, ...]]]](list)
    for name, path in there.items():
        *folders, last = PurePosixPath(name).parts
        named[last].append((path, tuple(folders)))
    return named


def _deeper(
    key: str, named: Mapping[str, list[tuple[Path, tuple[str, ...]]]], ends: Sequence[str]
) -> Path | None:
    """The file of the key below further folders, or with some between its own."""
    *folders, last = PurePosixPath(key).parts
    for name in (last, marigold_name(last)):
        for end in ends:
            files = named.get(name + end, ())
            if found := [path for path, below in files if _within(folders, below)]:
                if len(found) > 1:
                    raise _ambiguous(key, found)
                return found[0]
    return None


def _within(parts: Sequence[str], whole: Sequence[str]) -> bool:
    """Whether all parts come in the whole, in their order."""
    rest = iter(whole)
    return all(part in rest for part in parts)


def _begun(key: str, files: Iterable[Path], ends: Sequence[str]) -> Path | None:
    """The file whose name begins with that of the key."""
    start, end = f"{PurePosixPath(key).name}_", tuple(ends)
    found = [path for path in files if path.name.startswith(start) and path.name.endswith(end)]
    if len(found) > 1:
        raise _ambiguous(key, found)
    return next(iter(found), None)


def _ambiguous(key: str, found: Sequence[Path]) -> UserError:
    return UserError(
        f"{found[0]} and {found[1]} both fit {key}: say where predictions are with --pattern."
    )
