"""`stepsight calibrate --checkpoint D --known FILE`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stepsight.cli.entry import at_least, given_by
from stepsight.errors import UserError, command
from stepsight.pipeline.config import Which


@dataclass(frozen=True)
class Args:
    """Metres from a few known distances: fits scale and shift of a model's depth to them, with
    intervals, and keeps them in the checkpoint, which answers in metres from then on. They hold for
    pictures like these, of the same camera."""

    checkpoint: str  # run folder or step folder
    # CSV with the head line picture,x,y,metres or JSON lines of these: a picture by its path from
    # this file, column and row of a pixel from 0 in the upright picture, and its distance along the
    # optical axis
    known: Path | None = None
    task: str = "depth"  # one whose answers are depth
    nfe: int | None = None  # model calls per member; default: the run's
    members: int | None = None  # answers that are merged; default: the run's
    size: int | None = None  # pixels of the longer side at work; default: the area of training
    # sizes, clipping and merging of checkpoints from elsewhere: their authors', or ours
    profile: Which = "published"
    remove: bool = False  # forget what was fitted


def run(args: Args) -> int:
    from stepsight import checkpoint
    from stepsight.pipeline.dense import DensePipeline
    from stepsight.predicting.calibrating import fit_known, predicted, read_known, sentence
    from stepsight.tasks.depth import Depth

    if (args.known is None) != args.remove:
        raise UserError("give --known FILE, or --remove to forget what was fitted.")
    for flag in ("nfe", "members", "size"):
        at_least(1, f"--{flag}", getattr(args, flag))
    saved = checkpoint.read(args.checkpoint, lazy=True)
    if not Path(args.checkpoint).is_dir():
        raise UserError(
            f"{args.checkpoint} is no folder to keep the scale in: write it as one with "
            f"`{command('convert', 'export', '--format', 'stepsight')}`."
        )
    before = dict(saved.meta.get("metric", {}))
    before.pop(args.task, None)
    if args.known is None:
        checkpoint.amend(saved.path, metric=before)
        print(f"{saved.path}: {args.task} is as the model answers it again.")
        return 0
    points = read_known(args.known)
    pipeline = DensePipeline.from_pretrained(saved, profile=args.profile)
    pipeline.metric = before  # of this task none: it is what is fitted
    pipeline = pipeline.profiled(args.profile)
    with given_by(f"--task {args.task}"):
        task = pipeline.task(args.task)
    if not isinstance(task, Depth):
        raise UserError(f"--task {args.task}: its answers are {task.unit}, not depth.")
    how = {"nfe": args.nfe, "members": args.members, "size": args.size}
    record = fit_known(task, predicted(pipeline, args.task, points, **how), points)
    record |= {"profile": pipeline.profile.name, "size": args.size}
    checkpoint.amend(saved.path, metric=before | {args.task: record})
    print(f"{saved.path}: {args.task} is in {sentence(record)}.")
    if record["pictures"] == 1:
        print("note: of one picture; others may need another scale and shift.")
    return 0
