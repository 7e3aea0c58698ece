"""One run, described: composes the settings of the rooms, and reads them from files and flags.

Defaults < file(s) < command line. `tasks` and `data` are tables (name -> settings): a file that
has one replaces it as a whole, a flag changes or adds an entry. Unknown keys are errors with a
suggestion, and what was resolved is written back as YAML that reads the same.
Only the standard library, OmegaConf and tyro are imported, so that `--help` and typos are quick.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields, is_dataclass, make_dataclass, replace
from pathlib import Path
from typing import Any

from stepsight.data.config import TABLE as SOURCES
from stepsight.data.config import SourceSettings
from stepsight.diffusion.config import DiffusionSettings
from stepsight.errors import UserError, suggest
from stepsight.evaluation.config import EvaluationSettings
from stepsight.models.config import CodecSettings, ModelSettings
from stepsight.tasks.config import TABLE as TASKS
from stepsight.tasks.config import TaskSettings
from stepsight.training.config import TrainingSettings

GROUPS: dict[str, type] = {
    "model": ModelSettings,
    "codec": CodecSettings,
    "diffusion": DiffusionSettings,
    "training": TrainingSettings,
    "evaluation": EvaluationSettings,
}
TABLES: dict[str, Mapping[str, type]] = {"tasks": TASKS, "data": SOURCES}
DEFAULT_TABLES = {
    "tasks": {"depth": {}, "flow": {}, "amodal": {}, "semantic": {}},
    "data": {"scenes": {}},
}
Layer = tuple[str, Mapping[str, Any]]  # where settings come from, and they themselves


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run does."""

    tasks: dict[str, TaskSettings]
    data: dict[str, SourceSettings]
    data_root: str = ""  # prefix of the sources' own roots; `data.root` in files and flags
    model: ModelSettings = field(default_factory=ModelSettings)
    codec: CodecSettings = field(default_factory=CodecSettings)
    diffusion: DiffusionSettings = field(default_factory=DiffusionSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)

    @property
    def own_errors(self) -> bool:
        """Whether tasks are trained on errors of their own, else on squared ones: they are of x0 in
        pixels, so that "auto" means them where that is what the backbone answers."""
        if self.training.loss != "auto":
            return self.training.loss == "task"
        return self.own_errors_possible

    @property
    def own_errors_possible(self) -> bool:
        settings = self.diffusion
        own = settings.prediction == "x" and settings.weighting == "uniform"
        return own and settings.variance == "ignored" and not self.codec.path

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, in the form of a config file."""
        data = {"root": self.data_root} | {name: _plain(one) for name, one in self.data.items()}
        groups = {name: _plain(getattr(self, name)) for name in GROUPS}
        tasks = {name: _plain(one) for name, one in self.tasks.items()}
        return {"model": groups["model"], "tasks": tasks, "data": data} | groups

    def to_yaml(self) -> str:
        from omegaconf import OmegaConf

        return OmegaConf.to_yaml(OmegaConf.create(self.to_dict()))

    def fingerprint(self) -> str:
        """12 hex digits that change with any setting."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def from_dict(values: Mapping[str, Any], where: str = "config") -> RunConfig:
    """A RunConfig from nested plain values. Raises UserError naming `where` and the key."""
    _refuse_unknown(values, _shape(values, where), where)
    return _checked(_compose(_shape(values, where), [(where, values)]))


# Settings that are younger than some checkpoints, with what those did: a stored configuration is
# complete, so that one without such a key is older than it.
BEFORE: dict[tuple[str, ...], Any] = {
    ("tasks", "flow", "fine_window"): 0,
    ("tasks", "flow", "costs"): False,
    ("tasks", "flow", "look"): False,
    ("training", "rows"): {"start": 0.0, "rollout": 0.0, "denoise": 1.0},
    ("training", "loss"): "squared",
    ("evaluation", "temperature"): 1.0,
    ("evaluation", "views"): "none",
}


def as_it_was(values: Mapping[str, Any]) -> dict[str, Any]:
    """A stored configuration with the settings that its version did not have yet."""
    whole = deepcopy(dict(values))
    for (*path, key), value in BEFORE.items():
        node: Any = whole
        for name in path:
            node = node.get(name) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node.setdefault(key, deepcopy(value))
    return whole


def load(
    files: Sequence[str],
    flags: Sequence[str] = (),
    door: type | None = None,
    prog: str = "train.py",
) -> tuple[RunConfig, Any]:
    """Defaults, then `files`, then command-line `flags`.

    `door` is a dataclass of a program's own flags, parsed beside the groups; the second value is an
    instance of it. Raises UserError for files; a wrong flag exits with status 2, as does `--help`
    with 0, from the command-line library.
    """
    layers = [(name, _read(name)) for name in files]
    for name, values in layers:
        _refuse_unknown(values, _shape(values, name), name)
    layers, tables = _last_tables(layers)
    shape = _shape(_with_flagged_entries(tables, flags), prog)
    config = _compose(shape, layers)
    return _parse_flags(shape, config, flags, door, prog)


