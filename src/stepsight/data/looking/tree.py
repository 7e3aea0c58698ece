"""The files of a tree, sorted into kinds: alike by name, and by what their first bytes hold."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from stepsight.data.decoding.disk import reading
from stepsight.data.looking.contents import SEVERAL, FileForm, form_of, parts_of
from stepsight.data.looking.names import IGNORED, Name, name_of, split_part
from stepsight.errors import UserError

MOST = 200_000  # files that are looked at
TRIED = 8  # files of a kind, spread over it, of which one must open


@dataclass
class FileKind:
    """Files alike by name: of one role, in one container."""

    names: list[Name]
    form: FileForm | None = None  # of the first that opens
    role: str = ""
    errors: list[str] = field(default_factory=list)

    @property
    def suffix(self) -> str:
        return Path(split_part(self.names[0].path)[0]).suffix.lower()


def files_of(root: Path) -> list[str]:
    """The paths of all files below a folder, sorted, hidden ones left out. Links to folders are
    followed, but not into a folder that holds them. Raises `UserError`."""
    with reading(root):
        found = []
        for folder, folders, files in os.walk(root, followlinks=True):
            here = Path(folder)
            folders[:] = [
                name for name in folders if _shown(name) and not _holds_itself(here / name)
            ]
            paths = [here / name for name in files if _shown(name)]
            found += [path.relative_to(root).as_posix() for path in paths if path.is_file()]
            if len(found) > MOST:
                raise UserError(f"{root}: more than {MOST} files. Look at a part, or use a reader.")
    return sorted(found)


def _shown(name: str) -> bool:
    return not name.startswith((".", "__MACOSX"))


def _holds_itself(folder: Path) -> bool:
    """Whether a folder is a link to one that holds it."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def kinds_of(root: Path, paths: Iterable[str]) -> list[FileKind]:
    """Files by kind, each kind with its form where one of its first files opens."""
    groups: dict[str, list[Name]] = defaultdict(list)
    for path in paths:
        suffix = Path(path).suffix.lower()
        if suffix in IGNORED:
            continue
        try:
            parts = parts_of(root / path) if suffix in SEVERAL else [""]
        except UserError:
            parts = [""]  # its kind says so
        for part in parts:
            name = name_of(path + part)
            groups[name.pattern].append(name)
    kinds = [FileKind(names) for names in groups.values()]
    for kind in kinds:
        for name in kind.names[:: -(-len(kind.names) // TRIED)]:
            try:
                kind.form = form_of(root / name.path, next(iter(name.roles), "depth"))
                break
            except UserError as error:
                kind.errors.append(str(error))
    return kinds
