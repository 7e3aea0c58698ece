"""Files of a folder that someone may have removed or damaged: absent is empty, damaged is named."""

from __future__ import annotations

import csv
import json
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from stepsight.errors import DataFormatError, UserError, suggest


def read_text(path: Path) -> str:
    """The text of a file; empty where there is none."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def read_json(path: Path, absent: Any) -> Any:
    """The content of a JSON file, of the type of `absent`, which stands for a missing file.

    Raises DataFormatError if it is not JSON, or of another type.
    """
    if not path.is_file():
        return absent
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataFormatError(
            f"{path}: not JSON ({error}). Run the step that writes it again."
        ) from None
    if not isinstance(content, type(absent)):
        raise DataFormatError(f"{path}: expected a JSON {type(absent).__name__}. Write it again.")
    return content


def mapping(content: Any, where: str) -> dict[str, Any]:
    """A table of a YAML file. Raises UserError for anything else."""
    if not isinstance(content, dict):
        raise UserError(f"{where}: expected a table, found {type(content).__name__}.")
    return content


def known(content: Any, keys: Sequence[str], where: str) -> dict[str, Any]:
    """A table of a YAML file with no keys but these. Raises UserError."""
    table = mapping(content, where)
    for key in table:
        if key not in keys:
            raise UserError(f"{where}: '{key}' is unknown.{suggest(str(key), keys)}")
    return table


@dataclass(frozen=True)
class CsvRows:
    """The rows of a CSV file with a header line, by the number of their (last) line."""

    columns: list[str]
    numbered: dict[int, dict[str, str]] = field(default_factory=dict)


def read_table(path: Path) -> CsvRows:
    """A CSV file; cells that a row lacks are empty.

    Raises DataFormatError naming the file and the line where it is no such table: a column is named
    twice, a row has cells beyond the header, or cells are separated by something else than commas.
    """
    line = 0
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            rows = CsvRows(list(reader.fieldnames or ()))
            _check_header(path, rows.columns)
            for row in reader:
                line = reader.line_num
                beyond = row.pop(None, ())  # type: ignore[call-overload]
                if any(cell.strip() for cell in beyond):
                    count = len(rows.columns) + len(beyond)
                    raise DataFormatError(
                        f"{path}:{line}: {count} cells, and {len(rows.columns)} columns in the "
                        "header. Quote cells that hold a comma, and write decimal points."
                    )
                rows.numbered[line] = row
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataFormatError(f"{path}, after line {line}: not a CSV table ({error}).") from None
    return rows


def _check_header(path: Path, columns: Sequence[str]) -> None:
    """Raises DataFormatError."""
    twice = {name for name in columns if name.strip() and columns.count(name) > 1}
    if twice:
        raise DataFormatError(f"{path}: several columns are called {', '.join(sorted(twice))}.")
    if len(columns) == 1 and (other := next((c for c in ";\t" if c in columns[0]), None)):
        raise DataFormatError(f"{path}: cells are separated by {other!r}. Separate them by commas.")


def misfits(row: Mapping[str, Any], kind: type) -> list[str]:
    """The keys of a JSON object whose values cannot be those of the dataclass `kind`. Numbers may
    be null, which JSON writes for those that are not finite; further keys are nobody's concern."""
    hints = get_type_hints(kind)
    return [name for name, hint in hints.items() if name in row and not _fits(row[name], hint)]


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value can be what the annotation says."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if hint is float:
        return value is None or (type(value) in (int, float) and abs(value) < 1e300)
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if origin is tuple:
        each = [inner[0]] * len(value) if inner[-1] is ... and isinstance(value, list) else inner
        sound = isinstance(value, list) and len(value) == len(each)
        return sound and all(map(_fits, value, each))
    if origin is not None and issubclass(origin, Mapping):
        keys = isinstance(value, dict) and all(map(_sane, value))
        return keys and all(_fits(one, inner[1]) for one in value.values())
    if is_dataclass(hint):
        names = {f.name: f.default is MISSING for f in fields(hint)}
        sound = isinstance(value, dict) and value.keys() <= names.keys()
        needed = {name for name, without in names.items() if without}
        return sound and value.keys() >= needed and not misfits(value, hint)  # type: ignore[arg-type]
    if hint is str:
        return isinstance(value, str) and _sane(value)
    return type(value) is hint and not (hint is int and abs(value) >= 2**63)


def _sane(text: str) -> bool:
    """Whether a file can hold a text: JSON lets half a pair of surrogates pass."""
    return text.encode(errors="ignore").decode() == text
