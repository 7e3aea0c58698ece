"""Ladders: families of training runs that differ in what scales, told in one file.

A ladder has stages, a stage has rungs, a rung is one `train.py` run. The axes are settings of
`train.py` by their dotted names: `model.name` (size, experts), `training.images`,
`data.<source>.count` (distinct samples), `data.<source>.size` (resolution), `training.seed`. Each
rung of a later stage starts from the weights of each rung of the stage before, so that pretraining
images and amounts of fine-tuning are axes too; a first stage may start from runs that are there
already (`from: [runs/ladder-depth/train/*]`).

    out: runs/ladder-depth
    config: {tasks: {depth: {}}, ...}      # settings of all rungs, as in a config of train.py
    stages:
      train:
        tune: {by: model.name, factors: [0.5, 1, 2], images: 4000}
        grid:                              # blocks; in each, every combination of its lists
          - {model.name: [DiT-32x2/8, DiT-64x3/8], training.images: [4000, 16000]}
    held_out:                              # of the last stage: forecast first, then run
      - {model.name: DiT-160x5/8, training.images: 96000}

Learning rates are not guessed: with `tune`, short runs at several factors of them come first for
each value of `by`, and the factor with the lowest validation loss is kept for all its rungs. A rung
is validated once, at its end, so that what is scored has seen all of its images.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, cast

import yaml

from stepsight.errors import UserError
from stepsight.scaling.reading import known, mapping
from stepsight.training.config import TrainingSettings

Settings = dict[str, Any]  # by dotted name
CONFIG = "config.yaml"  # of a run
RATES = ("lr", "muon_lr")  # of training: what a factor multiplies
AT_END = ("first_validation", "validate_every")  # of training: 0, so that the end alone is judged
KEYS = {
    "ladder": ("out", "at_once", "config", "stages", "held_out", "slurm"),
    "stage": ("config", "grid", "tune", "from"),
    "tune": ("by", "factors", "images"),
}


@dataclass(frozen=True)
class Tune:
    """Short runs that choose the factor of the learning rates for each value of `by`."""

    by: str
    factors: tuple[float, ...]
    images: int


@dataclass(frozen=True)
class LadderStage:
    """Runs that share all but what the grid varies."""

    name: str
    config: dict[str, Any]
    settings: tuple[Settings, ...]  # what each rung sets, the grid multiplied out
    tune: Tune | None = None
    start: tuple[str, ...] = ()  # runs that the first stage starts from; may be patterns


@dataclass(frozen=True)
class Rung:
    """One run of `train.py`."""

    name: str  # folder below that of the ladder
    config: dict[str, Any]
    parent: str = ""  # rung, or folder of a run, whose weights it starts from
    settings: Settings = field(default_factory=dict)  # what tells it from its siblings
    factor: float = 1.0  # of the learning rates


@dataclass(frozen=True)
class Ladder:
    """A ladder as its file tells it."""

    out: Path
    stages: tuple[LadderStage, ...]
    held_out: tuple[Settings, ...] = ()
    at_once: int = 2  # rungs at a time on CPUs; on GPUs one each
    slurm: Mapping[str, Any] = field(default_factory=dict)  # parameters of submitit's executor


def read_ladder(path: str | Path) -> Ladder:
    """The ladder of a YAML file.

    Raises:
        UserError: the file does not exist, or says something that no ladder has.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"--config {path} does not exist. Name a ladder, such as configs/ladder-*.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML ({' '.join(str(error).split())}).") from error
    table = known(content, KEYS["ladder"], str(path))
    common = mapping(table.get("config") or {}, f"{path}: config")
    for key in ("out", "stages"):
        if not table.get(key):
            raise UserError(f"{path}: lacks '{key}'.")
    stages = [
        _stage(name, stage, common, f"{path}: stages.{name}")
        for name, stage in mapping(table["stages"], f"{path}: stages").items()
    ]
    if any(stage.start for stage in stages[1:]):
        raise UserError(f"{path}: only the first stage starts 'from' runs; others from the last.")
    if any(stage.tune for stage in stages[1:]) or stages[0].tune and stages[0].start:
        raise UserError(f"{path}: 'tune' is for stages that train from scratch.")
    blocks = _multiplied(table.get("held_out") or [{}], f"{path}: held_out")
    at_once = table.get("at_once", 2)
    if type(at_once) is not int or at_once < 1:
        raise UserError(f"{path}: at_once {at_once}: give a positive number.")
    slurm = mapping(table.get("slurm") or {}, f"{path}: slurm")
    out = Path(str(table["out"]))
    return Ladder(out, tuple(stages), tuple(filter(None, blocks)), at_once, slurm)


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
        _rung(stage, settings, parent, factors or {})
        for parent, settings in product(starts, stage.settings)
    ]
    names = Counter(rung.name for rung in runs)
    if twice := [name for name, count in names.items() if count > 1]:
        raise UserError(f"two rungs would be called {twice[0]}: rename one of the runs it is from.")
    return runs


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


def held_out(
    ladder: Ladder,
    parents: Sequence[Rung] | None = None,
    factors: Mapping[Any, float] | None = None,
) -> list[Rung]:
    """The runs that a forecast is made for. A size that was not tuned takes the factor of the last
    one of the grid."""
    last = ladder.stages[-1]
    stage = replace(last, name="held-out", settings=ladder.held_out)
    known = dict(factors or {})
    if last.tune and known:
        largest = list(known.values())[-1]
        known |= {
            settings.get(last.tune.by): known.get(settings.get(last.tune.by), largest)
            for settings in ladder.held_out
        }
    return rungs(stage, parents, known)


