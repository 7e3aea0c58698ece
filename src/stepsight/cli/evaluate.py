"""`stepsight evaluate`, which is evaluate.py: score or sweep checkpoints, or score files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from stepsight import distributed
from stepsight.cli.entry import at_least, given_by, going_on, guarded, output_folder
from stepsight.cli.evaluation_args import Args, Given, Values, protocols_by_task
from stepsight.cli.sampling import check_sampling, check_setting, times
from stepsight.errors import UserError

if TYPE_CHECKING:  # torch is imported once the number of its threads is set
    from stepsight.data.config import SourceSettings
    from stepsight.data.table import Source
    from stepsight.evaluation.jobs import ScoringPlan
    from stepsight.metrics.protocol import Protocol
    from stepsight.pipeline.dense import DensePipeline
    from stepsight.report.console import Console
    from stepsight.testtime.variants import Candidate

Protocols = Mapping[str, Sequence["Protocol"]]  # by task
COMMAND = ("-m", "stepsight.cli.main", "evaluate")
VARIED = ("sampler", "spacing", "schedule", "size", "merge", "temperature", "views")


def main(argv: Sequence[str] | None = None) -> int:
    return guarded(lambda arguments: run(Args.parse(arguments, "evaluate.py")), argv)


def run(given: Given) -> int:
    args = given.args
    axes = args.axes()
    _refuse_contradictions(args, axes)
    for flag, count in (("--batch", args.batch), ("--data.images", args.data.images)):
        at_least(0, flag, count)
    args.bad_items()
    with going_on("evaluate", given.arguments):
        arguments = [*given.arguments]
        if args.predictions is not None and args.data.name is None:
            from stepsight.cli.imported import beside

            args = replace(args, data=beside(args))  # once, for all processes
            found = {"name": args.data.name, "root": args.data.root, "split": args.data.split}
            arguments += [f"--data.{name}={value}" for name, value in found.items()]
        distributed.start(args.processes, [*COMMAND, *arguments])
        if args.predictions is not None:
            from stepsight.cli.imported import score_files

            score_files(args)
        else:
            _score(args, axes)
    return 0


def _refuse_contradictions(args: Args, axes: Values) -> None:
    """Raise UserError for flags that do not go together."""
    if bool(args.checkpoint) == (args.predictions is not None):
        raise UserError("give either --checkpoint RUN or --predictions DIR.")
    of_models = {"sweep": args.sweep, "save-predictions": args.save_predictions}
    of_models |= {"strategies": args.strategies, "seed": args.seed is not None}
    single = {name: getattr(args, name) is not None for name in ("times", "eta", "guidance")}
    of_models |= {**single, "starts": args.starts, **axes}
    of_models |= {"weights": args.weights != "ema", "precision": args.precision != "auto"}
    of_models |= {"profile": args.profile != "published"}
    of_files = {"pattern": args.pattern, "resize": args.resize, "partial": args.partial}
    of_files |= {"given": args.given != "depth", "scale": args.scale is not None}
    of_files |= {"codes": args.codes}
    wrong, needed = (of_models, "checkpoint") if args.predictions else (of_files, "predictions")
    for flag, value in wrong.items():
        if value:
            raise UserError(f"--{flag} needs --{needed}.")
    if args.sweep and args.save_predictions:
        raise UserError("a sweep keeps no predictions: leave out --save-predictions or --sweep.")
    if args.sweep and any(single.values()):
        flags = "--times, --eta and --guidance"
        raise UserError(f"{flags} are of one setting: leave them out of a sweep.")
    if args.strategies and not args.sweep:
        raise UserError("--strategies needs --sweep.")
    for flag, values in {"checkpoint": args.checkpoint, **axes}.items():
        if len(values) > 1 and not args.sweep:
            raise UserError(f"several values of --{flag} are a sweep: add --sweep.")
    if len(args.checkpoint) > 1 and args.out is None:
        raise UserError("several checkpoints have no common folder: pass --out DIR.")
    if len(args.checkpoint) > 1 and args.strategies:
        raise UserError("--strategies are of one checkpoint: sweep the others without.")
    if args.scale is not None and not 0 < args.scale < math.inf:
        raise UserError(f"--scale {args.scale:g}: give a positive number.")


def _score(args: Args, axes: Values) -> None:
    from stepsight.report.console import Console

    distributed.join()
    chosen = protocols_by_task(args)
    if args.sweep and any(len(protocols) > 1 for protocols in chosen.values()):
        raise UserError("a sweep has one --protocol a task.")
    run, candidates, split = _open(args, chosen)
    if args.out is None and not Path(args.checkpoint[0]).is_dir():  # a tar, or of the hub
        raise UserError(f"{args.checkpoint[0]} is no folder to write to: pass --out DIR.")
    plan = _plan(args, axes, candidates[0], chosen, split)
    _check(args, axes, candidates[0].pipeline, plan)
    out = output_folder(args.out or run / ("sweep" if args.sweep else "eval"))
    records = (out if args.out else run) / "records.jsonl"
    with Console(enabled=distributed.rank() == 0) as console:
        for candidate in candidates:
            if candidate.label:
                console.warn(f"{candidate.path}: {candidate.label}")
        work = _sweep if args.sweep else _evaluate
        text = work(args, out, candidates, plan, axes, records, console)
    if distributed.rank() == 0:
        print(text)
        print(f"written to {out}")
    distributed.leave()


def _plan(
    args: Args, axes: Values, first: Candidate, chosen: Protocols, split: str | None
) -> ScoringPlan:
    """What to score, as the flags say, else as the settings of the first checkpoint's run do."""
    from stepsight.evaluation.jobs import ScoringPlan

    settings = first.pipeline.config.evaluation
    usual = (settings.sweep_nfe, settings.sweep_members) if args.sweep else ((), ())
    return ScoringPlan(
        usual=not args.sweep,
        nfe=axes["nfe"] or usual[0],
        members=axes["members"] or usual[1],
        images=args.data.images or (settings.sweep_images if args.sweep else settings.images),
        sampler=first.pipeline.config.diffusion.sampler,
        seed=settings.seed if args.seed is None else args.seed,
        chunk_size=args.batch or settings.batch,
        label=first.label,
        protocols=chosen,
        split=split,
        save=args.save_predictions,
        bad=args.bad_items(),
    )


