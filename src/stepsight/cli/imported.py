"""`evaluate.py --predictions`: score the files that another program wrote."""

from __future__ import annotations

from pathlib import Path

from stepsight import distributed
from stepsight.cli.door import output_folder
from stepsight.cli.evaluation_flags import Evaluate, open_data, protocols_by_task
from stepsight.cli.show import results_table
from stepsight.data.table import Source
from stepsight.errors import UserError
from stepsight.evaluation.evaluate import assess
from stepsight.evaluation.jobs import Job
from stepsight.evaluation.predictions.files import find_files
from stepsight.evaluation.predictions.imported import Imported, task_of, truth_of
from stepsight.metrics.protocol import Protocol, default_for
from stepsight.report.console import Console
from stepsight.training.fit import join, leave

LISTED = 3  # images without a prediction that are named


def score_files(door: Evaluate) -> None:
    """Score the folder of predictions and write the results to --out."""
    join()
    job = job_of(door)
    out = output_folder(str(door.out))
    with Console(enabled=distributed.rank() == 0) as console:
        console.phase("evaluate", len(job.indices))
        found = assess(out, [job], console.advance)
    if distributed.rank() == 0:
        print(results_table(found))
        print(f"written to {out}")
    leave()


def job_of(door: Evaluate) -> Job:
    """What the flags ask for. Raises UserError for predictions that are missing, data without the
    truth, and protocols of another task."""
    (task,) = door.task
    rules = _protocols(door, task)
    needs = frozenset().union(*(truth_of(task, rule) for rule in rules))
    source, _, split = open_data(door.data, needs)
    if missing := needs - source.quantities:
        raise UserError(f"{source.name} has no {' and '.join(sorted(missing))} to score against.")
    count = min(door.data.images or len(source), len(source))
    keys = keys_of(source, count)
    folder = Path(str(door.predictions))
    files = find_files(folder, keys, door.pattern)
    predictor = Imported(
        task,
        folder,
        files,
        classes=len(source.classes),
        given=door.given,
        scale=door.scale,
        resize=door.resize,
        rows=door.batch or Imported.rows,
    )
    return Job(predictor, source, rules, _scored(keys, files, folder, door.partial), split)


def keys_of(source: Source, count: int) -> list[str]:
    """The keys of the first `count` samples, without decoding where the entries tell them."""
    entries = getattr(source, "entries", ())[:count]
    if entries and all(hasattr(entry, "key") for entry in entries):
        return [entry.key for entry in entries]
    return [source[i].key for i in range(count)]


def _protocols(door: Evaluate, task: str) -> list[Protocol]:
    task_of(task)
    return protocols_by_task(door.protocol, [task]).get(task) or [default_for(task)]


def _scored(keys: list[str], files: dict[str, Path], folder: Path, partial: bool) -> list[int]:
    """The places of the images that have a prediction. Raises UserError unless all of them have, or
    some may be missing."""
    found = [place for place, key in enumerate(keys) if key in files]
    if not found or (len(found) < len(keys) and not partial):
        absent = [key for key in keys if key not in files]
        raise UserError(
            f"{folder}: {len(absent)} of {len(keys)} images have no prediction, such as "
            f"{', '.join(absent[:LISTED])}. Name the files after these keys, say with --pattern "
            "how they are named, or score what there is with --partial."
        )
    return found
