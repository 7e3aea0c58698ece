"""Validation while training: a few evaluation images of every task, scored, drawn and compared."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from stepsight import checkpoint
from stepsight.data.bad import BadItems
from stepsight.data.collate import collate
from stepsight.data.resize import resize_sample
from stepsight.data.table import Source, read_samples
from stepsight.evaluation.evaluate import score_tasks
from stepsight.evaluation.evaluator import Scores
from stepsight.evaluation.jobs import ScoringPlan
from stepsight.evaluation.pictures import sample_grid
from stepsight.evaluation.results import metrics_of
from stepsight.execution.precision import computing
from stepsight.measures import main_metric, measure
from stepsight.metrics import protocol as protocols
from stepsight.pipeline.dense import DensePipeline
from stepsight.pipeline.inputs import content_keys
from stepsight.report.console import Console
from stepsight.tasks.config import TABLE
from stepsight.training.config import TrainingSettings
from stepsight.training.dense.batches import code_part, counts_of, errors_of, part_noise
from stepsight.training.folder import RunWriter
from stepsight.training.progress import Progress

CHUNK = 32  # images whose loss is taken together
BINS = 4  # of the noise levels


def validate(
    pipeline: DensePipeline,
    held: dict[str, Source],
    progress: Progress,
    writer: RunWriter,
    console: Console,
) -> bool:
    """Score and draw a few evaluation images of every task: whether none were better so far."""
    config, name = pipeline.config, checkpoint.step_name(progress.step)
    bad = bad_items(config.training)
    plan = ScoringPlan(
        nfe=[],
        members=[],
        usual=True,
        images=config.training.validation_images,
        sampler=config.diffusion.sampler,
        seed=config.evaluation.seed,
        chunk_size=config.evaluation.batch,
        bad=bad,
    )
    rows = []
    for scores in score_tasks(pipeline, held, plan):
        loss, bins = validation_loss(pipeline, scores.task, held[scores.task], bad)
        progress.losses[scores.task], progress.loss_bins[scores.task] = loss, bins
        row = progress.stamp("val") | scored(scores) | {"loss": loss, "loss_bins": bins}
        rows.append(row | {"seconds": writer.elapsed()})
        writer.log(rows[-1])
    if writer.main:
        few = 2 if progress.images_seen < config.training.images else 3
        sample_grid(pipeline, held, writer.samples / f"{name}.png", images=few, bad=bad)
    best = progress.improve(best_score(rows))
    earlier = writer.validations() if writer.main else []
    console.validation(progress.step, rows, name if best else None, earlier)
    return best


def bad_items(settings: TrainingSettings) -> BadItems:
    """What a run does about items that cannot be read when it scores its model."""
    flags = ("--training.on_bad", "--training.bad_cap")
    return BadItems(settings.on_bad, settings.bad_cap, flags=flags)


def scored(scores: Scores) -> dict[str, Any]:
    """The scores of a task in a `val` line of metrics.jsonl."""
    ((nfe, members), rows), *_ = scores.settings.items()
    baselines, metrics = scores.baselines.items(), metrics_of(rows, scores.protocol)
    return {
        "task": scores.task,
        "data": scores.source,
        "nfe": nfe,
        "members": members,
        "n": len(scores.keys),
        "metric": main_metric(scores.task, metrics, protocols.get(scores.protocol).metrics),
        "metrics": metrics,
        "baselines": {name: metrics_of(rows, scores.protocol) for name, rows in baselines},
    }


def best_score(rows: list[dict[str, Any]]) -> float:
    """Mean over tasks of log(error / error of the best trivial predictor): lower is better.

    A generator of images goes by its loss: the one sample of a validation says little of a
    distribution.
    """
    logs = []
    for row in rows:
        if TABLE[row["task"]].generative:
            logs.append(math.log(max(row["loss"], 1e-6)))
            continue
        metric = row.get("metric") or main_metric(row["task"], row["metrics"])
        assert metric is not None, row
        rivals = [rival[metric] for rival in row["baselines"].values() if metric in rival]
        value = row["metrics"][metric]
        if math.isnan(value) and any(map(math.isfinite, rivals)):
            return math.inf  # there was something to measure, and the answers are no numbers
        logs.append(measure(metric).log_ratio(value, rivals))
    measured = [x for x in logs if math.isfinite(x)]  # a task may have nothing to measure
    return sum(measured) / len(measured) if measured else math.inf


@torch.inference_mode()
def validation_loss(
    pipeline: DensePipeline, task: str, source: Source, bad: BadItems | None = None
) -> tuple[float, list[float]]:
    """The training loss of the network as it is, and the same in `BINS` equal shares of the noise
    levels drawn, clean to noisy. Images, levels and noise are the same for every checkpoint of
    every run, and the levels are stratified. The objective "end_to_end" has one level, so no bins.
    """
    count = min(pipeline.config.training.validation_images, len(source))
    totals = torch.zeros(2, BINS, dtype=torch.float64)
    for start in range(0, count, CHUNK):
        picks = range(start, min(start + CHUNK, count))
        measure_some = partial(_losses, pipeline, task, source, picks, bad or BadItems())
        for part in pipeline.memory.in_parts(
            f"the loss of {task}", len(picks), CHUNK, measure_some
        ):
            totals += part
    errors, counts = totals
    loss = float(errors.sum() / counts.sum().clamp_min(1))
    if pipeline.config.diffusion.objective == "end_to_end":
        return loss, []
    return loss, (errors / counts).tolist()


def _losses(
    pipeline: DensePipeline,
    task: str,
    source: Source,
    picks: range,
    bad: BadItems,
    some: range,
    _rows: int,
) -> Tensor:
    """Sums of errors and their counts, "2 bins" float64, over `some` of the images `picks`."""
    totals, numbers = torch.zeros(2, BINS, dtype=torch.float64), picks[some.start : some.stop]
    tell = partial(bad.met, source.name, of=len(source))
    read = zip(numbers, read_samples(source, numbers, tell))
    samples = {number: sample for number, sample in read if sample is not None}
    if not samples:
        return totals
    resized = [resize_sample(sample, pipeline.sizes[task]) for sample in samples.values()]
    part = code_part(pipeline, task, collate(resized).to(pipeline.device))
    assert part.coded.x is not None and part.batch is not None
    runs = range(part.task.splits)
    u = (torch.tensor([*samples] * len(runs), dtype=torch.float32) * 0.618034 + 0.5) % 1
    pictures = content_keys(part.batch.image)
    rows = [torch.stack([pictures, torch.full_like(pictures, run)], 1) for run in runs]
    times = pipeline.diffusion.draw_times(u.clamp(1e-3, 1 - 1e-3)).to(pipeline.device)
    noise = part_noise(pipeline, part, ("validation",), torch.cat(rows))
    with computing(pipeline.device, pipeline.precision):
        each = errors_of(pipeline, part, times, noise).double().cpu()
    bins = (u * BINS).long().clamp_max(BINS - 1)[: len(each)]
    totals[0].index_add_(0, bins, each)
    totals[1].index_add_(0, bins, counts_of(pipeline, part).double().cpu())
    return totals
