"""One run, described: composes the settings of the rooms, and reads them from files.

Defaults < file(s) < command line (`cli.flags`). `tasks` and `data` are tables (name -> settings): a
file that has one replaces it as a whole, a flag changes or adds an entry, and an entry that is
`none` is removed (a file that only removes entries leaves the others). The default source is left
out where flags name other ones. Unknown keys are errors
with a suggestion, a refused value is reported with the file or flag that gave it, and what was
resolved is written back as YAML that reads the same.
Only the standard library and OmegaConf are imported, so that `--help` and typos are quick.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields, is_dataclass, make_dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from stepsight.config.files import Origins, keys_of, naming, read
from stepsight.config.tables import (
    TABLE_HELP,
    TABLES,
    Layer,
    last_tables,
    with_default,
    with_named,
    without_removed,
)
from stepsight.data.config import SourceSettings
from stepsight.diffusion.config import DiffusionSettings
from stepsight.errors import UserError, suggest
from stepsight.evaluation.config import EvaluationSettings
from stepsight.models.config import CodecSettings, ModelSettings
from stepsight.tasks.config import KNOWN as TASKS
from stepsight.tasks.config import TaskSettings
from stepsight.training.config import TrainingSettings

GROUPS: dict[str, type] = {
    "model": ModelSettings,
    "codec": CodecSettings,
    "diffusion": DiffusionSettings,
    "training": TrainingSettings,
    "evaluation": EvaluationSettings,
}


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
        x0 = settings.prediction == "x" and settings.weighting == "uniform"
        return x0 and settings.variance == "ignored" and not self.codec.path

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, in the form of a config file."""
        data = {"root": self.data_root} | {name: _plain(row) for name, row in self.data.items()}
        groups = {name: _plain(getattr(self, name)) for name in GROUPS}
        tasks = {name: _plain(row) for name, row in self.tasks.items()}
        return {"model": groups["model"], "tasks": tasks, "data": data} | groups

    def to_yaml(self) -> str:
        from omegaconf import OmegaConf

        return OmegaConf.to_yaml(OmegaConf.create(self.to_dict()))

    def fingerprint(self) -> str:
        """12 hex digits that change with any setting."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


class Draft(NamedTuple):
    """The settings of files, to be changed by flags and then `checked`."""

    shape: type  # the dataclass of this run: the groups, and a field per entry of each table
    config: RunConfig
    origins: dict[str, str]


def from_dict(values: Mapping[str, Any], where: str = "config") -> RunConfig:
    """A RunConfig from nested plain values. Raises UserError naming `where` and the key."""
    return checked(*drafted([(where, values)])[1:])


def load(files: Sequence[str]) -> RunConfig:
    """The defaults, changed by `files` in their order. Raises UserError naming file and key."""
    return checked(*drafted([(name, read(name)) for name in files])[1:])


def drafted(layers: Sequence[Layer], entries: Mapping[str, Sequence[str]] = {}) -> Draft:
    """The layers composed, the last one winning; `entries` adds empty ones to the tables.

    Raises UserError naming the layer and the key that is unknown or has a value of another type.
    """
    cut = [without_removed(layer) for layer in layers]
    layers, removed = [layer for layer, _ in cut], [gone for _, gone in cut]
    for where, values in layers:
        _refuse_unknown(values, _shape(values, where), where)
    kept, tables = last_tables(layers, removed)
    tables = with_named(tables, entries)
    shape = _shape(tables, "config")
    origins = {key: where for where, values in kept for key in keys_of(values)}
    return Draft(shape, _compose(shape, kept), origins)


def checked(config: RunConfig, origins: Origins) -> RunConfig:
    """The configuration, once it is known that a run can have it. Raises UserError naming the key
    and, from `origins`, the file or flag that gave its value."""
    with naming(config.to_dict(), origins):
        _check(config)
    return config


# Settings that are younger than some checkpoints, with what those did: a stored configuration is
# complete, so that one without such a key is older than it.
BEFORE: dict[tuple[str, ...], Any] = {
    ("training", "rows"): {"start": 0.0, "rollout": 0.0, "denoise": 1.0},
    ("training", "loss"): "squared",
    ("evaluation", "temperature"): 1.0,
    ("evaluation", "views"): "none",
    ("data", "folder", "holdout"): 0.0,
}


def as_it_was(values: Mapping[str, Any]) -> dict[str, Any]:
    """A stored configuration with the settings that its version did not have yet."""
    whole = deepcopy(dict(values))
    training = whole.get("training") or {}
    training.pop("accumulate", None)  # micro_batch came in its place
    if training.get("precision") in ("no", False):  # as YAML of old may read it
        training["precision"] = "float32"
    codec = whole.get("codec") or {}
    if (dtype := codec.pop("dtype", None)) is not None:
        codec["precision"] = {"bfloat16": "bf16"}.get(dtype, dtype)
    before = BEFORE | {
        ("tasks", name, key): value
        for name in whole.get("tasks") or {}
        for key, value in (TASKS[name].older if name in TASKS else {}).items()
    }
    for (*path, key), value in before.items():
        node: Any = whole
        for name in path:
            node = node.get(name) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node.setdefault(key, deepcopy(value))
    return whole


def _shape(values: Mapping[str, Any], where: str) -> type:
    """The dataclass of this run: the groups, and one field per entry of each table."""
    chosen: list[tuple[str, tuple[tuple[str, type], ...]]] = []
    for table, rows in TABLES.items():
        entries = values.get(table)
        if not isinstance(entries, Mapping | None):
            raise UserError(
                f"{where}: '{table}' must be a table, name: {{settings}}, not {entries!r}."
            )
        entries = with_default(table, entries)
        names = [name for name in entries if not (table == "data" and name == "root")]
        for name in names:
            if name not in rows:
                raise UserError(f"{where}: '{table}.{name}' unknown.{suggest(str(name), rows)}")
        chosen.append((table, tuple((name, rows[name]) for name in names)))
    return _run(tuple(chosen))


@lru_cache(maxsize=64)  # with its node, half of what reading a configuration takes
def _run(tables: tuple[tuple[str, tuple[tuple[str, type], ...]], ...]) -> type:
    """The dataclass of runs with these entries."""
    specs: list[tuple[str, Any, Any]] = []
    for table, entries in tables:
        root = [("root", str, field(default=""))] if table == "data" else []
        rows = [(name, kind, field(default_factory=kind)) for name, kind in entries]
        kind = make_dataclass(table.capitalize(), root + rows, frozen=True)
        kind.__doc__ = TABLE_HELP[table]
        specs.append((table, kind, field(default_factory=kind)))
    specs += [(name, kind, field(default_factory=kind)) for name, kind in GROUPS.items()]
    return make_dataclass("Run", specs, frozen=True)


@lru_cache(maxsize=64)
def _node(shape: type) -> Any:
    """What OmegaConf makes of a shape; merging copies it."""
    from omegaconf import OmegaConf

    return OmegaConf.structured(shape)


def _compose(shape: type, layers: Sequence[Layer]) -> RunConfig:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    node = _node(shape)
    for where, values in layers:
        try:
            node = OmegaConf.merge(node, OmegaConf.create(dict(values)))
        except OmegaConfBaseException as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{where}: '{error.full_key}': {reason}.") from None
    return assembled(OmegaConf.to_object(node))


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


def assembled(parsed: Any) -> RunConfig:
    """From an instance of a run's shape to a RunConfig."""
    data = {f.name: getattr(parsed.data, f.name) for f in fields(parsed.data)}
    return RunConfig(
        tasks={f.name: _tupled(getattr(parsed.tasks, f.name)) for f in fields(parsed.tasks)},
        data_root=data.pop("root"),
        data={name: _tupled(row) for name, row in data.items()},
        **{name: _tupled(getattr(parsed, name)) for name in GROUPS},
    )


