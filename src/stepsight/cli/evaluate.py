"""The door of `evaluate.py`: open checkpoints, then score or sweep them; or score files."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepsight import distributed
from stepsight.cli.door import guarded, output_folder
from stepsight.cli.evaluation_flags import (
    Evaluate,
    fractions,
    names,
    numbers,
    open_data,
    protocols_by_task,
    times,
)
from stepsight.errors import UserError

if TYPE_CHECKING:  # torch is imported once the number of its threads is set
    from stepsight.data.config import SourceSettings
    from stepsight.data.table import Source
    from stepsight.evaluation.jobs import Plan
    from stepsight.metrics.protocol import Protocol
    from stepsight.pipeline.dense import DensePipeline
    from stepsight.report.console import Console
    from stepsight.testtime.variants import Candidate

Dials = Mapping[str, list[Any]]  # by flag, the values it was given


AXES = ("sampler", "spacing", "schedule", "size", "merge", "temperature", "views")


def main(argv: Sequence[str] | None = None) -> int:
    return guarded(_run, argv)


def _run(arguments: list[str]) -> int:
    import tyro

    door = tyro.cli(
        Evaluate, args=arguments, prog="evaluate.py", config=(tyro.conf.UseAppendAction,)
    )
    dials = _dials(door)
    _refuse_contradictions(door, dials)
    for flag, count in (("--batch", door.batch or 0), ("--data.images", door.data.images)):
        if count < 0:
            raise UserError(f"{flag} {count}: give a positive number.")
    distributed.start(door.processes, [sys.argv[0], *arguments])
    if door.predictions is not None:
        from stepsight.cli.imported import score_files

        score_files(door)
    else:
        _score(door, dials)
    return 0


def _dials(door: Evaluate) -> Dials:
    """How to sample, in the order in which the flags are told."""
    return {
        "nfe": numbers("--nfe", door.nfe),
        "members": numbers("--members", door.members),
        "sampler": names(door.sampler),
        "spacing": names(door.spacing),
        "schedule": names(door.schedule),
        "size": numbers("--size", door.size),
        "merge": names(door.merge),
        "temperature": fractions("--temperature", door.temperature),
        "views": names(door.views),
    }


def _refuse_contradictions(door: Evaluate, dials: Dials) -> None:
    """Raise UserError for flags that do not go together."""
    if bool(door.checkpoint) == (door.predictions is not None):
        raise UserError("give either --checkpoint RUN or --predictions DIR.")
    own = {"--sweep": door.sweep, "--save-predictions": door.save_predictions}
    own |= {"--strategies": door.strategies, "--seed": door.seed is not None}
    own |= {"--times": door.times, "--eta": door.eta is not None, "--starts": door.starts}
    own |= {f"--{flag}": values for flag, values in dials.items()}
    files = {"--pattern": door.pattern, "--resize": door.resize, "--partial": door.partial}
    files |= {"--given": door.given != "depth", "--scale": door.scale != 1000.0}
    wrong, needed = (own, "--checkpoint") if door.predictions else (files, "--predictions")
    for flag, value in wrong.items():
        if value:
            raise UserError(f"{flag} needs {needed}.")
    _refuse_half_a_sweep(door, dials)
    if not 0 < door.scale < math.inf:
        raise UserError(f"--scale {door.scale:g}: give a positive number.")
    if door.predictions and (door.out is None or door.data.name is None or len(door.task) != 1):
        raise UserError("--predictions needs --data.name, --task (one), and --out.")


def _refuse_half_a_sweep(door: Evaluate, dials: Dials) -> None:
    if door.sweep and door.save_predictions:
        raise UserError("a sweep keeps no predictions.")
    if door.sweep and (door.times or door.eta is not None):
        raise UserError("--times and --eta are of one setting: leave them out of a sweep.")
    if door.strategies and not door.sweep:
        raise UserError("--strategies needs --sweep.")
    for flag, values in {"checkpoint": door.checkpoint, **dials}.items():
        if len(values) > 1 and not door.sweep:
            raise UserError(f"several values of --{flag} are a sweep: add --sweep.")
    if len(door.checkpoint) > 1 and door.out is None:
        raise UserError("several checkpoints have no common folder: say --out DIR.")
    if len(door.checkpoint) > 1 and door.strategies:
        raise UserError("--strategies are of one checkpoint: sweep the others without.")


def _score(door: Evaluate, dials: Dials) -> None:
    from stepsight.report.console import Console
    from stepsight.training.fit import join, leave

    join()
    chosen = protocols_by_task(door.protocol, door.task)
    if door.sweep and any(len(rules) > 1 for rules in chosen.values()):
        raise UserError("a sweep has one --protocol a task.")
    run, candidates, split = _open(door, chosen)
    plan = _plan(door, dials, candidates[0], chosen, split)
    out = output_folder(door.out or run / ("sweep" if door.sweep else "eval"))
    records = (out if door.out else run) / "records.jsonl"
    with Console(enabled=distributed.rank() == 0) as console:
        if door.sweep:
            candidates = [_starting(one, door.starts) for one in candidates]
            said = _sweep(out, candidates, plan, dials, records, console, door.strategies)
        else:
            ways = times(door.times), door.eta, door.starts
            said = _evaluate(out, candidates[0], plan, dials, records, console, *ways)
    if distributed.rank() == 0:
        print(said)
        print(f"written to {out}")
    leave()


def _plan(
    door: Evaluate,
    dials: Dials,
    first: Candidate,
    chosen: Mapping[str, Sequence[Protocol]],
    split: str | None,
) -> Plan:
    """What to score, as the flags say, else as the settings of the first checkpoint's run do."""
    from stepsight.evaluation.jobs import Plan

    settings = first.pipeline.config.evaluation
    usual = (settings.sweep_nfe, settings.sweep_members) if door.sweep else ((), ())
    return Plan(
        usual=not door.sweep,
        nfe=dials["nfe"] or usual[0],
        members=dials["members"] or usual[1],
        images=door.data.images or (settings.sweep_images if door.sweep else settings.images),
        sampler=first.pipeline.config.diffusion.sampler,
        seed=settings.seed if door.seed is None else door.seed,
        rows=door.batch or settings.batch,
        label=first.label,
        protocols=chosen,
        split=split,
        save=door.save_predictions,
    )


