"""`stepsight data stats`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stepsight.cli.sources import SourceArgs
from stepsight.errors import UserError

if TYPE_CHECKING:
    from stepsight.data.config import SourceSettings
    from stepsight.data.table import Source


@dataclass(frozen=True, kw_only=True)
class Args(SourceArgs):
    """Scores of the trivial predictors of a world or data set: what a model has to beat.

    Some of them learn from the training split, so none of its images may be among those scored.
    """

    split: str | None = None  # default: the one for evaluation
    images: int = 512  # scored
    json: bool = False  # print JSON


def run(args: Args) -> int:
    from stepsight.data.table import having, open_source
    from stepsight.evaluation.bounds import trivial_metrics
    from stepsight.metrics.protocol import default_for

    settings = args.settings(args.images)
    learned_on, split = splits_of(args, settings)
    held = open_source(settings, split)
    train, reason = open_apart(settings, learned_on, split)
    tasks: dict[str, Any] = {}
    count = min(args.images, len(held))
    for name, task in _tasks(held).items():
        needs = frozenset({task.target_field})
        scored, learned = having(held, needs), train and having(train, needs)
        assert scored is not None, "of the tasks that it has truth for"
        protocol = default_for(name)
        metrics = trivial_metrics(task, learned, scored, protocol.name, args.images)
        tasks[name] = {"protocol": protocol.id, "baselines": metrics}
        if len(scored) < len(held):  # said where it is not the count of all
            tasks[name] |= {"images": min(args.images, len(scored))}
    if args.json:
        about = {"data": args.name, "split": split, "learned_on": learned_on if train else None}
        print(json.dumps(about | {"images": count, "tasks": tasks}))
        return 0
    print(f"{args.name}: trivial predictors over {count} images at {held.size[0]}x{held.size[1]}")
    if reason:
        print(f"learned predictors left out: {reason}")
    _print_table(tasks)
    return 0


def splits_of(args: Args, settings: SourceSettings) -> tuple[str, str]:
    """The split to learn from, and the one to score: that of the flags, or else the settings'."""
    from stepsight.data.config import FileSettings

    if isinstance(settings, FileSettings):
        return settings.split, args.split or settings.eval_split
    return "train", args.chosen_split


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


def _print_table(tasks: dict[str, Any]) -> None:
    from stepsight.measures import headline, measure, number

    for name, scores in tasks.items():
        few = f", {scores['images']} images with its truth" if "images" in scores else ""
        print(f"{name}  ({scores['protocol']}{few})")
        for baseline, metrics in scores["baselines"].items():
            shown = [f"{measure(m).label} {number(metrics[m])}" for m in headline(name, metrics)]
            print(f"  {baseline:<18}{'   '.join(shown)}")


def _tasks(source: Any) -> dict[str, Any]:
    """The tasks that the source has the truth of."""
    from stepsight.tasks.config import TABLE
    from stepsight.tasks.table import build_tasks

    tasks = build_tasks({name: kind.for_source(source) for name, kind in TABLE.items()})
    return {name: task for name, task in tasks.items() if task.target_field in source.quantities}
