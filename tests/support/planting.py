"""Unknown keys in the configuration files that an importer reads, wherever a file has an object."""

from __future__ import annotations

import builtins
import copy
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from stepsight.conversion.dit import Wishes
from stepsight.conversion.importing import import_published
from stepsight.errors import UserError

KEY = "planted"
KINDS = (".json", ".yaml")
TABLES = ("vocab.json",)  # of tokens, which are no settings
Place = tuple[str | int, ...]


def files_read(path: Path, wishes: Wishes) -> list[Path]:
    """The configuration files that are opened as `path` is imported, whoever opens them."""
    opened, plain = set(), builtins.open

    def recording(file: Any, *args: Any, **kwargs: Any) -> Any:
        opened.add(file)
        return plain(file, *args, **kwargs)

    with mock.patch.object(builtins, "open", recording), mock.patch.object(io, "open", recording):
        import_published(path, wishes)
    named = {Path(file) for file in opened if isinstance(file, str | Path)}
    return sorted(file for file in named if file.suffix in KINDS and file.name not in TABLES)


def unrefused(path: Path, wishes: Wishes) -> list[tuple[Path, Place]]:
    """Where a key can be planted without a refusal that names it and the file."""
    files = files_read(path, wishes)
    assert files, f"{path} is imported without any configuration"
    found = []
    for file in files:
        text = file.read_text()
        values = yaml.safe_load(text)  # which reads JSON as well
        for place in objects(values):
            changed = copy.deepcopy(values)
            inside = changed
            for step in place:
                inside = inside[step]
            inside[KEY] = 1
            file.write_text(json.dumps(changed))
            said = refusal(path, wishes)
            if KEY not in said or file.name not in said:
                found.append((file, place))
        file.write_text(text)
    return found


def refusal(path: Path, wishes: Wishes) -> str:
    """What is said against importing `path`."""
    try:
        import_published(path, wishes)
    except UserError as error:
        return str(error)
    return ""


def objects(value: Any, place: Place = ()) -> Iterator[Place]:
    """Where in `value` objects are, itself first."""
    if isinstance(value, dict):
        yield place
        for key, inside in value.items():
            yield from objects(inside, (*place, key))
    elif isinstance(value, list):
        for number, inside in enumerate(value):
            yield from objects(inside, (*place, number))
