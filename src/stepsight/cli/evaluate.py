"""The door of `evaluate.py`: open a checkpoint, then score it or sweep it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from stepsight.cli.door import guarded, output_folder
from stepsight.errors import UserError
from stepsight.training import distributed


@dataclass(frozen=True)
class Data:
    """What to score on; without a name, the evaluation split of the run's own data."""

    name: str | None = None
    root: str | None = None  # folder of the data set
    split: str | None = None  # default: the source's evaluation split
    images: int = 0  # at most so many; 0 = all


@dataclass(frozen=True)
class Evaluate:
    """Score a checkpoint against the trivial predictors, or sweep its test-time compute."""

    checkpoint: str  # a run folder (its best checkpoint, else its last) or a step folder
    task: tuple[str, ...] = ()  # may be repeated; default: all that the data has truth for
    data: Data = field(default_factory=Data)
    nfe: str | None = None  # model calls a member: 4, or 1,2,4,8 with --sweep
    members: str | None = None
    sampler: str | None = None  # default: the run's
    sweep: bool = False  # the grid NFE x members: sweep.csv, Pareto plots, fits, statements
    out: str | None = None  # default: eval/ or sweep/ of the run
    seed: int | None = None  # of the initial noise
    batch: int | None = None  # rows (images x members) a forward pass
    processes: int = 0  # 0: one a core on CPU (at most 2)


def main(argv: Sequence[str] | None = None) -> int:
    return guarded(_run, argv)


def _run(arguments: list[str]) -> int:
    import tyro

    door = tyro.cli(
        Evaluate, args=arguments, prog="evaluate.py", config=(tyro.conf.UseAppendAction,)
    )
    nfe, members = _numbers("--nfe", door.nfe), _numbers("--members", door.members)
    if not door.sweep and (len(nfe) > 1 or len(members) > 1):
        raise UserError("several values of --nfe or --members are a sweep: add --sweep.")
    for flag, count in (("--batch", door.batch or 0), ("--data.images", door.data.images)):
        if count < 0:
            raise UserError(f"{flag} {count}: give a positive number.")
    distributed.start(door.processes, [sys.argv[0], *arguments])
    _score(door, nfe, members)
    return 0


def _numbers(flag: str, text: str | None) -> list[int]:
    """`1,2,4` as a list; [] when not given."""
    if text is None:
        return []
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise UserError(f"{flag} {text}: give a positive number, or several such as 1,2,4.")
    return sorted({int(part) for part in parts})


def _score(door: Evaluate, nfe: list[int], members: list[int]) -> None:
    import torch

    from stepsight import checkpoint
    from stepsight.cli.show import results_table
    from stepsight.evaluation import run as evaluation
    from stepsight.pipeline import DensePipeline
    from stepsight.training.console import Console
    from stepsight.training.fit import join, leave

    join()
    device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
    saved = checkpoint.read(door.checkpoint)
    pipeline = DensePipeline.from_pretrained(saved.path, device)
    sources, label = _sources(door, pipeline)
    settings = pipeline.config.evaluation
    plan = evaluation.Plan(
        nfe=nfe or (settings.sweep_nfe if door.sweep else [settings.nfe]),
        members=members or (settings.sweep_members if door.sweep else [settings.members]),
        images=door.data.images or (settings.sweep_images if door.sweep else settings.images),
        sampler=door.sampler or pipeline.config.diffusion.sampler,
        seed=settings.seed if door.seed is None else door.seed,
        rows=door.batch or settings.batch,
        label=label,
    )
    run = saved.path.parent.parent
    out = output_folder(door.out or run / ("sweep" if door.sweep else "eval"))
    who = evaluation.identity_of(saved, pipeline)
    work = evaluation.sweep if door.sweep else evaluation.evaluate
    with Console(enabled=distributed.rank() == 0) as console:
        total = sum(min(plan.images or len(one), len(one)) for one in sources.values())
        console.phase("sweep" if door.sweep else "evaluate", total)
        records = (out if door.out else run) / "records.jsonl"
        found = work(out, pipeline, sources, plan, who, records, console.advance)
    if distributed.rank() == 0:
        print("\n".join(row["sentence"] for row in found) if door.sweep else results_table(found))
        print(f"written to {out}")
    leave()


def _sources(door: Evaluate, pipeline):  # noqa: ANN202  (types are imported late)
    """The sources to score, by task, and a label if they were trained on."""
    from stepsight.data.config import FileSettings
    from stepsight.data.table import open_source, settings_for
    from stepsight.evaluation import run as evaluation

    tasks = list(door.task) or None
    quantities = frozenset(pipeline.task(task).needs for task in tasks or pipeline.tasks)
    if door.data.name is None:
        if door.data.root is not None or door.data.split is not None:
            raise UserError("--data.root and --data.split need --data.name.")
        config = pipeline.config
        opened = evaluation.open_sources(config, quantities, "eval")
        label = evaluation.overlap(config, config.data.values())
    else:
        options = {} if door.data.root is None else {"root": door.data.root}
        settings = settings_for(door.data.name, **options)
        default = settings.eval_split if isinstance(settings, FileSettings) else "eval"
        split = door.data.split or default
        if isinstance(settings, FileSettings):
            settings = settings_for(door.data.name, **options, eval_split=split)
        elif split not in ("train", "eval"):
            raise UserError(f"--data.split {split}: {door.data.name} has train and eval.")
        opened = {door.data.name: open_source(settings, split, quantities)}
        label = evaluation.overlap(pipeline.config, [settings])
    return evaluation.pick_sources(pipeline, opened, tasks), label
