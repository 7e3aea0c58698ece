"""Ladders: families of training runs that differ in what scales, told in one file.

A ladder has stages, a stage has rungs, a rung is one `train.py` run. The axes are settings of
`train.py` by their dotted names: `model.name` (size, experts), `training.images`,
`data.<source>.count` (distinct samples), `data.<source>.size` (resolution), `training.seed`. Each
rung of a later stage starts from the weights of each rung of the stage before, so that pretraining
images and amounts of fine-tuning are axes too; a first stage may start from runs that are there
already (`from: [runs/ladder-depth/train/*]`), and any may make experts of what it starts from
(`upcycle: {experts: 8, active: 2}`).

    out: runs/ladder-depth
    config: {tasks: {depth: {}}, ...}      # settings of all rungs, as in a config of train.py
    stages:
      train:
        tune: {by: model.name, factors: [0.5, 1, 2], images: 4000}
        grid:                              # blocks; in each, every combination of its lists
          - {model.name: [DiT-32x2/8, DiT-64x3/8], training.images: [4000, 16000]}
    held_out:                              # of the last stage: forecast first, then run
      - {model.name: DiT-160x5/8, training.images: 96000}

Learning rates are not guessed: with `tune`, short runs at several factors of them come first, and
the factor with the lowest validation loss is kept (`tuning`). A rung is validated once, at its end,
so that what is scored has seen all of its images.

With `training.decay: wsd`, rungs that differ in images alone are one long run, the trunk, and
branches that go on from its checkpoints: what they have in common is trained once (`branched`).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, cast

import yaml

from stepsight import config as configuration
from stepsight.errors import UserError
from stepsight.training.config import TrainingSettings

Settings = dict[str, Any]  # by dotted name
CONFIG = "config.yaml"  # of a run
IMAGES = "training.images"
RATES = ("lr", "muon_lr")  # of training: what a factor multiplies
KEEP_AT = "training.keep_at"
AT_END = ("first_validation", "validate_every")  # of training: 0, so that the end alone is judged


@dataclass(frozen=True)
class Tune:
    """Short runs that choose the factor of the learning rates for each value of `by`; with `at`,
    at this value for all of them."""

    by: str
    factors: tuple[float, ...]
    images: int
    at: Any = None


@dataclass(frozen=True)
class UpcycledExperts:
    """What every MLP of a dense model becomes copies of itself in."""

    experts: int
    active: int  # per token

    def of(self, model: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of a dense model, upcycled."""
        name = f"{model['name']}-{self.experts}E{self.active}A"
        return {**model, "name": name, "expert_weights": "renormalised"}


@dataclass(frozen=True)
class LadderStage:
    """Runs that share all but what the grid varies."""

    name: str
    config: dict[str, Any]
    settings: tuple[Settings, ...]  # what each rung sets, the grid multiplied out
    tune: Tune | None = None
    start: tuple[str, ...] = ()  # runs that the first stage starts from; may be patterns
    experts: UpcycledExperts | None = None  # that what it starts from is upcycled to


@dataclass(frozen=True)
class Rung:
    """One run of `train.py`, or, with `experts`, the upcycling of its parent."""

    name: str  # folder below that of the ladder
    config: dict[str, Any]
    parent: str = ""  # rung, or folder of a run, whose weights it starts from
    settings: Settings = field(default_factory=dict)  # what tells it from its siblings
    factor: float = 1.0  # of the learning rates
    trunk: str = ""  # rung whose steps it takes over, up to where its own rates begin to decay
    experts: UpcycledExperts | None = None


@dataclass(frozen=True)
class Ladder:
    """A ladder as its file tells it."""

    out: Path
    stages: tuple[LadderStage, ...]
    held_out: tuple[Settings, ...] = ()
    at_once: int = 2  # rungs at a time on CPUs; on GPUs one each
    slurm: Mapping[str, Any] = field(default_factory=dict)  # parameters of submitit's executor


def rungs(
    stage: LadderStage,
    parents: Sequence[Rung] | None = None,
    factors: Mapping[Any, float] | None = None,
) -> list[Rung]:
    """The runs of a stage, from each of `parents`; None: from each of the runs that the stage
    names, or from scratch.

    factors: of the learning rates, by the value of what they were tuned by (`best_factors`); values
    without one keep theirs.

    Raises:
        UserError: a run to start from is not there.
    """
    starts = (_starts(stage) or [None]) if parents is None else parents
    runs = [
        made(stage, settings, parent, factors or {})
        for parent, settings in product(starts, stage.settings)
    ]
    names = Counter(rung.name for rung in runs)
    if twice := [name for name, count in names.items() if count > 1]:
        raise UserError(f"two rungs would be called {twice[0]}: rename one of the runs it is from.")
    return branched(runs)


