"""Configuration files, wherever stepsight is installed, and which of them gave a refused value."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

from stepsight.errors import UserError, suggest

PACKAGE = Path(__file__).parents[1]
CHECKOUT = PACKAGE.parents[1] / "configs"
SHIPPED = PACKAGE / "configs" if (PACKAGE / "configs").is_dir() else CHECKOUT
DEEPEST = 50  # tables within tables
Origins = Mapping[str, str]  # of settings that a file or a flag gives: `training.lr` -> its name


def find(name: str) -> Path:
    """The file of that name, or else the shipped one: `smoke` and `configs/smoke.yaml` are the same
    file wherever stepsight is installed. Raises UserError with a suggestion."""
    short = name.removeprefix("configs/")
    for path in (Path(name), SHIPPED / short, SHIPPED / f"{short}.yaml"):
        if path.is_file():
            return path
    known = [str(path) for path in Path(name).parent.glob("*.yaml")]
    shipped = [path.relative_to(SHIPPED) for path in SHIPPED.rglob("*.yaml")]
    known += [f"configs/{p}" if "." in name else str(p.with_suffix("")) for p in shipped]
    raise UserError(f"config file {name} not found.{suggest(name, known)}")


def read(name: str) -> dict[str, Any]:
    """The settings of a file, as nested plain values. Raises UserError."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        text = find(name).read_text("utf-8")
        _check_depth(text)
        values = OmegaConf.to_container(OmegaConf.load(StringIO(text)), resolve=True)
    except (YAMLError, OmegaConfBaseException, ValueError) as error:
        raise UserError(f"{name}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"{name}: must hold a table of settings (model, tasks, data, ...).")
    return {str(key): value for key, value in values.items()}


def _check_depth(text: str) -> None:
    """Raise ValueError for tables in tables without end, at which the parser would crash."""
    import yaml

    depth = 0
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for event in yaml.parse(text, Loader=loader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError(f"tables are nested more than {DEEPEST} deep")


@contextmanager
def naming(values: Mapping[str, Any], origins: Origins) -> Iterator[None]:
    """Add to a UserError that names settings of the configuration `values` where each is from."""
    try:
        yield
    except UserError as error:
        known = set(keys_of(values))
        names = dict.fromkeys(re.findall(r"\w+(?:\.\w+)+", str(error)))
        given = [f"{name}: {origins.get(name, 'default')}" for name in names if name in known]
        if not given:
            raise
        raise type(error)(f"{error} ({'; '.join(given)})") from error


def keys_of(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """`training`, `training.rows`, `training.rows.start`, ...: all keys of nested tables."""
    for key, value in values.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from keys_of(value, f"{prefix}{key}.")
