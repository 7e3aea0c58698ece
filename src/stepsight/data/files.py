"""What the readers of files share: a checked root, named splits, checks of what was read.

A reader is a `FileSource` that says which quantities it offers, which glob under its root shows
that the root is right, how a split is listed, and how an entry is read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor

from stepsight.data.config import FileSettings
from stepsight.data.plausible.reach import within_reach
from stepsight.errors import DataFormatError, UserError
from stepsight.types import Sample

Entry = TypeVar("Entry")
HINTED_FOLDERS = 200  # how many subfolders are searched before giving up on a hint


class FileSource(ABC, Generic[Entry]):
    """A source of files on disk; an entry is what identifies one sample."""

    classes: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    settings: Any  # of the kind that the reader has
    offers: ClassVar[frozenset[str]]
    published: Mapping[str, int] = {}  # split: samples of the complete data set
    recalled: ClassVar[bool] = False  # those counts come from memory, nobody read them
    notes: tuple[str, ...] = ()  # sentences on what is not there, or not used, and is no fault
    farthest: ClassVar[float] = 1000.0  # metres: what is beyond is sky, or in another unit
    marker: str  # a glob under the root that matches when the layout is right

    def __init__(
        self, settings: FileSettings, split: str, quantities: frozenset[str] | None = None
    ) -> None:
        self.name, self.settings, self.size = settings.name, settings, settings.size
        self.asked = quantities
        self.survey(root_of(settings.root), split)
        self.root = find_root(settings, self.marker)
        self.quantities = self.present() if quantities is None else self.offered() & quantities
        self.entries = self.find(split)
        self.refuse_missing(path for entry in self.entries for path in self.needed(entry))

    def survey(self, root: Path, split: str) -> None:
        """Set what depends on the layout at hand, such as the `marker`; `root` may not exist."""

    def present(self) -> frozenset[str]:
        """What the files at hand offer to those who ask for nothing in particular."""
        return self.offered()

    def offered(self) -> frozenset[str]:
        """`offers`, and what packages add where a source takes whatever there is."""
        return self.offers

    @abstractmethod
    def find(self, split: str) -> list[Entry]:
        """The entries of a split, never empty. Raises `UserError`."""

    def needed(self, entry: Entry) -> Iterable[Path]:
        """The files that must exist for an entry, besides those that `find` listed."""
        return ()

    @abstractmethod
    def read(self, entry: Entry) -> Sample:
        """One sample. Raises `DataFormatError` naming the file at fault."""

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Sample:
        return within_reach(self.read(self.entries[index]), self.farthest)

    def samples(self, indices: Iterable[int]) -> list[Sample]:
        return [self[index] for index in indices]

    def refuse_missing(self, paths: Iterable[Path]) -> None:
        """Raise `DataFormatError` unless all `paths` exist, at the cost of a listing per folder."""
        listed: dict[Path, set[str]] = {}
        missing = []
        for path in dict.fromkeys(paths):
            if path.parent not in listed:
                listed[path.parent] = {entry.name for entry in path.parent.glob("*")}
            if path.name not in listed[path.parent]:
                missing.append(path)
        if missing:
            others = f" and so are {len(missing) - 1} others" if len(missing) > 1 else ""
            raise DataFormatError(f"{self.name}: {missing[0]} is missing{others}.")

    def names_in(self, places: Iterable[tuple[str, str]]) -> list[str]:
        """The sorted names of files, each of which all `places` must have.

        A place is a folder below the root and what follows the name in it. Raises `DataFormatError`
        for a file that is missing: pairing by position would shift everything after it.
        """
        folders = [(self.root / folder, end) for folder, end in places]
        files = ((path.name, end) for folder, end in folders for path in folder.glob(f"*{end}"))
        names = sorted({name.removesuffix(end) for name, end in files})
        self.refuse_missing(folder / f"{name}{end}" for folder, end in folders for name in names)
        return names

    def pick_file(
        self, split: str, files: Mapping[str, Path], read: Callable[[str, Path], list[Entry]]
    ) -> list[Entry]:
        """`pick` of what `read(split, file)` gives, of the `files` that exist. Only what is asked
        for is read."""
        present = {name: path for name, path in files.items() if path.is_file()}
        chosen = [split] if split in present else present
        return self.pick(split, {name: read(name, present[name]) for name in chosen})

    def pick(self, split: str, parts: dict[str, list[Entry]]) -> list[Entry]:
        """The part of that name, or the union of all for `all`. Raises `UserError` if empty."""
        parts = parts | {"all": [entry for part in parts.values() for entry in part]}
        counts = ", ".join(f"{name} {len(part)}" for name, part in parts.items())
        if split not in parts:
            raise UserError(
                f"{self.name}: no split '{split}' in {self.root} (there are: {counts})."
            )
        if not parts[split]:
            raise UserError(f"{self.name}: split '{split}' in {self.root} is empty ({counts}).")
        return parts[split]


def root_of(text: str) -> Path:
    """The folder that a user wrote, `~` resolved. Raises `UserError` for the home of nobody."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"{text}: there is no such home folder; write the whole path.") from error


def find_root(settings: FileSettings, marker: str) -> Path:
    """The root as a folder in which something matches `marker`. Raises `UserError` with a hint."""
    way_out = "Set --data.root, or use the procedural worlds (--data.name scenes)."
    if not settings.root:
        raise UserError(f"{settings.name}: no folder is given. {way_out}")
    root = root_of(settings.root)
    if not root.is_dir():
        raise UserError(f"{settings.name}: {root} not found. {way_out}")
    if not _matches(root, marker):
        near = next((folder for folder in _nearby(root) if _matches(folder, marker)), None)
        hint = f"did you mean {near}?" if near else way_out
        raise UserError(f"{settings.name}: found 0 {marker} under {root}; {hint}")
    return root


def check_shapes(paths: Iterable[Path], *planes: Tensor) -> None:
    """Raise `DataFormatError` unless all planes "... h w", read from `paths`, share h and w."""
    sizes = [tuple(plane.shape[-2:]) for plane in planes]
    for path, size in zip(paths, sizes):
        if size != sizes[0]:
            expected, actual = (" x ".join(map(str, pair)) for pair in (sizes[0], size))
            raise DataFormatError(f"{path}: {actual} pixels, where its image has {expected}.")


def check_any(valid: Tensor, path: Path, what: str) -> None:
    """Raise `DataFormatError` if `valid` is False everywhere: nothing can be learnt or scored."""
    if not valid.any():
        raise DataFormatError(f"{path}: holds {what}.")


def _matches(folder: Path, marker: str) -> bool:
    return next(folder.glob(marker), None) is not None


def _nearby(root: Path) -> Iterator[Path]:
    """The parent, then the first subfolders of `root` in order."""
    yield root.resolve().parent
    yield from sorted(path for path in root.glob("*") if path.is_dir())[:HINTED_FOLDERS]
