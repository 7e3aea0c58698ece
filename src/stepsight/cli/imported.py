"""`stepsight evaluate --predictions`: score the files that another program wrote."""

from __future__ import annotations

from pathlib import Path

from stepsight import distributed
from stepsight.cli.entry import output_folder
from stepsight.cli.evaluation_args import Args, protocols_by_task
from stepsight.cli.show import results_table
from stepsight.errors import UserError
from stepsight.evaluation.evaluate import evaluate_jobs
from stepsight.evaluation.jobs import ScoringJob
from stepsight.evaluation.predictions.files import files_of, find_files
from stepsight.evaluation.predictions.imported import Imported, task_of, truth_of
from stepsight.evaluation.scoring.items import key_of
from stepsight.metrics.protocol import default_for
from stepsight.report.console import Console

LISTED = 3  # images without a prediction that are named


def score_files(args: Args) -> None:
    """Score the folder of predictions and write the results to --out."""
    distributed.join()
    job = _job(args)
    out = output_folder(str(args.out))
    with Console(enabled=distributed.rank() == 0) as console:
        console.phase("evaluate", len(job.indices))
        results = evaluate_jobs(out, [job], console.advance)
    if distributed.rank() == 0:
        print(results_table(results))
        print(f"written to {out}")
    distributed.leave()


def _job(args: Args) -> ScoringJob:
    """What the flags ask for. Raises UserError for predictions that are missing, data without the
    truth, and protocols of another task."""
    (task,), folder = args.task, Path(str(args.predictions))
    task_of(task)
    protocols = protocols_by_task(args).get(task) or [default_for(task)]
    needs = frozenset().union(*(truth_of(task, protocol) for protocol in protocols))
    source, _, split = args.data.open(needs)
    if missing := needs - source.quantities:
        raise UserError(f"{source.name} has no {' and '.join(sorted(missing))} to score against.")
    count = min(args.data.images or len(source), len(source))
    keys = [key_of(source, index) for index in range(count)]
    files = find_files(folder, keys, args.pattern, files_of(task).containers)
    predictor = Imported(
        task,
        folder,
        files,
        classes=len(source.classes),
        given=args.given,
        scale=args.scale,
        resize=args.resize,
        chunk_size=args.batch or Imported.chunk_size,
    )
    scored = _scored(keys, files, folder, args.partial)
    return ScoringJob(predictor, source, protocols, scored, split, bad=args.bad_items())


def _scored(keys: list[str], files: dict[str, Path], folder: Path, partial: bool) -> list[int]:
    """The places of the images that have a prediction. Raises UserError unless all of them have, or
    some may be missing."""
    places = [place for place, key in enumerate(keys) if key in files]
    if not places or (len(places) < len(keys) and not partial):
        absent = [key for key in keys if key not in files]
        raise UserError(
            f"{folder}: {len(absent)} of {len(keys)} images have no prediction, such as "
            f"{', '.join(absent[:LISTED])}. Name the files after these keys, say with --pattern "
            "how they are named, or score what there is with --partial."
        )
    return places
