"""The settings of a run on the command line: `--config FILE` and `--section.key value`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from itertools import chain, pairwise
from typing import Annotated, Any, Generic, TypeVar

from stepsight import config as configuration
from stepsight.cli.entry import parse
from stepsight.config import GROUPS, Draft, RunConfig
from stepsight.config.files import Origins, read
from stepsight.config.tables import NONE, TABLES, Layer
from stepsight.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Configured(Generic[T]):
    """What a command that has settings was given."""

    args: T
    config: RunConfig
    origins: Origins  # the file or flag that gave a setting
    arguments: list[str]  # as they were given


def configured(
    kind: type[T], arguments: Sequence[str], prog: str, besides: Sequence[Layer] = ()
) -> Configured[T]:
    """The defaults, then the files of --config, then the layers `besides`, then the flags; and an
    instance of `kind`, the dataclass of the command's other flags, of which `config` is one.
    Raises UserError."""
    removing, others = removed(arguments)
    layers = [(name, read(name)) for name in config_files(arguments)]
    draft = configuration.drafted([*layers, *besides, *removing], entries(others))
    parsed = parse(_command(kind, draft), others, prog, markers=())
    origins = draft.origins | {key: flag for flag in arguments if (key := setting_of(flag))}
    config = configuration.checked(configuration.assembled(parsed), origins)
    return Configured(parsed.args, configuration.portable(config), origins, list(arguments))


def _command(kind: type, draft: Draft) -> type:
    """The dataclass of all flags: those of `kind`, and the settings as the files have them."""
    import tyro

    config, tables = draft.config, {f.name: f.type for f in fields(draft.shape)}
    parts: dict[str, Any] = {name: getattr(config, name) for name in GROUPS}
    parts["tasks"] = tables["tasks"](**config.tasks)  # type: ignore[operator]
    parts["data"] = tables["data"](root=config.data_root, **config.data)  # type: ignore[operator]
    groups = [  # in settings a bool takes a value, as in a file: --training.flip False
        (name, tyro.conf.FlagConversionOff[type(value)], field(default=value))
        for name, value in parts.items()
    ]
    args = tyro.conf.UseAppendAction[tyro.conf.DisallowNone[kind]]
    args = ("args", Annotated[args, tyro.conf.arg(name="")], field(default_factory=kind))
    command = make_dataclass("Command", [args, *groups])
    command.__doc__ = kind.__doc__
    return command


def config_files(arguments: Sequence[str]) -> list[str]:
    """The values of every `--config F` or `--config=F`, in order."""
    parts = (flag.split("=", 1) if flag.startswith("--config=") else [flag] for flag in arguments)
    return [value for flag, value in pairwise(chain(*parts)) if flag == "--config"]


def removed(arguments: Sequence[str]) -> tuple[list[Layer], list[str]]:
    """What `--data.scenes none` and the like say, as layers; and the other arguments. Raises
    UserError for an entry of which another flag sets something."""
    layers: list[Layer] = []
    others: list[str] = []
    words = iter(arguments)
    for flag in words:
        name, _, value = flag.partition("=")
        table, _, entry = setting_of(name).partition(".")
        if table not in TABLES or not entry or "." in entry or entry == "root":
            others.append(flag)
            continue
        value = value or next(words, "")
        if value != NONE:
            raise UserError(f"{name} {value}: an entry as a whole can only be {NONE}.")
        layers.append((f"{name} {NONE}", {table: {entry: NONE}}))
    for where, (table, (entry, *_)) in ((where, *values.items()) for where, values in layers):
        if entry in entries(others)[table]:
            raise UserError(f"{where}: other flags set something of it. Leave one out.")
    return layers, others


def setting_of(flag: str) -> str:
    """`training.lr` of `--training.lr` and `--training.lr=1`; "" of what sets no setting."""
    key = re.match(rf"--((?:{'|'.join([*GROUPS, *TABLES])})\.[\w.-]+)", flag)
    return key[1].replace("-", "_") if key else ""


def entries(arguments: Sequence[str]) -> dict[str, list[str]]:
    """Table entries that flags name, such as normals of `--tasks.normals.weight 2`."""
    keys = (setting_of(flag).split(".") for flag in arguments)
    named = [key for key in keys if len(key) > 2 and key[1] in TABLES.get(key[0], ())]
    return {table: [name for group, name, *_ in named if group == table] for table in TABLES}
