"""The door of `evaluate.py`: open a checkpoint, then score it or sweep it; or score files."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from stepsight.cli.door import guarded, output_folder
from stepsight.cli.evaluation_flags import Evaluate, open_data, protocols_by_task
from stepsight.errors import UserError
from stepsight.training import distributed

if TYPE_CHECKING:  # torch is imported once the number of its threads is set
    from stepsight.data.table import Source
    from stepsight.metrics.protocol import Protocol
    from stepsight.pipeline import DensePipeline


def main(argv: Sequence[str] | None = None) -> int:
    return guarded(_run, argv)


def _run(arguments: list[str]) -> int:
    import tyro

    door = tyro.cli(
        Evaluate, args=arguments, prog="evaluate.py", config=(tyro.conf.UseAppendAction,)
    )
    _refuse_contradictions(door)
    nfe, members = _numbers("--nfe", door.nfe), _numbers("--members", door.members)
    if not door.sweep and (len(nfe) > 1 or len(members) > 1):
        raise UserError("several values of --nfe or --members are a sweep: add --sweep.")
    for flag, count in (("--batch", door.batch or 0), ("--data.images", door.data.images)):
        if count < 0:
            raise UserError(f"{flag} {count}: give a positive number.")
    distributed.start(door.processes, [sys.argv[0], *arguments])
    if door.predictions is not None:
        from stepsight.cli.imported import score_files

        score_files(door)
    else:
        _score(door, nfe, members)
    return 0


def _refuse_contradictions(door: Evaluate) -> None:
    """Raise UserError for flags that do not go together."""
    if (door.checkpoint is None) == (door.predictions is None):
        raise UserError("give either --checkpoint RUN or --predictions DIR.")
    own = {"--sweep": door.sweep, "--save-predictions": door.save_predictions}
    own |= {"--nfe": door.nfe, "--members": door.members, "--sampler": door.sampler}
    own |= {"--seed": door.seed is not None}
    files = {"--pattern": door.pattern, "--resize": door.resize, "--partial": door.partial}
    files |= {"--given": door.given != "depth", "--scale": door.scale != 1000.0}
    wrong, needed = (own, "--checkpoint") if door.predictions else (files, "--predictions")
    for flag, value in wrong.items():
        if value:
            raise UserError(f"{flag} needs {needed}.")
    if door.sweep and door.save_predictions:
        raise UserError("a sweep keeps no predictions.")
    if not 0 < door.scale < math.inf:
        raise UserError(f"--scale {door.scale:g}: give a positive number.")
    if door.predictions and (door.out is None or door.data.name is None or len(door.task) != 1):
        raise UserError("--predictions needs --data.name, --task (one), and --out.")


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
    saved = checkpoint.read(str(door.checkpoint))
    pipeline = DensePipeline.from_pretrained(saved.path, device)
    chosen = protocols_by_task(door.protocol, door.task)
    if door.sweep and any(len(rules) > 1 for rules in chosen.values()):
        raise UserError("a sweep has one --protocol a task.")
    tasks = list(door.task) or list(chosen) or None
    sources, split, label = _sources(door, pipeline, tasks, chosen)
    settings = pipeline.config.evaluation
    plan = evaluation.Plan(
        nfe=nfe or (settings.sweep_nfe if door.sweep else [settings.nfe]),
        members=members or (settings.sweep_members if door.sweep else [settings.members]),
        images=door.data.images or (settings.sweep_images if door.sweep else settings.images),
        sampler=door.sampler or pipeline.config.diffusion.sampler,
        seed=settings.seed if door.seed is None else door.seed,
        rows=door.batch or settings.batch,
        label=label,
        protocols=chosen,
        split=split,
        save=door.save_predictions,
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


def _sources(
    door: Evaluate,
    pipeline: DensePipeline,
    tasks: list[str] | None,
    chosen: Mapping[str, Sequence[Protocol]],
) -> tuple[dict[str, Source], str | None, str | None]:
    """The sources to score, by task; their split, unless it is the run's own; and a label if they
    were trained on."""
    from stepsight.evaluation import run as evaluation

    needed = [evaluation.truth_needed(pipeline, task, chosen) for task in tasks or pipeline.tasks]
    quantities = frozenset().union(*needed)
    split = None
    if door.data.name is None:
        if door.data.root is not None or door.data.split is not None or door.data.option:
            raise UserError("--data.root, --data.split and --data.option need --data.name.")
        config = pipeline.config
        opened = evaluation.open_sources(config, quantities, "eval")
        label = evaluation.overlap(config, config.data.values())
    else:
        source, settings, split = open_data(door.data, quantities)
        opened = {door.data.name: source}
        label = evaluation.overlap(pipeline.config, [settings])
    return evaluation.pick_sources(pipeline, opened, tasks, chosen), split, label
