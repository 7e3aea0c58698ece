"""What other packages add: tasks, data sources, samplers and backbones, found by entry points.

A package names them in its pyproject.toml, e.g.

    [project.entry-points."stepsight.tasks"]
    matte = "matting.task:MatteSettings"
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Generic, Literal, TypeVar

from stepsight.errors import UserError

Group = Literal["tasks", "data", "samplers", "models"]
Row = TypeVar("Row")


class Registry(MutableMapping[str, Row], Generic[Row]):
    """Rows by name: those built in, then those that plugins add.

    Plugins are loaded when an unknown name or all names are asked for, not before; one that is
    broken is named then. A row may also be set, for this process alone.
    """

    def __init__(self, built_in: Mapping[str, Row], group: Group, kind: type | None = None) -> None:
        """kind: of which the rows are classes, each with the name under which it lies as `name`."""
        self._rows, self._group, self._kind = dict(built_in), group, kind

    @property
    def built_in(self) -> tuple[str, ...]:
        return tuple(self._rows)

    def __getitem__(self, name: str) -> Row:
        return self._rows[name] if name in self._rows else self._all()[name]

    def __setitem__(self, name: str, row: Row) -> None:
        self._rows[name] = row

    def __delitem__(self, name: str) -> None:
        del self._rows[name]

    def __contains__(self, name: object) -> bool:
        return name in self._rows or name in self._all()

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def _added(self) -> Mapping[str, Row]:
        added, kind = plugins(self._group), self._kind
        if kind is None:
            return added
        for name, row in added.items():
            known = isinstance(row, type) and issubclass(row, kind)
            if not known or getattr(row, "name", None) != name:
                raise UserError(
                    f"the entry point stepsight.{self._group} {name} names {row!r}, which is no "
                    f"{kind.__name__} with the name '{name}'."
                )
        return added

    def _all(self) -> dict[str, Row]:
        added = self._added()
        if taken := sorted(self._rows.keys() & added.keys()):
            raise UserError(f"{self._group}: a package adds '{taken[0]}', which is built in.")
        return self._rows | dict(added)


def resolve(reference: str) -> Any:
    """What "module:attribute" names.

    Raises UserError where that of another package cannot be imported.
    """
    module, _, attribute = reference.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except Exception as error:
        if module.startswith("stepsight."):
            raise
        raise UserError(
            f"{reference} cannot be imported ({type(error).__name__}: {error}). Fix or uninstall "
            f"the package {module.partition('.')[0]}."
        ) from error


@cache
def _entry_points() -> Any:
    """Of all packages: looking through them takes a moment."""
    return entry_points()


def names(group: Group) -> list[str]:
    """What plugins call what they add, in alphabetical order; none is imported for it."""
    return sorted({point.name for point in _entry_points().select(group=f"stepsight.{group}")})


@cache
def plugins(group: Group) -> dict[str, Any]:
    """The objects that entry points of `stepsight.<group>` name, by name, in alphabetical order.

    Raises UserError naming the package whose entry point cannot be imported, and for a name that
    two packages use.
    """
    loaded: dict[str, Any] = {}
    points = _entry_points().select(group=f"stepsight.{group}")
    for point in sorted(points, key=lambda point: point.name):
        package = point.dist.name if point.dist else point.value
        if point.name in loaded:
            raise UserError(f"{package}: another package already adds '{point.name}' to {group}.")
        try:
            loaded[point.name] = point.load()
        except Exception as error:
            raise UserError(
                f"{package}: its entry point stepsight.{group} {point.name} = {point.value} cannot "
                f"be imported ({type(error).__name__}: {error}). Fix or uninstall the package."
            ) from error
    return loaded
