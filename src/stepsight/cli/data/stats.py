"""Scores of the trivial predictors of a world or data set: what a model has to beat."""

from __future__ import annotations

import argparse
import json
from typing import Any

from stepsight.cli.data.opening import add_images_flag, add_source_flags, open_named

IMAGES = 512


def add_flags(own: argparse.ArgumentParser) -> None:
    add_source_flags(own)
    add_images_flag(own, IMAGES)
    own.add_argument("--json", action="store_true")


def run(door: argparse.Namespace) -> int:
    from stepsight.evaluation.trivial import trivial_metrics
    from stepsight.metrics.protocol import default_for

    train, held = (open_named(door, door.images, worlds) for worlds in ("train", "eval"))
    found: dict[str, Any] = {}
    for name, task in _tasks(held).items():
        protocol = default_for(name)
        metrics = trivial_metrics(task, train, held, protocol.name, door.images)
        found[name] = {"protocol": protocol.id, "baselines": metrics}
    count = min(door.images, len(held))
    if door.json:
        print(json.dumps({"data": door.name, "images": count, "tasks": found}))
        return 0
    print(f"{door.name}: trivial predictors over {count} images at {held.size[0]}x{held.size[1]}")
    _print_table(found)
    return 0


def _print_table(found: dict[str, Any]) -> None:
    from stepsight.evaluation.measures import headline, measure, number

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