def _evaluate(
    out: Path,
    candidate: Candidate,
    plan: Plan,
    dials: Dials,
    records: Path,
    console: Console,
    visits: tuple[float, ...],
    eta: float | None,
    starts: str | None,
) -> str:
    """Score one checkpoint at one setting; the results as tables."""
    from stepsight.cli.show import results_table
    from stepsight.diffusion.config import nfe
    from stepsight.evaluation.evaluate import evaluate
    from stepsight.testtime.variants import images_of

    one = {flag: next(iter(values), None) for flag, values in dials.items()}
    pipeline = candidate.pipeline.sampling(
        sampler=one["sampler"],
        spacing=one["spacing"],
        schedule=one["schedule"],
        merge=one["merge"],
        times=visits,
        eta=eta,
        starts=starts,
    )
    sampler = pipeline.diffusion.settings.sampler
    plan = replace(
        plan,
        sampler=sampler,
        size=one["size"],
        temperature=one["temperature"],
        views=one["views"],
    )
    if visits and not dials["nfe"]:
        plan = replace(plan, nfe=[nfe(sampler, len(visits))])
    console.phase("evaluate", images_of([candidate], plan))
    found = evaluate(
        out, pipeline, candidate.sources, plan, candidate.identity, records, console.advance
    )
    return results_table(found)


def _sweep(
    out: Path,
    candidates: Sequence[Candidate],
    plan: Plan,
    dials: Dials,
    records: Path,
    console: Console,
    strategies: bool,
) -> str:
    """Sweep checkpoints; what was found, in sentences."""
    from stepsight.report.sweep.claims import spoken
    from stepsight.testtime.sweep import sweep_variants
    from stepsight.testtime.variants import Axes, images_of, usual_variants

    axes = Axes(*(dials[flag] for flag in AXES))
    tried = usual_variants(candidates, plan, axes)
    for note in tried.left_out:
        console.note(note)
    scored = [one.candidate for one in tried.found]
    if strategies:
        scored.append(candidates[0])
    console.phase("sweep", images_of(scored, plan))
    found = sweep_variants(out, tried.found, records, console.advance, with_strategies=strategies)
    return "\n".join(spoken(found))


def _starting(candidate: Candidate, starts: str | None) -> Candidate:
    return replace(candidate, pipeline=candidate.pipeline.sampling(starts=starts))


def _open(
    door: Evaluate, chosen: Mapping[str, Sequence[Protocol]]
) -> tuple[Path, list[Candidate], str | None]:
    """The run of the first checkpoint, all checkpoints with what they are scored on, and its split
    unless it is the run's own. Raises UserError for weights that are named twice."""
    import torch

    from stepsight import checkpoint
    from stepsight.evaluation.records import identity_of
    from stepsight.evaluation.sources import overlap, pick_sources
    from stepsight.pipeline.dense import DensePipeline
    from stepsight.testtime.variants import Candidate

    device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
    saved = [checkpoint.read(path) for path in door.checkpoint]
    pipelines = [DensePipeline.from_pretrained(one.path, device) for one in saved]
    named: dict[str, str] = {}
    for path, pipeline in zip(door.checkpoint, pipelines):
        if pipeline.name in named:
            raise UserError(f"{path} holds the weights of {named[pipeline.name]}. Name them once.")
        named[pipeline.name] = path
    tasks = list(door.task) or list(chosen) or None
    opened, settings, split = _sources(door, pipelines, tasks, chosen)
    candidates = [
        Candidate(
            path,
            pipeline,
            identity_of(one, pipeline),
            pick_sources(pipeline, opened, tasks, chosen),
            overlap(pipeline.config, settings),
        )
        for path, one, pipeline in zip(door.checkpoint, saved, pipelines)
    ]
    return saved[0].path.parent.parent, candidates, split


def _sources(
    door: Evaluate,
    pipelines: Sequence[DensePipeline],
    tasks: list[str] | None,
    chosen: Mapping[str, Sequence[Protocol]],
) -> tuple[dict[str, Source], list[SourceSettings], str | None]:
    """The data to score on, its settings, and its split unless it is the run's own. Checkpoints of
    several runs are all scored on the data of the first one."""
    from stepsight.evaluation.sources import open_sources, truth_needed

    needed = [
        truth_needed(pipeline, task, chosen)
        for pipeline in pipelines
        for task in tasks or pipeline.tasks
    ]
    quantities = frozenset().union(*needed)
    if door.data.name is None:
        if door.data.root is not None or door.data.split is not None or door.data.option:
            raise UserError("--data.root, --data.split and --data.option need --data.name.")
        config = pipelines[0].config
        opened = open_sources(config, quantities, "eval")
        return opened, list(config.data.values()), None
    source, settings, split = open_data(door.data, quantities)
    return {door.data.name: source}, [settings], split