def _check(config: RunConfig) -> None:
    """Refuse values that no single type can: each message names the key."""
    training, evaluation, rows = config.training, config.evaluation, config.training.rows
    for key in ("images", "batch", "keep", "validation_images", "spike_cap"):
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
    if training.micro_batch != "auto" and not re.fullmatch(r"[1-9]\d*", training.micro_batch):
        raise UserError(
            f"training.micro_batch={training.micro_batch}: auto, or a number of pictures from 1 up."
        )
    if not 0 < training.rewind_lr <= 1:
        raise UserError(f"training.rewind_lr={training.rewind_lr}: above 0, at most 1.")
    if not 0 <= training.bad_cap <= 1:
        raise UserError(f"training.bad_cap={training.bad_cap}: a share, from 0 to 1.")
    if not 0 < training.decay_share <= 1:
        raise UserError(f"training.decay_share={training.decay_share}: a share, above 0 to 1.")
    if any(images < 1 or images % training.batch for images in training.keep_at):
        raise UserError(f"training.keep_at={[*training.keep_at]}: whole batches of training.batch.")
    for key in ("spike", "save_minutes"):
        if not 0 <= getattr(training, key) < math.inf:
            raise UserError(f"training.{key}={getattr(training, key)}: 0 (off) or more.")
    for key, value in asdict(rows).items():
        if not 0 <= value <= 1:
            raise UserError(f"training.rows.{key}={value}: a share, from 0 to 1.")
    if not rows.start + rows.denoise:
        raise UserError("training.rows: start and denoise are both 0. Give one of them a share.")
    if rows.rollout > rows.start:
        raise UserError(
            f"training.rows.rollout={rows.rollout}: walks go on from starts, of which there are "
            f"{rows.start}. Use that or less."
        )
    for key in ("temperature", "views"):
        if getattr(config.diffusion, key) != getattr(DiffusionSettings(), key):
            raise UserError(
                f"diffusion.{key} is chosen anew for each sample: how this model answers unless it "
                f"is asked otherwise is evaluation.{key}."
            )
    for key in ("nfe", "members", "batch"):
        if getattr(evaluation, key) < 1:
            raise UserError(f"evaluation.{key}={getattr(evaluation, key)}: must be at least 1.")
    for key in ("sweep_nfe", "sweep_members"):
        if min(getattr(evaluation, key), default=0) < 1:
            raise UserError(f"evaluation.{key}: give one or more numbers, each at least 1.")
    if not config.tasks or not config.data:
        raise UserError("a run needs at least one entry under tasks and one under data.")
    for table in TABLES:
        for name, row in getattr(config, table).items():
            if not 0 <= row.weight < math.inf:
                raise UserError(
                    f"{table}.{name}.weight={row.weight}: must be 0 or more, and finite."
                )


def portable(config: RunConfig) -> RunConfig:
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
