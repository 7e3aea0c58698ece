"""The tables of a run, `tasks` and `data`: which entries they have, layer over layer.

A layer (a file, or what a path on the command line stands for) that has a table replaces the one
before, with its settings. An entry `name: none` is removed: a layer that only removes entries of a
table leaves the others as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stepsight.data.config import TABLE as SOURCES
from stepsight.errors import UserError, suggest
from stepsight.tasks.config import KNOWN as TASKS

NONE = "none"
TABLES: dict[str, Mapping[str, type]] = {"tasks": TASKS, "data": SOURCES}
DEFAULT_TABLES: dict[str, dict[str, Any]] = {
    "tasks": {"depth": {}, "flow": {}, "amodal": {}, "semantic": {}},
    "data": {"scenes": {}},
}
TABLE_HELP = {
    "tasks": "Settings of the tasks of this run, by name; NAME none: without that task.",
    "data": """Settings of the sources of this run, by name; NAME none: without that source.

    Attributes:
        root: folder below which the sources' own roots lie
    """,
}
Layer = tuple[str, Mapping[str, Any]]  # where settings come from, and they themselves
Removed = Mapping[str, set[str]]  # by table, the entries that a layer removes


def without_removed(layer: Layer) -> tuple[Layer, Removed]:
    """A layer without the entries that it removes, and these. Raises UserError for unknown ones."""
    where, values = layer
    kept, removed = dict(values), dict[str, set[str]]()
    for table, rows in TABLES.items():
        if not isinstance(given := values.get(table), Mapping):
            continue
        gone = {name for name, value in given.items() if value == NONE and name != "root"}
        for name in gone - rows.keys():
            raise UserError(f"{where}: '{table}.{name}' unknown.{suggest(str(name), rows)}")
        if gone:
            removed[table] = gone
            kept[table] = {name: value for name, value in given.items() if name not in gone}
    return (where, kept), removed


def last_tables(
    layers: Sequence[Layer], removed: Sequence[Removed]
) -> tuple[list[Layer], dict[str, dict[str, Any]]]:
    """The layers without what a later one replaces or removes, and the tables that remain."""
    kept: list[Layer] = []
    tables: dict[str, dict[str, Any]] = {}
    for layer, gone in zip(layers, removed, strict=True):
        for table in TABLES:
            given = layer[1].get(table)
            if given is None:
                continue
            if given.keys() - {"root"} or table not in gone:
                kept = [(name, _less(values, table)) for name, values in kept]
                tables[table] = dict(given)
                continue
            kept = [(name, _less(values, table, gone[table])) for name, values in kept]
            before = with_default(table, tables.get(table))
            tables[table] = {key: row for key, row in before.items() if key not in gone[table]}
            if not tables[table].keys() - {"root"}:
                tables[table] = {}  # a root alone would stand for the default source
        kept.append(layer)
    return kept, tables


def with_default(table: str, entries: Mapping[str, Any] | None) -> dict[str, Any]:
    """The entries of a table: the default ones where none are given, or the root alone."""
    usual = DEFAULT_TABLES[table]
    return (
        {**usual} if entries is None else {**(usual if {*entries} == {"root"} else {}), **entries}
    )


def with_named(
    tables: Mapping[str, dict[str, Any]], named: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, Any]]:
    """The tables with empty entries for what flags name. Where they name sources and no file does,
    the default source is left out: own data is not mixed with procedural scenes unasked."""
    added = dict(tables)
    for table, names in named.items():
        alone = table == "data" and table not in tables
        if names:
            present = {} if alone else with_default(table, tables.get(table))
            added[table] = present | {name: {} for name in names if name not in present}
    return added


def _less(values: Mapping[str, Any], table: str, names: set[str] | None = None) -> dict[str, Any]:
    """Settings without some entries of a table, or without the table."""
    less = {key: value for key, value in values.items() if key != table}
    if names is not None and table in values:
        entries: Mapping[str, Any] = values[table]
        less[table] = {key: row for key, row in entries.items() if key not in names}
    return less