def _last_tables(layers: Sequence[Layer]) -> tuple[list[Layer], dict[str, Any]]:
    """The layers without the tables that a later one replaces, and the tables that remain."""
    kept: list[Layer] = []
    tables: dict[str, Any] = {}
    for where, values in reversed(layers):
        kept.insert(0, (where, {key: one for key, one in values.items() if key not in tables}))
        own = {table: values[table] for table in TABLES if values.get(table) is not None}
        tables = own | tables
    return kept, tables


def _parse_flags(
    shape: type, config: RunConfig, flags: Sequence[str], door: type | None, prog: str
) -> tuple[RunConfig, Any]:
    import tyro

    own = [
        (f.name, tyro.conf.UseAppendAction[f.type], field(default=f.default))
        for f in (fields(door) if door else ())
    ]
    values = _as_shape(shape, config)
    groups = [  # in settings a bool takes a value, as in a file: --training.flip False
        (f.name, tyro.conf.FlagConversionOff[f.type], field(default=getattr(values, f.name)))
        for f in fields(shape)
    ]
    command = make_dataclass("Command", [*own, *groups])
    command.__doc__ = door.__doc__ if door else RunConfig.__doc__
    parsed = tyro.cli(command, args=list(flags), prog=prog)
    config = _whole(_checked(_assemble(parsed)))
    return config, door and door(**{name: getattr(parsed, name) for name, *_ in own})


def _as_shape(shape: type, config: RunConfig) -> Any:
    parts: dict[str, Any] = {name: getattr(config, name) for name in GROUPS}
    kinds = {f.name: f.type for f in fields(shape)}
    parts["tasks"] = kinds["tasks"](**config.tasks)  # type: ignore[operator]
    parts["data"] = kinds["data"](root=config.data_root, **config.data)  # type: ignore[operator]
    return shape(**parts)


def _shape(values: Mapping[str, Any], where: str) -> type:
    """The dataclass of this run: the groups, and one field an entry of each table."""
    specs: list[tuple[str, Any, Any]] = []
    for table, rows in TABLES.items():
        entries = values.get(table)
        entries = DEFAULT_TABLES[table] if entries is None else entries
        if not isinstance(entries, Mapping):
            raise UserError(
                f"{where}: '{table}' must be a table, name: {{settings}}, not {entries!r}."
            )
        names = [name for name in entries if (table, name) != ("data", "root")]
        if table == "data" and not names:
            names = list(DEFAULT_TABLES["data"])
        for name in names:
            if name not in rows:
                raise UserError(f"{where}: '{table}.{name}' unknown.{suggest(str(name), rows)}")
        root = [("root", str, field(default=""))] if table == "data" else []
        kind = make_dataclass(
            table.capitalize(),
            root + [(name, rows[name], field(default_factory=rows[name])) for name in names],
            frozen=True,
        )
        kind.__doc__ = f"Settings of the {table} of this run, by name."
        specs.append((table, kind, field(default_factory=kind)))
    specs += [(name, kind, field(default_factory=kind)) for name, kind in GROUPS.items()]
    return make_dataclass("Run", specs, frozen=True)


def _with_flagged_entries(tables: dict[str, Any], flags: Sequence[str]) -> dict[str, Any]:
    """Add table entries that only a flag names, such as `--tasks.normals.weight 2`."""
    tables = {table: dict(tables.get(table) or DEFAULT_TABLES[table]) for table in TABLES}
    for flag in flags:
        found = re.match(r"--(tasks|data)\.([\w-]+)\.", flag)
        if found and found[2].replace("-", "_") in TABLES[found[1]]:
            tables[found[1]].setdefault(found[2].replace("-", "_"), {})
    return tables


def _compose(shape: type, layers: Sequence[Layer]) -> RunConfig:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    node = OmegaConf.structured(shape)
    for where, values in layers:
        try:
            node = OmegaConf.merge(node, OmegaConf.create(dict(values)))
        except OmegaConfBaseException as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{where}: '{error.full_key}': {reason}.") from None
    return _assemble(OmegaConf.to_object(node))


def _refuse_unknown(values: Mapping[str, Any], shape: Any, where: str, path: str = "") -> None:
    if not isinstance(values, Mapping):
        raise UserError(
            f"{where}: '{path.rstrip('.')}' must be a table of settings, not {values!r}."
        )
    known = {f.name: f.type for f in fields(shape)}
    for key, value in values.items():
        if key not in known:
            raise UserError(f"{where}: '{path}{key}' unknown.{suggest(str(key), known)}")
        kind = known[key]
        if is_dataclass(kind) and value is not None:
            _refuse_unknown(value, kind, where, f"{path}{key}.")
        elif isinstance(kind, str) and kind.startswith("tuple[") and not _fits(value, kind):
            raise UserError(f"{where}: '{path}{key}' must be {kind}, not {value!r}.")