def untuned(stage: LadderStage, factors: Mapping[Any, float]) -> list[Any]:
    """The values of `tune.by` none of whose short runs came to a loss."""
    if stage.tune is None:
        return []
    values = dict.fromkeys(settings.get(stage.tune.by) for settings in stage.settings)
    return [value for value in values if value not in factors]


def tuning_rungs(stage: LadderStage) -> list[Rung]:
    """The short runs that choose learning rates: no evaluation, the loss is enough."""
    if stage.tune is None:
        return []
    tune = stage.tune
    first: dict[Any, Settings] = {}
    for settings in stage.settings:
        first.setdefault(settings.get(tune.by), settings)
    short = {"training.images": tune.images, "training.evaluate": False}
    short_runs = []
    for settings, factor in product(first.values(), tune.factors):
        tuning = replace(stage, name=f"tune-{stage.name}")
        value = settings.get(tune.by)
        rung = _rung(tuning, settings | short, None, {value: factor})
        short_runs.append(
            replace(rung, name=f"tune-{stage.name}/{_slug({tune.by: value})}-x{factor:g}")
        )
    return short_runs


def best_factors(stage: LadderStage, losses: Mapping[str, float]) -> dict[Any, float]:
    """The factor of the lowest loss for each value of `tune.by`, given the losses of the tuning
    runs by name; runs that failed have none."""
    lowest: dict[Any, tuple[float, float]] = {}
    for rung in tuning_rungs(stage):
        assert stage.tune is not None
        value, loss = rung.settings.get(stage.tune.by), losses.get(rung.name)
        if loss is not None and loss < lowest.get(value, (float("inf"), 1.0))[0]:
            lowest[value] = (loss, rung.factor)
    return {value: factor for value, (_, factor) in lowest.items()}


def images_of(config: Mapping[str, Any]) -> int:
    """How many images a run of these settings sees: whole batches."""
    given, usual = config.get("training", {}), TrainingSettings()
    batch = int(given.get("batch", usual.batch))
    return int(given.get("images", usual.images)) // batch * batch


def _stage(name: str, content: Any, common: Mapping[str, Any], where: str) -> LadderStage:
    table = known(content, KEYS["stage"], where)
    config = merged(common, mapping(table.get("config") or {}, f"{where}.config"))
    settings = _multiplied(table.get("grid") or [{}], f"{where}.grid")
    tune, start = table.get("tune"), table.get("from") or []
    if not isinstance(start, list) or any(Path(str(folder)).is_absolute() for folder in start):
        raise UserError(f"{where}.from: give a list of run folders, relative to where you are.")
    tuned = _tune(tune, settings, where) if tune else None
    return LadderStage(name, config, tuple(settings), tuned, tuple(start))


def _tune(content: Any, settings: Sequence[Settings], where: str) -> Tune:
    """What to tune. Raises UserError for what cannot be."""
    table = known(content, KEYS["tune"], f"{where}.tune")
    if missing := [key for key in KEYS["tune"] if key not in table]:
        raise UserError(f"{where}.tune: lacks {', '.join(missing)}.")
    if not all(table["by"] in varied for varied in settings):
        raise UserError(f"{where}.tune: {table['by']} is not varied by every block of the grid.")
    factors, images = table["factors"], table["images"]
    numbers = isinstance(factors, list) and all(
        isinstance(factor, int | float) for factor in factors
    )
    if not numbers or not all(factor > 0 for factor in factors) or len({*factors}) < len(factors):
        raise UserError(f"{where}.tune.factors: {factors}: give a list such as [0.5, 1, 2].")
    if type(images) is not int or images < 1:
        raise UserError(f"{where}.tune.images: {images}: give a number of images.")
    return Tune(table["by"], tuple(map(float, factors)), images)


def _multiplied(blocks: Any, where: str) -> list[Settings]:
    """Every combination of the lists in each block."""
    if not isinstance(blocks, list):
        raise UserError(f"{where}: give a list of blocks, each with dotted names of settings.")
    combinations: list[Settings] = []
    for block in blocks:
        block = mapping(block, where)
        choices = [value if isinstance(value, list) else [value] for value in block.values()]
        combinations += [dict(zip(block, combination)) for combination in product(*choices)]
    names = [_slug(settings) for settings in combinations]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UserError(f"{where}: {min(twice)} comes twice.")
    return combinations


def _rung(
    stage: LadderStage, settings: Settings, parent: Rung | None, factors: Mapping[Any, float]
) -> Rung:
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
    slug = _slug(settings) or "run"
    place = f"{parent.name.rpartition('/')[2]}+{slug}" if parent else slug
    name = f"{stage.name}/{place}"
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


def _slug(settings: Settings) -> str:
    """Such as `DiT-32x2-8_images-4000`: short, and safe as the name of a folder."""
    return "_".join(_parts(settings))


def _parts(settings: Settings) -> Iterator[str]:
    for name, value in settings.items():
        text = re.sub(r"[^\w.]+", "-", str(value)).strip("-")
        yield text if name == "model.name" else f"{name.rpartition('.')[2]}-{text}"
