"""From a source's name to its samples: what a source is, and how it is opened.

`config.TABLE` names the settings of every source, the settings name the class, and the class is
imported when it is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, get_origin, get_type_hints

from stepsight.data.bad import BadItems
from stepsight.data.config import TABLE, FileSettings, ShardsSettings, SourceSettings
from stepsight.data.fields import unknown
from stepsight.data.files import root_of
from stepsight.errors import UserError, suggest
from stepsight.plugins import resolve
from stepsight.types import Sample

FIRST = 64  # samples of which one must be readable to see what a source's samples are like
FIRST_SHARD = "shard-000000.tar"  # by which a folder of shards is known


class Source(Protocol):
    """Numbered samples with truth. The same index always gives the same sample."""

    name: str
    classes: tuple[str, ...]  # names of the label values, () without labels
    quantities: frozenset[str]  # what was asked for and samples have (`data.fields`): all of them,
    # or, in a source that also has `truths` (see `truths_of`), any of them
    size: tuple[int, int]  # working height and width, to which callers bring the samples

    @property
    def categories(self) -> tuple[str, ...]:
        """Names of the values of `class_id`, () without."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample:
        """One sample at its native size, image uint8."""
        ...

    def samples(self, indices: Iterable[int], /) -> list[Sample]:
        """Several samples at once, which some sources do faster."""
        ...


class SourcePart:
    """Some of the samples of a source, in its order: those with certain truths (`having`). In all
    that does not go by the number of a sample it is the source."""

    groups, sizes, published = (), None, dict[str, int]()  # which do

    def __init__(self, source: Source, indices: Sequence[int]) -> None:
        held = truths_of(source)
        self.source, self.indices = source, indices
        self.name, self.classes, self.size = source.name, source.classes, source.size
        self.categories = source.categories
        every: Sequence[Any] = getattr(source, "entries", ())
        self.entries = [every[index] for index in indices] if every else ()
        self.truths = [held[index] for index in indices]
        self.quantities = frozenset.intersection(*self.truths)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name in ("source", "__setstate__"):  # of one that is not made yet
                raise AttributeError(name)
            return getattr(self.source, name)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.source[self.indices[index]]

    def samples(self, indices: Iterable[int]) -> list[Sample]:
        return self.source.samples([self.indices[index] for index in indices])


def truths_of(source: Source) -> Sequence[frozenset[str]]:
    """The quantities that each sample of a source has, its `truths`; () unless they differ: then
    all have all of the source's."""
    return getattr(source, "truths", ())


def notes_of(source: Source) -> Sequence[str]:
    """Sentences on what a source lacks or leaves out, and is no fault: its `notes`."""
    return getattr(source, "notes", ())


def having(source: Source, needs: frozenset[str]) -> Source | None:
    """The samples of a source that have the truth `needs`: the source itself where that is all of
    them, a part of it, or None."""
    truths = truths_of(source)
    if not needs <= source.quantities or not truths:
        return source if needs <= source.quantities else None
    indices = [index for index, held in enumerate(truths) if needs <= held]
    if len(indices) == len(truths):
        return source
    return SourcePart(source, indices) if indices else None


def read_sample(source: Source, index: int) -> Sample:
    """A sample. Raises `UserError`, which names the source and the number."""
    try:
        return source[index]
    except UserError as error:
        raise type(error)(f"{source.name}, sample {index}: {error}") from error
    except OSError as error:
        raise UserError(f"{source.name}, sample {index}: cannot be read ({error}).") from error


def read_samples(
    source: Source, indices: Iterable[int], bad: Callable[[int, UserError], None]
) -> list[Sample | None]:
    """Several samples, None for each that cannot be read after `bad` was told why."""
    indices = list(indices)
    try:
        return list(source.samples(indices))
    except (UserError, OSError):  # of one of them: find out which
        return [_read_or_tell(source, index, bad) for index in indices]


def _read_or_tell(
    source: Source, index: int, bad: Callable[[int, UserError], None]
) -> Sample | None:
    try:
        return read_sample(source, index)
    except UserError as error:
        bad(index, error)
        return None