def _fits(value: Any, kind: str) -> bool:
    """Whether a list from a file is a `tuple[int, int]`, `tuple[int, ...]` and the like."""
    first, *others = kind.removeprefix("tuple[").removesuffix("]").split(", ")
    allowed = {"int": (int,), "float": (int, float), "str": (str,)}[first]
    counts = others == ["..."] or (isinstance(value, Sequence) and len(value) == 1 + len(others))
    return counts and isinstance(value, list | tuple) and all(type(x) in allowed for x in value)


def _assemble(parsed: Any) -> RunConfig:
    """From an instance of a run's shape to a RunConfig."""
    data = {f.name: getattr(parsed.data, f.name) for f in fields(parsed.data)}
    return RunConfig(
        tasks={f.name: _tupled(getattr(parsed.tasks, f.name)) for f in fields(parsed.tasks)},
        data_root=data.pop("root"),
        data={name: _tupled(one) for name, one in data.items()},
        **{name: _tupled(getattr(parsed, name)) for name in GROUPS},
    )


def _checked(config: RunConfig) -> RunConfig:
    """Refuse values that no single type can: each message names the key."""
    training = config.training
    for key in ("images", "batch", "accumulate", "keep", "validation_images"):
        if getattr(training, key) < 1:
            raise UserError(f"training.{key}={getattr(training, key)}: must be at least 1.")
    for key in ("log_every", "validate_every", "first_validation", "checkpoint_every", "images"):
        value = getattr(training, key)
        if value < 0 or value % training.batch:
            near = max(value // training.batch, 1) * training.batch
            raise UserError(
                f"training.{key}={value} is not a multiple of training.batch={training.batch}. "
                f"Use {near}."
            )
    shares = {f.name: getattr(training.rows, f.name) for f in fields(training.rows)}
    for key, value in shares.items():
        if not 0 <= value <= 1:
            raise UserError(f"training.rows.{key}={value}: a share, from 0 to 1.")
    if not training.rows.start + training.rows.denoise:
        raise UserError("training.rows: start and denoise are both 0. Give one of them a share.")
    if training.rows.rollout > training.rows.start:
        raise UserError(
            f"training.rows.rollout={training.rows.rollout}: walks go on from starts, of which "
            f"there are {training.rows.start}. Use that or less."
        )
    for key in ("temperature", "views"):
        if getattr(config.diffusion, key) != getattr(DiffusionSettings(), key):
            raise UserError(
                f"diffusion.{key} is what a sampler is told, case by case: how this model answers "
                f"unless it is asked otherwise is evaluation.{key}."
            )
    for key in ("nfe", "members", "batch"):
        if getattr(config.evaluation, key) < 1:
            raise UserError(f"evaluation.{key}={getattr(config.evaluation, key)}: at least 1.")
    for key in ("sweep_nfe", "sweep_members"):
        if min(getattr(config.evaluation, key), default=0) < 1:
            raise UserError(f"evaluation.{key}: give one or more numbers, each at least 1.")
    if not config.tasks or not config.data:
        raise UserError("a run needs at least one entry under tasks and one under data.")
    for table in ("tasks", "data"):
        for name, one in getattr(config, table).items():
            if not 0 <= one.weight < math.inf:
                raise UserError(
                    f"{table}.{name}.weight={one.weight}: must be 0 or more, and finite."
                )
    return config


def _whole(config: RunConfig) -> RunConfig:
    """The configuration with the U-Net it names by a file written out, so that it can move."""
    text = config.model.unet
    if not text or text.lstrip().startswith("{") or not Path(text).is_file():
        return config  # what is neither is refused where it is read
    return replace(config, model=replace(config.model, unet=Path(text).read_text()))


def _tupled(settings: Any) -> Any:
    """Lists back to tuples: YAML knows only lists, and settings are hashable."""
    values = {f.name: getattr(settings, f.name) for f in fields(settings)}
    return type(settings)(
        **{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    )


def _plain(settings: Any) -> dict[str, Any]:
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in asdict(settings).items()
    }


def _read(name: str) -> dict[str, Any]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    path = Path(name)
    if not path.is_file():
        found = [
            str(one) for folder in (path.parent, Path("configs")) for one in folder.glob("*.yaml")
        ]
        raise UserError(f"config file {name} not found.{suggest(name, found)}")
    try:
        values = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise UserError(f"{name}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"{name}: must hold a table of settings (model, tasks, data, ...).")
    return {str(key): value for key, value in values.items()}