def _check(args: Args, axes: Values, pipeline: DensePipeline, plan: ScoringPlan) -> None:
    """Raise UserError for values that no evaluation can have, naming the flag or the setting."""
    of_sampler = {name: axes[name] for name in ("sampler", "spacing", "schedule", "views")}
    check_sampling(pipeline.diffusion.settings, of_sampler, times(args.times))
    if not args.sweep or len(axes["sampler"]) > 1:
        return  # what one of several samplers cannot spend is left to the others
    sampled = pipeline.sampling(sampler=next(iter(axes["sampler"]), None))
    for calls in plan.nfe:
        of_run = f"evaluation.sweep_nfe of {args.checkpoint[0]} has {calls}"
        with given_by(f"--nfe {calls}" if axes["nfe"] else of_run):
            sampled.diffusion.check_calls(calls)


def _evaluate(
    args: Args,
    out: Path,
    candidates: Sequence[Candidate],
    plan: ScoringPlan,
    axes: Values,
    records: Path,
    console: Console,
) -> str:
    """Score one checkpoint at one setting; the results as tables."""
    from stepsight.cli.show import results_table
    from stepsight.diffusion.config import nfe
    from stepsight.evaluation.evaluate import evaluate
    from stepsight.testtime.variants import images_of

    (candidate,) = candidates
    value = {flag: next(iter(values), None) for flag, values in axes.items()}
    visits = times(args.times)
    with given_by(f"--merge {args.merge}" if args.merge else "--times"):
        pipeline = candidate.pipeline.sampling(
            sampler=value["sampler"],
            spacing=value["spacing"],
            schedule=value["schedule"],
            merge=value["merge"],
            times=visits,
            eta=args.eta,
            guidance=args.guidance,
            starts=args.starts,
        )
    sampler = pipeline.diffusion.settings.sampler
    varied = {name: value[name] for name in ("size", "temperature", "views")}
    plan = replace(plan, sampler=sampler, **varied)
    if visits and not axes["nfe"]:
        plan = replace(plan, nfe=[nfe(sampler, len(visits))])
    calls, starts = next(iter(plan.nfe), None), (value["temperature"], value["views"])
    for task in candidate.sources:
        check_setting(pipeline, task, candidate.path, calls, value["members"], *starts)
    console.phase("evaluate", images_of([candidate], plan))
    identity, sources = candidate.identity, candidate.sources
    results = evaluate(out, pipeline, sources, plan, identity, records, console.advance)
    return results_table(results)


