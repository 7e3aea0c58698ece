"""Validation while training: a few evaluation images of every task, scored, drawn and compared."""

from __future__ import annotations

import time
from typing import Any

import torch

from stepsight import checkpoint
from stepsight.data.resize import resize_sample
from stepsight.diffusion.noise import row_noise
from stepsight.evaluation.evaluate import score_tasks
from stepsight.evaluation.evaluator import Scores, Setting
from stepsight.evaluation.jobs import Plan
from stepsight.evaluation.results import metrics_of
from stepsight.pipeline.inputs import content_keys
from stepsight.report.console import Console
from stepsight.training.batches import counts_of, errors_of, stack_part
from stepsight.training.folder import RunWriter
from stepsight.training.setup import Setup
from stepsight.training.state import best_score

CHUNK = 32  # images whose loss is taken together
BINS = 4  # of the noise levels


def validate(s: Setup, run: RunWriter, console: Console) -> float:
    """Score a few evaluation images of every task with the averaged weights; seconds it took."""
    settings, clock, spent = s.config.evaluation, time.perf_counter(), time.process_time()
    with s.averaged() as pipeline:
        plan = Plan(
            nfe=[],
            members=[],
            usual=True,
            images=s.config.training.validation_images,
            sampler=s.config.diffusion.sampler,
            seed=settings.seed,
            rows=settings.batch,
        )
        every = score_tasks(pipeline, s.evaluation_sources, plan)
        rows = [validation_row(s, scores, next(iter(scores.settings))) for scores in every]
        if s.main:
            for row in rows:
                run.log(row)
            seen = s.step * s.config.training.batch
            picture = run.samples / f"{checkpoint.step_name(s.step)}.png"
            few = 2 if seen < s.config.training.images else 3
            s.draw(pipeline, picture, images=few)
    score = best_score(rows)
    s.is_best, s.best = score < s.best, min(s.best, score)
    console.validation(s.step, rows, checkpoint.step_name(s.step) if s.is_best else None)
    s.validation_s += time.process_time() - spent
    return time.perf_counter() - clock


def validation_row(s: Setup, scores: Scores, setting: Setting) -> dict[str, Any]:
    """A `val` line of metrics.jsonl."""
    loss, bins = validation_loss(s, scores.task)
    s.losses[scores.task], s.loss_bins[scores.task] = loss, bins
    names = scores.baselines.items()
    return {
        "kind": "val",
        "step": s.step,
        "images_seen": s.step * s.config.training.batch,
        "task": scores.task,
        "data": scores.source,
        "nfe": setting[0],
        "members": setting[1],
        "n": len(scores.keys),
        "loss": loss,
        "loss_bins": bins,
        "metrics": metrics_of(scores.settings[setting], scores.protocol),
        "baselines": {name: metrics_of(own, scores.protocol) for name, own in names},
        "seconds": s.elapsed(),
    }


@torch.inference_mode()
def validation_loss(s: Setup, task: str) -> tuple[float, list[float]]:
    """The training loss of the network as it is, and the same in `BINS` equal shares of the noise
    levels drawn, clean to noisy. Images, levels and noise are the same for every checkpoint of
    every run, and the levels are stratified. The objective "end_to_end" has one level, so no bins.
    """
    source = s.evaluation_sources[task]
    count = min(s.config.training.validation_images, len(source))
    errors, counts = torch.zeros(BINS, dtype=torch.float64), torch.zeros(BINS, dtype=torch.float64)
    for start in range(0, count, CHUNK):
        picks = range(start, min(start + CHUNK, count))
        samples = [resize_sample(one, s.sizes[task]) for one in source.samples(picks)]
        part = stack_part(s, task, samples)
        assert part.coded.x is not None and part.batch is not None
        runs = range(part.task.passes)
        u = (torch.tensor([*picks] * len(runs), dtype=torch.float32) * 0.618034 + 0.5) % 1
        pictures = content_keys(part.batch.image)
        keys = [("validation", key, *([run] if run else [])) for run in runs for key in pictures]
        noise = row_noise(part.coded.x.shape[1:], keys).to(s.device)
        times = s.diffusion.draw_times(u.clamp(1e-3, 1 - 1e-3)).to(s.device)
        each = errors_of(s, s.net, part, times, noise).double().cpu()
        bins = (u * BINS).long().clamp_max(BINS - 1)[: len(each)]
        errors.index_add_(0, bins, each)
        counts.index_add_(0, bins, counts_of(s, part).double().cpu())
    loss = float(errors.sum() / counts.sum().clamp_min(1))
    if s.config.diffusion.objective == "end_to_end":
        return loss, []
    return loss, (errors / counts).tolist()
