"""The one table of what a sample holds: a row per field of `Sample` and `Batch`.

A row says what a field is, which quantities bring it, and how it is resized, mirrored, recoloured,
stored, drawn, read and checked. Whatever handles samples reads this table, so that a new quantity
is a field of `Sample` and `Batch` with its row here; a field without a row stops the import.

Another package adds a quantity with `register` in a module that an entry point leads to
(`stepsight.plugins`), e.g. a matte that is smoothed where it is known:

    register(Field("matte", "map", valid="matte_valid", average=True), validity("matte"))

Its values lie in `extra` of samples and batches and read as attributes, `batch.matte`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from stepsight.data.decoding import labels, masks
from stepsight.data.decoding.images import PICTURES
from stepsight.data.decoding.truth import SUFFIXES, read_depth, read_flow, read_normals
from stepsight.data.plausible.ranges import Range, flow_length, hidden_share
from stepsight.data.quantities import painting
from stepsight.data.quantities.grids import Size, scale_flow, unit_length
from stepsight.errors import UserError
from stepsight.legends import Legend
from stepsight.plugins import plugins, resolve
from stepsight.types import ADDED, IGNORE, Batch, Sample

Kind = Literal["picture", "mask", "map", "number", "ids", "points"]
DTYPES: dict[Kind, torch.dtype] = {  # in the order in which they are stored
    "picture": torch.uint8,  # "3 h w"; in batches float32 in [-1, 1]
    "mask": torch.bool,  # "1 h w"
    "map": torch.float32,  # "c h w"
    "number": torch.int64,  # an int
    "ids": torch.int64,  # "h w"
    "points": torch.int64,  # "n c": rows and columns of pixels in turn; batches fill up with -1
}
Value = TypeVar("Value", Sample, Batch)


@dataclass(frozen=True)
class Field:
    """One row of the table."""

    name: str
    kind: Kind
    channels: int = 1  # of maps, and numbers per line of points
    unit: str = ""  # of the values
    brought_by: tuple[str, ...] = ()  # quantities with which it comes; (): it is a quantity itself
    valid: str = ""  # the mask of the pixels where a map counts; "": everywhere
    average: bool = False  # maps: averaged where valid when resized, else picked
    resized: Callable[[Tensor, Size, Size], Tensor] | None = None  # then, from the old grid to new
    negated: tuple[int, ...] = ()  # channels that change their sign in a mirror
    counts: Callable[[Tensor], Tensor] | None = None  # which ids count; None: all
    kept: bool = False  # a random crop keeps a pixel that counts, if there are any
    on_white: bool = False  # picture of an object: its border is kept, in colour and in files
    id_type: type[np.generic] = np.int32  # of ids and numbers in the sample cache
    draw: Callable[[Any, Sample], Tensor] | None = None  # uint8 "3 h w"; None: by its kind
    key: Callable[[Any, Sample], Legend] | None = None  # what colours of `draw` mean; None: nothing
    ranges: Callable[[Any, Sample], dict[str, Range]] | None = None  # None: by its kind
    problems: Callable[[Any, Sample, Any], Iterator[str]] | None = None  # besides `data.plausible`,
    # which has the rules of those built in; given the source as well
    suffixes: tuple[str, ...] = ()  # of the files in a user's own folder; (): not read from there
    read: Callable[[Path, Any], Any] | None = None  # of such a file, by `FolderSettings`; maps and
    # ids need one: a map gives its values and where they are known, ids "h w"

    @property
    def quantities(self) -> tuple[str, ...]:
        """Whoever requests any of these gets the field."""
        return self.brought_by or (self.name,)

    @property
    def dense(self) -> bool:
        """Whether its last axes are the pixels of the image."""
        return self.kind not in ("number", "points")

    @property
    def row_type(self) -> type[np.generic]:
        """Of the values in a row of the sample cache."""
        floats = np.float32 if self.kind == "map" else self.id_type
        return np.uint8 if self.kind == "picture" else floats

    @property
    def rank(self) -> int:
        """Of its kind, in the order in which they are stored."""
        return list(DTYPES).index(self.kind)

    def counted(self, value: Tensor) -> Tensor:
        """bool: the pixels of a mask or of ids that count."""
        if self.counts is not None:
            return self.counts(value)
        return value if self.kind == "mask" else torch.ones_like(value, dtype=torch.bool)


def validity(name: str, kept: bool = True) -> Field:
    """The row of `<name>_valid`, the mask of the pixels where a quantity counts."""
    mask = f"{name}_valid"
    return Field(mask, "mask", brought_by=(name,), kept=kept, suffixes=masks.SUFFIXES)


AMODAL = ("amodal", "whole")
_ROWS = {
    row.name: row
    for row in (
        Field("image", "picture", suffixes=PICTURES),
        Field("second", "picture", brought_by=("flow",), suffixes=PICTURES),
        Field(
            "depth",
            "map",
            unit="m",
            valid="depth_valid",
            draw=painting.paint_depth,
            key=painting.key_depth,
            suffixes=SUFFIXES["depth"],
            read=lambda path, settings: read_depth(
                path, settings.depth_scale, settings.depth_unit, settings.invalid
            ),
        ),
        validity("depth"),
        Field(
            "flow",
            "map",
            channels=2,
            unit="px",
            valid="flow_valid",
            average=True,
            resized=scale_flow,
            negated=(0,),
            draw=painting.paint_flow,
            key=painting.key_flow,
            ranges=flow_length,
            suffixes=SUFFIXES["flow"],
            read=lambda path, settings: read_flow(path, settings.flow_unit, settings.invalid),
        ),
        validity("flow"),
        Field("occluded", "mask", brought_by=("flow",), draw=painting.paint_occluded),
        Field(
            "labels",
            "ids",
            counts=lambda labels: labels != IGNORE,
            kept=True,
            id_type=np.uint8,
            key=painting.key_labels,
            suffixes=labels.SUFFIXES,
        ),
        Field("instances", "ids", counts=lambda ids: ids > 0, draw=painting.paint_instances),
        Field("modal", "mask", brought_by=AMODAL, kept=True, suffixes=masks.SUFFIXES),
        Field(
            "amodal",
            "mask",
            brought_by=AMODAL,
            draw=painting.paint_amodal,
            key=painting.key_amodal,
            ranges=hidden_share,
            suffixes=masks.SUFFIXES,
        ),
        Field("amodal_valid", "mask", brought_by=AMODAL),
        Field("whole", "picture", on_white=True),
        Field(
            "normals",
            "map",
            channels=3,
            valid="normals_valid",
            average=True,
            resized=unit_length,
            negated=(0,),
            draw=painting.paint_normals,
            key=painting.key_normals,
            suffixes=SUFFIXES["normals"],
            read=lambda path, settings: read_normals(path, settings.invalid),
        ),
        validity("normals"),
        Field(
            "order",
            "points",
            channels=4,
            draw=painting.paint_pairs,
        ),
        Field("class_id", "number"),
    )
}
BUILT_IN = dict(_ROWS)
ABOUT = ("key", "source", "keys", "sources", "extra")  # what is no row: it says what the values are
for _kind in (Sample, Batch):
    _lost = {field.name for field in fields(_kind)} - {*ABOUT} ^ {*BUILT_IN}
    assert not _lost, f"{_kind.__name__} and the table differ in {_lost}"


def _quantities(rows: Iterable[Field]) -> frozenset[str]:
    return frozenset(name for row in rows for name in row.quantities) - {"image"}


QUANTITIES = _quantities(BUILT_IN.values())  # built in


def register(*rows: Field) -> None:
    """Add rows of another package. Registering an equal row again does nothing.

    Raises `UserError` for a name that means something else already, and for a row that lacks its
    mask or what reads its files.
    """
    for row in rows:
        if _ROWS.get(row.name, row) != row or row.name in ABOUT:
            raise UserError(f"field '{row.name}' is registered twice, with different meanings.")
    _check_added({**_ROWS, **{row.name: row for row in rows}}, rows)
    for row in rows:
        _ROWS[row.name] = row
        ADDED.add(row.name)


def _check_added(known: Mapping[str, Field], rows: tuple[Field, ...]) -> None:
    for row in rows:
        if row.valid and row.valid not in known or row.average and not row.valid:
            raise UserError(f"field '{row.name}' needs its mask: register validity() beside it.")
        if row.kind == "number":
            raise UserError(f"field '{row.name}' is a number, which no package can add.")
        if row.suffixes and row.kind in ("map", "ids", "points") and row.read is None:
            raise UserError(f"field '{row.name}' has suffixes of files, but no 'read' for them.")


def row_of(name: str) -> Field:
    """The row of a field. Raises `UserError` if no installed package knows it."""
    if name not in _ROWS:
        _load_plugins()
    if name not in _ROWS:
        raise UserError(f"'{name}' is no quantity that stepsight or an installed package knows.")
    return _ROWS[name]


def table() -> Mapping[str, Field]:
    """All rows by name, those of installed packages included."""
    _load_plugins()
    return _ROWS


def quantities() -> frozenset[str]:
    """All that a source may be asked for."""
    return _quantities(table().values())


def unknown(names: frozenset[str]) -> frozenset[str]:
    """Those of `names` that are no quantities. Packages are looked at only for what is not built
    in."""
    return names - QUANTITIES and names - quantities()


_loaded = False


def _load_plugins() -> None:
    """Import what the entry points lead to, so that it registers its rows."""
    global _loaded
    if not _loaded:
        _loaded = True  # already now: a package may ask for the table while it is imported
        try:
            for group in ("data", "tasks"):
                for name, settings in plugins(group).items():
                    if not hasattr(settings, "implementation"):
                        raise UserError(
                            f"the entry point stepsight.{group} {name} names {settings!r}, which "
                            f"is no settings class. Fix or uninstall its package."
                        )
                    resolve(settings.implementation)
        except UserError:
            _loaded = False
            raise


def get(value: Sample | Batch, name: str) -> Any:
    """What a sample or batch has of a field, or None."""
    return value.extra.get(name) if name not in BUILT_IN else getattr(value, name)


def present(value: Sample | Batch) -> list[tuple[Field, Any]]:
    """The rows of which a sample or batch has something, and that: fields in the order of `Sample`,
    then those of other packages by name."""
    names = (*BUILT_IN, *sorted(value.extra))
    return [(row_of(name), held) for name in names if (held := get(value, name)) is not None]


def with_values(value: Value, changes: Mapping[str, Any]) -> Value:
    """A copy with other values of some fields, None to drop one."""
    typed = {name: new for name, new in changes.items() if name in BUILT_IN}
    extra = value.extra | {name: new for name, new in changes.items() if name not in BUILT_IN}
    return replace(value, **typed, extra={n: new for n, new in extra.items() if new is not None})
