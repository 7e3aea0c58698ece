"""`stepsight evaluate --predictions`: score the files that another program wrote, or `predict`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from stepsight import distributed
from stepsight.cli.data.own import listed
from stepsight.cli.entry import output_folder
from stepsight.cli.evaluation_args import Args, protocols_by_task
from stepsight.cli.show import results_table
from stepsight.cli.sources import Data
from stepsight.data.table import Source, having
from stepsight.distributed.board import say
from stepsight.errors import UserError
from stepsight.evaluation.evaluate import evaluate_jobs
from stepsight.evaluation.jobs import ScoringJob
from stepsight.evaluation.predictions.dump import manifest_tasks, read_manifest
from stepsight.evaluation.predictions.files import find_files, pictures_of, written
from stepsight.evaluation.predictions.imported import Imported, task_of, truth_of
from stepsight.evaluation.predictions.reading import CITYSCAPES, CLASSES, FROM_ONE, readers_of
from stepsight.evaluation.predictions.readings import falling, tried
from stepsight.evaluation.predictions.remarks import remarks_on
from stepsight.evaluation.predictions.segments import listed_segments
from stepsight.evaluation.scoring.items import key_of
from stepsight.metrics.protocol import Protocol, default_for
from stepsight.report.console import Console

LISTED = 3  # images without a prediction that are named
OWN_CODES = {"ade20k": FROM_ONE, "cityscapes": CITYSCAPES}  # of the files that their toolkits score


def score_files(args: Args) -> None:
    """Score the folder of predictions and write the results to --out."""
    distributed.join()
    job, said = _job(args)
    out = output_folder(str(args.out or Path(str(args.predictions)) / "evaluation"))
    with Console(enabled=distributed.rank() == 0) as console:
        for text in said:
            console.warn(text)
        console.phase("evaluate", len(job.indices))
        results = evaluate_jobs(out, [job], console.advance)
    if distributed.rank() == 0:
        print(results_table(results))
        print(f"written to {out}")
    distributed.leave()


def _job(args: Args) -> tuple[ScoringJob, list[str]]:
    """What the flags ask for, and what has to be said of the predictions. Raises UserError for
    predictions that are missing or off by one, data without the truth, and protocols of another
    task."""
    folder = Path(str(args.predictions))
    task, protocols, needs = _asked(args, folder)
    source, split = _having(args.data, needs)
    count = min(args.data.images or len(source), len(source))
    keys = [key_of(source, index) for index in range(count)]
    names = written(task, read_manifest(folder, task))
    named = args.pattern, readers_of(task), names.endings, pictures_of(source)
    files = find_files(folder, keys, *named)
    predictor = Imported(
        task,
        folder,
        files,
        classes=len(source.classes),
        given=args.given,
        scale=args.scale or names.scale or Imported.scale,
        resize=args.resize,
        codes=args.codes or CLASSES,
        segments=listed_segments(folder, source) if task == "panoptic" else {},
        chunk_size=args.batch or Imported.chunk_size,
    )
    scored = _scored(keys, files, folder, args.partial)
    predictor, said = _examined(args, predictor, source, protocols[0], scored)
    label = "; ".join(said) or None
    return ScoringJob(
        predictor, source, protocols, scored, split, label, bad=args.bad_items()
    ), said


def beside(args: Args) -> Data:
    """What lies beside the pictures that `predict` answered, as `data look` finds it; its list is
    kept with the answers. Raises UserError where no truth opens by itself."""
    folder = Path(str(args.predictions))
    task, _, needs = _asked(args, folder)
    needed = "--predictions needs --data.name, the data whose truth they are held to"
    pictures = (read_manifest(folder, task) or {}).get("pictures")
    if pictures is None:
        raise UserError(f"{needed}.")
    failed: list[str] = []
    for home in (Path(pictures), Path(pictures).parent):
        try:
            found = str(listed(home, {}, folder))
            data = replace(args.data, name="folder", root=found, split=args.data.split or "all")
            _having(data, needs)
        except UserError as error:
            failed.append(str(error))
            continue
        say(f"scored against the truth found in {home}, listed in {found}.")
        return data
    raise UserError(f"{needed}: beside {pictures} nothing opens by itself. {failed[-1]}")


def _asked(args: Args, folder: Path) -> tuple[str, list[Protocol], frozenset[str]]:
    """The task, its protocols, and the truth that they need. Raises UserError."""
    task = _task(args, folder)
    task_of(task)
    protocols = protocols_by_task(args).get(task) or [default_for(task)]
    return task, protocols, frozenset().union(*(truth_of(task, one) for one in protocols))


def _having(data: Data, needs: frozenset[str]) -> tuple[Source, str]:
    """The samples that have the truth, and their split. Raises UserError."""
    every, _, split = data.open(needs)
    source = having(every, needs)
    if source is None:
        raise UserError(f"{every.name} has no {' and '.join(sorted(needs))} to score against.")
    return source, split


def _task(args: Args, folder: Path) -> str:
    """That of --task, or the only one that `predict` wrote. Raises UserError."""
    made = list(args.task) or manifest_tasks(folder)
    if len(made) != 1:
        raise UserError(
            f"--predictions needs --task, one of {', '.join(made)}."
            if made
            else "--predictions needs --task: no manifest says what they are."
        )
    return made[0]


def _examined(
    args: Args, predictor: Imported, source: Source, protocol: Protocol, scored: Sequence[int]
) -> tuple[Imported, list[str]]:
    """The predictor, which reads a benchmark's own encoding where files hold it, and what has to be
    said. Raises UserError for ids that are off by one, unless --codes says what they are."""
    trial, said = tried(predictor, source, protocol, scored), list[str]()
    if trial is not None and trial.reading.codes and not args.codes:
        codes, pictures = trial.reading.codes, predictor.files.values()
        theirs = OWN_CODES.get(source.name) == codes
        if not theirs or any(path.suffix == ".npy" for path in pictures):
            raise UserError(f"{predictor.folder}: {trial}")
        said.append(f"files are taken {trial.reading.how}, as {source.name}'s toolkit writes them")
        predictor = replace(predictor, codes=codes)
        trial = tried(predictor, source, protocol, scored)
    if trial is not None:
        return predictor, [*said, str(trial)]
    if turned := falling(predictor, source, protocol, scored):
        said.append(turned)
    said += map(str, remarks_on(predictor, source, protocol, scored))
    return predictor, said


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