def _sweep(
    args: Args,
    out: Path,
    candidates: Sequence[Candidate],
    plan: ScoringPlan,
    axes: Values,
    records: Path,
    console: Console,
) -> str:
    """Sweep checkpoints; what it shows, in sentences."""
    from stepsight.report.sweep.page import main_sentences
    from stepsight.testtime.sweep import sweep_variants
    from stepsight.testtime.variants import Axes, images_of, usual_variants

    candidates = [
        replace(candidate, pipeline=candidate.pipeline.sampling(starts=args.starts))
        for candidate in candidates
    ]
    tried = usual_variants(candidates, plan, Axes(*(axes[flag] for flag in VARIED)))
    for note in tried.left_out:
        console.note(note)
    scored = [variant.candidate for variant in tried.kept]
    console.phase("sweep", images_of(scored + candidates[:1] * args.strategies, plan))
    claims = sweep_variants(
        out, tried.kept, records, console.advance, with_strategies=args.strategies
    )
    return "\n".join(main_sentences(claims))


def _open(args: Args, chosen: Protocols) -> tuple[Path, list[Candidate], str | None]:
    """The run of the first checkpoint, all checkpoints with what they are scored on, and its split
    unless it is the run's own. Raises UserError for weights that are named twice."""
    import torch

    from stepsight import checkpoint
    from stepsight.evaluation.records import identity_of
    from stepsight.evaluation.sources import pick_sources, remark
    from stepsight.pipeline.dense import DensePipeline
    from stepsight.testtime.variants import Candidate

    device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
    saved = [checkpoint.read(path, lazy=True) for path in args.checkpoint]
    how = None, args.weights, args.precision, args.profile
    pipelines = [DensePipeline.from_pretrained(read.path, device, *how) for read in saved]
    named: dict[str, str] = {}
    for path, pipeline in zip(args.checkpoint, pipelines):
        if pipeline.name in named:
            raise UserError(f"{path} holds the weights of {named[pipeline.name]}. Name them once.")
        named[pipeline.name] = path
    tasks = list(args.task) or list(chosen) or None
    for task in args.task:
        with given_by(f"--task {task}"):
            pipelines[0].task(task)
    opened, settings, split = _sources(args, pipelines, tasks, chosen)
    whose = " (raw weights)" if args.weights == "raw" else ""
    candidates = [
        Candidate(
            path + whose,
            pipeline,
            identity_of(read, pipeline),
            pick_sources(pipeline, opened, tasks, chosen),
            remark(read, settings, args.weights) or None,
        )
        for path, read, pipeline in zip(args.checkpoint, saved, pipelines)
    ]
    return saved[0].home, candidates, split


def _sources(
    args: Args, pipelines: Sequence[DensePipeline], tasks: list[str] | None, chosen: Protocols
) -> tuple[dict[str, Source], list[SourceSettings], str | None]:
    """The data to score on, its settings, and its split unless it is the run's own. Checkpoints of
    several runs are all scored on the data of the first one."""
    from stepsight.evaluation.sources import open_sources, truth_needed

    quantities = frozenset().union(
        *(
            truth_needed(pipeline, task, chosen)
            for pipeline in pipelines
            for task in tasks or pipeline.tasks
        )
    )
    if args.data.name is not None:
        source, settings, split = args.data.open(quantities)
        return {args.data.name: source}, [settings], split
    if args.data.root is not None or args.data.split is not None or args.data.option:
        raise UserError("--data.root, --data.split and --data.option need --data.name.")
    config = pipelines[0].config
    return open_sources(config, quantities, "eval"), list(config.data.values()), None