def first_readable(source: Source) -> Sample:
    """The first sample that can be read. Raises `UserError` if none of the first few can."""
    errors: list[UserError] = []
    for index in range(min(FIRST, len(source))):
        try:
            return read_sample(source, index)
        except UserError as error:
            errors.append(error)
    raise errors[0]


class Readable:
    """The leading `count` samples of a source, where those that cannot be read are left out of what
    `samples` gives, after `bad` was told of each."""

    def __init__(self, source: Source, bad: BadItems, count: int) -> None:
        self.source, self.bad, self.count = source, bad, count
        self.name, self.classes = source.name, source.classes
        self.quantities, self.size = source.quantities, source.size
        self.categories = source.categories

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        return self.source[index]

    def samples(self, indices: Iterable[int]) -> list[Sample]:
        def tell(index: int, error: UserError) -> None:
            self.bad.met(self.name, index, error, of=len(self.source))

        return [one for one in read_samples(self.source, indices, tell) if one is not None]


def settings_for(name: str, **options: Any) -> SourceSettings:
    """The settings of the source called `name`.

    Raises `UserError` for unknown names and options, and for values that an option cannot take.
    """
    if name not in TABLE:
        raise UserError(f"No data source is called '{name}'.{suggest(name, TABLE)}")
    known = {field.name for field in fields(TABLE[name])}
    kinds = get_type_hints(TABLE[name])
    for option, value in options.items():
        if option not in known:
            raise UserError(f"{name} has no option '{option}'.{suggest(option, known)}")
        choices = get_args(kinds[option]) if get_origin(kinds[option]) is Literal else (value,)
        if value not in choices:
            raise UserError(f"{name}: {option} {value!r} is one of {', '.join(choices)}.")
    return TABLE[name](**options)


def specific_options(settings: SourceSettings) -> dict[str, Any]:
    """The options that only this source has, by name: which samples they are and what is in them;
    as JSON gives them back, with lists.

    How samples are used does not belong to them, nor where they are kept.
    """
    shared = {field.name for field in fields(FileSettings)} | {"cache"}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(settings).items()
        if name not in shared
    }


def open_source(
    settings: SourceSettings,
    split: str,
    quantities: frozenset[str] | None = None,
    base: str | None = None,
) -> Source:
    """The source that `settings` describe, offering `quantities` (None: all) as far as it has them.

    A source of files looks for its root below `base`; where that holds tar shards of the source,
    they are read. Raises `UserError` when the files are missing or laid out otherwise, or the split
    is unknown or empty.
    """
    assert quantities is None or not unknown(quantities), quantities
    if isinstance(settings, FileSettings) and base:
        settings = replace(settings, root=str(Path(base) / settings.root))
    if isinstance(settings, FileSettings) and _is_sharded(settings.root):
        return _open_shards(settings, split, quantities)
    source = resolve(settings.implementation)(settings, split, quantities)
    if lost := unknown(source.quantities):  # asking brings the rows of other packages in
        raise UserError(f"{settings.name} offers {', '.join(sorted(lost))}, which has no row.")
    return source


def _is_sharded(root: str) -> bool:
    folder = root_of(root)
    return bool(root) and any(
        next(folder.glob(depth + FIRST_SHARD), None) is not None for depth in ("", "*/")
    )


def _open_shards(settings: FileSettings, split: str, quantities: frozenset[str] | None) -> Source:
    """Shards under the name of what they hold, or as `shards`, whatever they hold.

    Raises `UserError` if that is another source, or the same with other options.
    """
    source = resolve(ShardsSettings.implementation)(settings, split, quantities)
    if settings.name == ShardsSettings.name:
        return source
    if settings.name != source.name:
        raise UserError(
            f"{settings.name}: {settings.root} holds shards of {source.name}. "
            f"Use --data.{source.name}.root for them."
        )
    given = specific_options(settings)
    for option, written in source.options.items():
        if (value := given.get(option, written)) != written:
            raise UserError(
                f"{settings.name}: the shards in {settings.root} were written with {option} "
                f"{written!r}, not {value!r}. Set --data.{settings.name}.{option} as it was, or "
                f"write other shards."
            )
    return source
