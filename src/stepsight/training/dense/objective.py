"""The objective of a backbone: the denoised targets of all tasks whose truth a picture has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from stepsight import checkpoint, distributed
from stepsight.checkpoint import Checkpoint
from stepsight.coding import Layout, build_network, check_sizes
from stepsight.config import RunConfig
from stepsight.conversion.adapt import adapt
from stepsight.data.mixture import Draw, Mixture, Stream
from stepsight.data.table import Source, truths_of
from stepsight.errors import UserError, command
from stepsight.evaluation.bounds import STATISTICS_IMAGES, statistics
from stepsight.evaluation.evaluate import evaluate
from stepsight.evaluation.jobs import ScoringPlan
from stepsight.evaluation.pictures import sample_grid
from stepsight.evaluation.records import cost_of, forward_flops, identity_of, picture_flops
from stepsight.evaluation.sources import pick_sources, remark
from stepsight.models.codec import Codec, open_codec
from stepsight.pipeline.dense import DensePipeline
from stepsight.report.console import Console
from stepsight.testtime.variants import starts_of
from stepsight.training.dense.batches import Part, codings_of, read_parts
from stepsight.training.dense.checks import (
    check_classes,
    check_experts,
    check_network,
    check_objective,
)
from stepsight.training.dense.errors import Coding, RowErrors
from stepsight.training.dense.live import LiveReport
from stepsight.training.dense.rows import Rows, rows_of, rows_per_picture
from stepsight.training.dense.tuning import tuned
from stepsight.training.dense.validation import bad_items, validate
from stepsight.training.feed import Feed, open_banks, open_latents
from stepsight.training.folder import RunWriter
from stepsight.training.progress import Progress
from stepsight.training.spec import RunSpec, first_sources


class DenseObjective:
    """A pipeline whose backbone is trained. See `training.objective.Objective`."""

    def __init__(self, pipeline: DensePipeline, held: dict[str, Source]) -> None:
        """held: what each task is scored on."""
        self.pipeline, self.held = pipeline, held
        self.config, self.net = pipeline.config, pipeline.net
        self.errors = RowErrors(pipeline.net, pipeline.diffusion, pipeline.codec)
        self.flops = lru_cache(self._flops)
        self._live = LiveReport()

    @classmethod
    def check(cls, spec: RunSpec) -> None:
        config, tasks, parent = spec.config, spec.tasks, spec.parent
        check_classes(spec.streams, tasks, spec.sources)
        Mixture(spec.streams, config.training.batch, config.training.seed)
        codec = _codec_of(spec)
        if config.training.latents:
            open_latents(spec, codec, present=True)
        with torch.device("meta"):
            net = build_network(config, tasks, codec)
        check_network(net)
        check_sizes(net, spec.every_size(), codec.downsample)
        if parent is not None:
            weights = adapt(parent, net, Layout.of(tasks, codec), codec)
            checkpoint.check_weights(net, weights, parent.path)
            check_experts(parent, config)
        check_objective(config, begun=spec.past is not None or parent is not None)

    @classmethod
    def open(cls, spec: RunSpec, device: torch.device, console: Console) -> tuple[Self, Feed]:
        config, tasks, kept = spec.config, spec.tasks, spec.folder / checkpoint.CODEC
        torch.manual_seed(config.training.seed)  # the initial weights
        codec = _codec_of(spec).to(device)
        if distributed.rank() == 0 and not kept.exists():
            codec.save(kept)
        net = build_network(config, tasks, codec).to(device)
        cached = config.training.latents
        stores = open_latents(spec, codec, device) if cached else open_banks(spec)
        feed = Feed(spec, stores, device, console)
        learned = _statistics(spec, feed)
        pipeline = DensePipeline(net, tasks, config, spec.sizes, learned, codec=codec)
        return cls(pipeline, pick_sources(pipeline, spec.held, list(tasks))), feed

    @property
    def statistics(self) -> Mapping[str, Tensor]:
        return self.pipeline.statistics

    @property
    def forward_flops(self) -> float:
        tasks = self.pipeline.tasks
        return sum(forward_flops(self.pipeline, task) for task in tasks) / len(tasks)

    def _flops(self, stream: Stream) -> float:
        costs = [cost_of(self.pipeline, task, stream.size) for task in stream.tasks]
        return picture_flops(costs, rows_per_picture(self.config))

    def facts(self) -> dict[str, Any]:
        return {
            "sizes": {task: list(size) for task, size in self.pipeline.sizes.items()},
            "tasks": list(self.pipeline.tasks),
            "codec": self.pipeline.codec.name,
        }

    def adapted(self, parent: Checkpoint) -> dict[str, Tensor]:
        return adapt(parent, self.net, self.pipeline.layout, self.pipeline.codec)

    def read(self, feed: Feed, draw: Draw, step: int, rows: range) -> list[Part]:
        return read_parts(self.pipeline, feed, draw, step, rows)

    def prepare(self, read: Sequence[Part], step: int, rows: range) -> tuple[list[Coding], Rows]:
        kinds = rows_of(self.config.training, step, rows).to(self.pipeline.device)
        return codings_of(self.pipeline, read, step, rows), kinds

    def validate(
        self, net: nn.Module, progress: Progress, writer: RunWriter, console: Console
    ) -> bool:
        pipeline = copy(self.pipeline)
        pipeline.net = net
        best = validate(pipeline, self.held, progress, writer, console)
        if writer.main:
            self._live.update(writer.path, console.warn)
        return best

    def finish(self, feed: Feed, writer: RunWriter, console: Console) -> tuple[Path, str]:
        following = command("evaluate", "--checkpoint", writer.path)
        if not self.config.training.evaluate:
            return writer.path, following
        evaluate_run(self.config, self.held, self.pipeline.device, writer, console)
        return writer.path / "report.html", following


def evaluate_run(
    config: RunConfig,
    held: dict[str, Source],
    device: torch.device,
    writer: RunWriter,
    console: Console,
) -> None:
    """The full evaluation, the sweep and the report, with the best checkpoint's weights."""
    from stepsight.report.page import write_report  # with matplotlib and scipy, which no step needs
    from stepsight.testtime.sweep import sweep

    settings, bad = config.evaluation, bad_items(config.training)
    saved = checkpoint.read_best(writer.path, console.warn)
    pipeline = DensePipeline.from_pretrained(saved, device)
    if settings.tuning_images:
        facts = tuned(pipeline, bad)
        if writer.main:
            checkpoint.amend(saved.path, **facts)
        distributed.barrier()
        saved = checkpoint.read(saved.path, lazy=True)
        pipeline = DensePipeline.from_pretrained(saved, device)
    identity = identity_of(saved, pipeline)
    if said := remark(saved, config.data.values()):
        console.warn(said)
    common: dict[str, Any] = dict(
        sampler=config.diffusion.sampler,
        seed=settings.seed,
        chunk_size=settings.batch,
        label=said or None,
        bad=bad,
    )
    out = writer.records, console.advance
    plan = ScoringPlan([], [], settings.images, usual=True, **common)
    console.phase("evaluate", sum(map(plan.count, held.values())))
    evaluate(writer.path / "eval", pipeline, held, plan, identity, *out)
    if settings.sweep:
        axes = settings.sweep_nfe, settings.sweep_members, settings.sweep_images
        plan = ScoringPlan(*axes, **common)
        console.phase("sweep", sum(map(plan.count, held.values())) * len(starts_of(config)))
        sweep(writer.path / "sweep", pipeline, held, plan, identity, *out)
    if writer.main:
        sample_grid(pipeline, held, writer.samples / "final.png", images=4, bad=bad)
        write_report(writer.path)
    distributed.barrier()


def _codec_of(spec: RunSpec) -> Codec:
    """The codec of a run: its own copy once it has one. Raises UserError where it had another."""
    past = spec.past
    kept = spec.folder / checkpoint.CODEC if past is not None else None
    codec = open_codec(spec.config.codec, kept=kept)
    if past is not None and past.meta.get("codec", codec.name) != codec.name:
        raise UserError(
            f"{past.path} was trained in the latents of {past.meta['codec']}, codec.path is "
            f"{codec.name} now. Name the VAE it was trained with."
        )
    return codec


def _statistics(spec: RunSpec, feed: Feed) -> dict[str, Tensor]:
    """Sums over training samples by task, for the trivial predictors that learn something."""
    first, sums = first_sources(feed.mixture.streams), dict[str, Tensor]()
    for name in sorted(set(first.values())):
        tasks = {key: task for key, task in spec.tasks.items() if first[key] == name}
        alike = not truths_of(spec.sources[name])  # then one reading serves all of its tasks
        for some in [tasks] if alike else [{key: task} for key, task in tasks.items()]:
            needs = frozenset(task.target_field for task in some.values())
            sums |= statistics(some, feed.leading(name, STATISTICS_IMAGES, needs))
    return sums