def branched(runs: Sequence[Rung]) -> list[Rung]:
    """Rungs, in their order, where those of `training.decay: wsd` that differ in images alone are
    the longest of them and branches off it."""
    alike: dict[str, list[Rung]] = defaultdict(list)
    for rung in runs:
        others = {name: value for name, value in rung.settings.items() if name != IMAGES}
        alike[repr((rung.parent, others))].append(rung)
    changed: dict[str, Rung] = {}
    for family in alike.values():
        trunk, *shorter = sorted(family, key=lambda rung: -images_of(rung.config))
        points = {rung.name: training_of(rung.config).steady for rung in shorter}
        if training_of(trunk.config).decay != "wsd" or not any(points.values()):
            continue
        kept = sorted({point for point in points.values() if point})
        changed[trunk.name] = replace(trunk, config=merged(trunk.config, {KEEP_AT: kept}))
        off = {rung.name: replace(rung, trunk=trunk.name) for rung in shorter if points[rung.name]}
        changed |= off
    return [changed.get(rung.name, rung) for rung in runs]


def upcycled(stage: LadderStage, parents: Sequence[Rung] | None) -> list[Rung] | None:
    """What the rungs of a stage start from: `parents`, or the runs that the stage names, each as
    experts where it asks for them."""
    if stage.experts is None:
        return None if parents is None else [*parents]
    return [
        Rung(
            f"upcycle-{stage.name}/{parent.name.rpartition('/')[2]}",
            parent.config | {"model": stage.experts.of(parent.config["model"])},
            parent.name,
            experts=stage.experts,
        )
        for parent in (_starts(stage) if parents is None else parents)
    ]


def _starts(stage: LadderStage) -> list[Rung]:
    """The runs that a stage starts from, as rungs whose names are their folders."""
    starts: list[Rung] = []
    for pattern in stage.start:
        folders = sorted(path for path in Path().glob(pattern) if (path / CONFIG).is_file())
        if not folders:
            raise UserError(f"stages.{stage.name}.from: there is no run {pattern}. Make it first.")
        for folder in folders:
            config = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
            starts.append(Rung(str(folder.absolute()), {"model": config.get("model", {})}))
    return starts


def training_of(config: Mapping[str, Any], where: str = "config") -> TrainingSettings:
    """Of a run with these settings: its length and its decay; the rest as usual. Raises UserError
    naming `where` for what no run can have."""
    given = config.get("training") or {}
    names = ("images", "batch", "decay", "decay_share")
    return _training(yaml.safe_dump({name: given[name] for name in names if name in given}), where)


@cache
def _training(text: str, where: str) -> TrainingSettings:
    return configuration.from_dict({"training": yaml.safe_load(text)}, where).training


def images_of(config: Mapping[str, Any]) -> int:
    """How many images a run of these settings sees."""
    return training_of(config).images


def own_images(rung: Rung) -> int:
    """How many of them it trains on itself: a branch goes on from those of its trunk."""
    settings = training_of(rung.config)
    return settings.images - (settings.steady if rung.trunk else 0)


def made(
    stage: LadderStage, settings: Settings, parent: Rung | None, factors: Mapping[Any, float]
) -> Rung:
    """The run of a stage with these settings. factors: as of `rungs`. Raises UserError for settings
    that no rung may have."""
    config = merged(stage.config, settings)
    training = config["training"] = dict(config.get("training") or {})
    if early := [name for name in AT_END if training.setdefault(name, 0)]:
        raise UserError(
            f"stages.{stage.name}: training.{early[0]} {training[early[0]]}: a rung is validated "
            "at its end alone, or an earlier checkpoint could be scored in its place. Leave it out."
        )
    factor = factors.get(settings.get(stage.tune.by), 1.0) if stage.tune else 1.0
    if factor != 1:
        usual = TrainingSettings()
        training |= {
            name: factor * _rate(training.get(name, getattr(usual, name)), name) for name in RATES
        }
    if parent is not None and "name" not in config.get("model", {}):
        config["model"] = config.get("model", {}) | parent.config.get("model", {})
    told = slug(settings) or "run"
    place = f"{parent.name.rpartition('/')[2]}+{told}" if parent else told
    name = f"{stage.name}/{place}"
    training_of(config, name)
    return Rung(name, config, parent.name if parent else "", settings, factor)


def _rate(value: Any, name: str) -> float:
    """A learning rate; YAML takes 1e-3 for text."""
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise UserError(f"training.{name} {value}: give a number.") from error


def merged(table: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """Nested tables with settings by their dotted names over them."""
    from omegaconf import OmegaConf  # takes a while to load

    config = OmegaConf.create(dict(table))
    for name, value in settings.items():
        OmegaConf.update(config, name, value, force_add=True)
    return cast("dict[str, Any]", OmegaConf.to_container(config))


def slug(settings: Settings) -> str:
    """Such as `DiT-32x2-8_images-4000`: short, and safe as the name of a folder."""
    return "_".join(_parts(settings))


def _parts(settings: Settings) -> Iterator[str]:
    for name, value in settings.items():
        text = re.sub(r"[^\w.]+", "-", str(value)).strip("-")
        yield text if name == "model.name" else f"{name.rpartition('.')[2]}-{text}"
