"""Scores of the trivial predictors of a world or data set: what a model has to beat.

Some of them learn from the training split, so none of its images may be among those scored.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from stepsight.cli.data.opening import add_images_flag, add_source_flags, settings_of, split_of
from stepsight.errors import UserError

if TYPE_CHECKING:
    from stepsight.data.config import SourceSettings
    from stepsight.data.table import Source

IMAGES = 512


def add_flags(own: argparse.ArgumentParser) -> None:
    add_source_flags(own, "the one for evaluation")
    add_images_flag(own, IMAGES)
    own.add_argument("--json", action="store_true")


def run(door: argparse.Namespace) -> int:
    from stepsight.data.table import open_source
    from stepsight.evaluation.bounds.trivial import trivial_metrics
    from stepsight.metrics.protocol import default_for

    settings = settings_of(door, door.images)
    learned_on, split = splits_of(door, settings)
    held = open_source(settings, split)
    train, reason = open_apart(settings, learned_on, split)
    found: dict[str, Any] = {}
    for name, task in _tasks(held).items():
        protocol = default_for(name)
        metrics = trivial_metrics(task, train, held, protocol.name, door.images)
        found[name] = {"protocol": protocol.id, "baselines": metrics}
    count = min(door.images, len(held))
    if door.json:
        about = {"data": door.name, "split": split, "learned_on": learned_on if train else None}
        print(json.dumps(about | {"images": count, "tasks": found}))
        return 0
    print(f"{door.name}: trivial predictors over {count} images at {held.size[0]}x{held.size[1]}")
    if reason:
        print(f"learned predictors left out: {reason}")
    _print_table(found)
    return 0


def splits_of(door: argparse.Namespace, settings: SourceSettings) -> tuple[str, str]:
    """The split to learn from, and the one to score: that of the flags, or else the settings'."""
    from stepsight.data.config import FileSettings

    if isinstance(settings, FileSettings):
        return settings.split, door.split or settings.eval_split
    return "train", split_of(door)


def open_apart(settings: SourceSettings, train: str, held: str) -> tuple[Source | None, str]:
    """The training split, unless it shares images with what is scored or is not there; or why not.

    `all` shares images with every split.
    """
    from stepsight.data.table import open_source

    if train == held or "all" in (train, held):
        return None, f"split '{train}' is, at least in part, what is scored."
    try:
        return open_source(settings, train), ""
    except UserError as error:
        return None, str(error)


def _print_table(found: dict[str, Any]) -> None:
    from stepsight.measures import headline, measure, number

    for name, one in found.items():
        print(f"{name}  ({one['protocol']})")
        for baseline, metrics in one["baselines"].items():
            shown = [f"{measure(m).label} {number(metrics[m])}" for m in headline(name, metrics)]
            print(f"  {baseline:<18}{'   '.join(shown)}")


def _tasks(source: Any) -> dict[str, Any]:
    """The tasks that the source has the truth of."""
    from stepsight.tasks.config import TABLE
    from stepsight.tasks.table import build_tasks

    options = {
        "semantic": {"classes": len(source.classes) or 7},
        "image": {"classes": len(source.categories) or 8},
    }
    settings = {name: kind(**options.get(name, {})) for name, kind in TABLE.items()}
    tasks = build_tasks(settings)
    return {name: task for name, task in tasks.items() if task.needs in source.quantities}
