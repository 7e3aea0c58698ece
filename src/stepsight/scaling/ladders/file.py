"""The file of a ladder, as `ladder` describes it: read, and refused where it tells of none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from stepsight.errors import UserError
from stepsight.scaling.ladders.ladder import (
    Ladder,
    LadderStage,
    Settings,
    Tune,
    UpcycledExperts,
    merged,
    slug,
)
from stepsight.scaling.reading import known, mapping

KEYS = {
    "ladder": ("out", "at_once", "config", "stages", "held_out", "slurm"),
    "stage": ("config", "grid", "tune", "from", "upcycle"),
    "tune": ("by", "at", "factors", "images"),
    "upcycle": ("experts", "active"),
}


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
    common = _config(table, f"{path}: config")
    for key in ("out", "stages"):
        if not table.get(key):
            raise UserError(f"{path}: lacks '{key}'.")
    stages = [
        _stage(name, stage, common, f"{path}: stages.{name}")
        for name, stage in mapping(table["stages"], f"{path}: stages").items()
    ]
    if stages[0].experts and not stages[0].start:
        raise UserError(f"{path}: the first stage upcycles nothing: give it 'from'.")
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


def _stage(name: str, content: Any, common: Mapping[str, Any], where: str) -> LadderStage:
    table = known(content, KEYS["stage"], where)
    config = merged(common, _config(table, f"{where}.config"))
    settings = _multiplied(table.get("grid") or [{}], f"{where}.grid")
    tune, start = table.get("tune"), table.get("from") or []
    if not isinstance(start, list) or any(Path(str(folder)).is_absolute() for folder in start):
        raise UserError(f"{where}.from: give a list of run folders, relative to where you are.")
    tuned = _tune(tune, settings, config, where) if tune else None
    experts = _experts(table["upcycle"], f"{where}.upcycle") if "upcycle" in table else None
    return LadderStage(name, config, tuple(settings), tuned, tuple(start), experts)


def _config(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The settings under 'config', in tables where dotted names may lead into them."""
    config = _named(table.get("config") or {}, where)
    for name in ("model", "training"):
        _named(config.get(name) or {}, f"{where}.{name}")
    return config


def _named(content: Any, where: str) -> dict[str, Any]:
    """A table whose keys are text. Raises UserError for anything else."""
    table = mapping(content, where)
    if other := [key for key in table if not isinstance(key, str)]:
        raise UserError(f"{where}: {other[0]} is no text: give names of settings.")
    return table


def _experts(content: Any, where: str) -> UpcycledExperts:
    table = known(content, KEYS["upcycle"], where)
    experts, active = table.get("experts", 0), table.get("active", 0)
    whole = type(experts) is int and type(active) is int
    if not whole or not 1 <= active <= experts or experts == 1:
        raise UserError(f"{where}: give experts, and how many of them are active for a token.")
    return UpcycledExperts(experts, active)


def _tune(
    content: Any, settings: Sequence[Settings], config: Mapping[str, Any], where: str
) -> Tune:
    """What to tune. Raises UserError for what cannot be."""
    table: dict[str, Any] = {**known(content, KEYS["tune"], f"{where}.tune")}
    if (at := table.get("at")) is not None:
        table.setdefault("by", "model.name")
    if missing := [key for key in KEYS["tune"] if key not in table and key != "at"]:
        raise UserError(f"{where}.tune: lacks {', '.join(missing)}.")
    if not isinstance(table["by"], str):
        raise UserError(f"{where}.tune.by: {table['by']}: give one name, such as model.name.")
    if not all(table["by"] in varied for varied in settings):
        raise UserError(f"{where}.tune: {table['by']} is not varied by every block of the grid.")
    if at is not None and at not in [varied[table["by"]] for varied in settings]:
        raise UserError(f"{where}.tune.at: the grid has no {table['by']} {at}.")
    if at is not None and (config.get("model") or {}).get("parametrisation") != "mup":
        raise UserError(
            f"{where}.tune.at: the rates of one size serve others with model.parametrisation mup "
            "alone. Set it, or tune 'by' instead."
        )
    factors, images = table["factors"], table["images"]
    numbers = isinstance(factors, list) and all(
        isinstance(factor, int | float) for factor in factors
    )
    if not numbers or not all(factor > 0 for factor in factors) or len({*factors}) < len(factors):
        raise UserError(f"{where}.tune.factors: {factors}: give a list such as [0.5, 1, 2].")
    if type(images) is not int or images < 1:
        raise UserError(f"{where}.tune.images: {images}: give a number of images.")
    return Tune(table["by"], tuple(map(float, factors)), images, at)


def _multiplied(blocks: Any, where: str) -> list[Settings]:
    """Every combination of the lists in each block."""
    if not isinstance(blocks, list):
        raise UserError(f"{where}: give a list of blocks, each with dotted names of settings.")
    combinations: list[Settings] = []
    for block in blocks:
        block = _named(block, where)
        choices = [value if isinstance(value, list) else [value] for value in block.values()]
        combinations += [dict(zip(block, combination)) for combination in product(*choices)]
    names = [slug(settings) for settings in combinations]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UserError(f"{where}: {min(twice)} comes twice.")
    return combinations
