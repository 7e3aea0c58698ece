"""Everything a training run stands on, built in one place and in one order."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn

from stepsight import checkpoint, distributed
from stepsight.checkpoint import Checkpoint
from stepsight.coding import Layout, build_network, check_sizes
from stepsight.config import RunConfig
from stepsight.conversion.adapt import adapt
from stepsight.data.cache.bank import Bank
from stepsight.data.config import ScenesSettings
from stepsight.data.loader import Loader, Reader, Request
from stepsight.data.mixture import Draw, Mixture, Stream
from stepsight.data.table import Source
from stepsight.diffusion.objective import Diffusion
from stepsight.errors import UserError
from stepsight.evaluation.bounds.trivial import STATISTICS_IMAGES, statistics
from stepsight.evaluation.pictures import sample_grid
from stepsight.evaluation.records import cost_of, forward_flops, picture_flops
from stepsight.evaluation.sources import open_sources, overlap, pick_sources
from stepsight.models.codec import Codec, open_codec
from stepsight.pipeline.dense import DensePipeline
from stepsight.report.console import Console
from stepsight.tasks.base import Task
from stepsight.tasks.table import build_tasks
from stepsight.training.checks import (
    check_classes,
    check_objective,
    check_processes,
    same_experts,
)
from stepsight.training.config import TrainingSettings
from stepsight.training.folder import RunWriter
from stepsight.training.latents import Latents
from stepsight.training.optim import EMA, build_optimizers
from stepsight.training.rows import Objective, Rows, rows_a_picture, rows_of
from stepsight.training.stores import (
    check_reading,
    cut_streams,
    every_size,
    make_stores,
    open_latents,
    streamed,
)

AHEAD = 512  # samples a bank is filled by at a time
Size = tuple[int, int]  # height, width


@dataclass
class Setup:
    """A run in progress: what does not change, and where it stands."""

    config: RunConfig
    accelerator: Accelerator
    tasks: dict[str, Task]
    net: nn.Module
    codec: Codec
    stores: dict[str, Bank | Latents]  # training samples by source, made as they are needed
    streamed: dict[str, Source]  # sources that are read anew each time
    evaluation_sources: dict[str, Source]  # by task
    sizes: dict[str, Size]  # by task
    mixture: Mixture
    label: str | None
    console: Console

    statistics: dict[str, Tensor] = field(default_factory=dict)
    forward_flops: dict[str, float] = field(default_factory=dict)
    training_flops: float = 0.0
    inherited_flops: float = 0.0  # spent on the weights that the run started from
    step: int = 0
    started_at: int = 0
    best: float = math.inf
    is_best: bool = False
    losses: dict[str, float] = field(default_factory=dict)  # validation loss by task
    loss_bins: dict[str, list[float]] = field(default_factory=dict)  # by noise level, and task
    parent: str = ""  # run that the weights started from
    filled: dict[str, int] = field(default_factory=dict)  # leading rows of each store that are made
    rendering_s: float = 0.0  # processor seconds spent on making samples
    validation_s: float = 0.0  # and on validation
    began: float = field(default_factory=time.perf_counter)
    start_up_s: float = 0.0
    cpu_began: float = 0.0  # processor seconds of this process when the loop began

    def __post_init__(self) -> None:
        self.layout = Layout.of(self.tasks, self.codec)
        self.diffusion = Diffusion(self.config.diffusion)
        self.device, self.main = self.accelerator.device, self.accelerator.is_main_process
        self.net.to(self.device)
        self.codec.to(self.device)
        self.objective = Objective(self.net, self.diffusion, self.codec)
        self.model = self.accelerator.prepare_model(self.objective)
        self.optimizers = build_optimizers(self.net, self.config.training)
        self.ema = EMA(self.net, self.config.training.ema)
        pipeline = self.pipeline()
        self.forward_flops = {task: forward_flops(pipeline, task) for task in self.tasks}
        self.flops_of = lru_cache(self._flops_of)
        settings = self.config.training
        reader = Reader(self.streamed, streamed(self.config), settings.seed, settings.flip)
        self.loader = Loader(reader, self.requests, settings.workers)

    def elapsed(self) -> float:
        return time.perf_counter() - self.began

    def summed(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        total = self.accelerator.reduce(value, reduction="sum")
        assert isinstance(total, Tensor)
        return total

    def synchronised(self, last: bool) -> AbstractContextManager:
        """Gradients travel between processes with the last micro-batch only."""
        return nullcontext() if last else self.accelerator.no_sync(self.model)

    def micro_batches(self) -> list[range]:
        """Row numbers of the global batch that this process takes, a range a micro-batch."""
        parts = self.accelerator.num_processes * self.config.training.accumulate
        size = self.config.training.batch // parts
        first = self.accelerator.process_index
        starts = range(first, parts, self.accelerator.num_processes)
        return [range(one * size, (one + 1) * size) for one in starts]

    def requests(self, step: int) -> Iterator[Request]:
        """What this process reads of streamed sources, from a step on."""
        while True:
            draw = self.mixture.draw(step)
            if draw.stream.source in self.streamed:
                yield from (Request.of(draw, step, rows) for rows in self.micro_batches())
            step += 1

    def rows(self, step: int, pictures: range) -> Rows:
        """The kinds of the rows of a micro-batch."""
        return rows_of(self.config.training, step, pictures).to(self.device)

    def share(self, task: str, stream: Stream) -> float:
        """What the loss of a task weighs in a batch of a stream, so that over all batches tasks
        weigh what their settings say: 1 where all have the same truths and weights."""
        every = self.mixture.streams
        drawn = sum(len(one.tasks) * one.weight for one in every)
        mean = drawn / sum(one.weight for one in every)  # tasks a batch
        return mean * stream.share(task)

    def _flops_of(self, stream: Stream) -> float:
        """FLOPs of one forward pass of a picture's rows of all tasks of a stream."""
        pipeline = self.pipeline()
        costs = [cost_of(pipeline, task, stream.size) for task in stream.tasks]
        return picture_flops(costs, rows_a_picture(self.config))

    def supply(self, draw: Draw) -> None:
        """Make the samples that a draw reads, and some ahead, if they are not there yet."""
        if draw.stream.source in self.stores:
            self.fill(draw.stream.source, max(draw.indices) + 1)

    def fill(self, name: str, wanted: int) -> None:
        """Make the leading `wanted` rows of a store; the processes share the work."""
        rows = self.stores[name]
        if wanted <= self.filled.get(name, 0):
            return
        upto = min(len(rows.store), -(-wanted // AHEAD) * AHEAD)
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        total = sum(map(len, rows.store.blank_blocks(rank, world, upto)))
        clock = time.process_time()
        with self.console.counted(f"samples of {name}", total, least=AHEAD) as advance:
            rows.fill(rank, world, stop=upto, report=advance)
        self.rendering_s += time.process_time() - clock
        self.accelerator.wait_for_everyone()
        self.filled[name] = upto

    def pipeline(self, sizes: Mapping[str, Size] | None = None) -> DensePipeline:
        sizes = dict(sizes or self.sizes)
        return DensePipeline(
            self.net, self.tasks, self.config, sizes, self.statistics, codec=self.codec
        )

    @contextmanager
    def averaged(self) -> Iterator[DensePipeline]:
        """A pipeline with the averaged weights, while the block lasts."""
        self.ema.swap(self.net)
        self.net.eval()
        try:
            yield self.pipeline()
        finally:
            self.net.train()
            self.ema.swap(self.net)

    def draw(self, pipeline: DensePipeline, path: Path, images: int) -> None:
        """A sample grid of every task."""
        sample_grid(pipeline, self.evaluation_sources, path, images=images)


def preflight(
    config: RunConfig, run: Path, past: Checkpoint | None = None, start: Checkpoint | None = None
) -> None:
    """Raise UserError for what would stop the run later, before anything is written.

    past: the checkpoint it continues. start: the one whose weights it starts from.
    """
    check_processes(config.training, distributed.world())
    check_reading(config)
    tasks = build_tasks(config.tasks)
    quantities = frozenset(task.needs for task in tasks.values())
    sources = open_sources(config, quantities, "train")
    match(tasks, open_sources(config, quantities, "eval"), config)
    streams = cut_streams(match(tasks, sources, config), sources, config)
    check_classes(streams, tasks, sources)
    Mixture(streams, config.training.batch, config.training.seed)
    codec = _codec_of(config, run, past)
    if config.training.latents:
        list(open_latents(config, tasks, codec, sources, streams, present=True))
    with torch.device("meta"):
        net = build_network(config, tasks, codec)
    check_sizes(net, every_size(streams, sources), codec.downsample)
    if start is not None:
        weights = adapt(start, net, Layout.of(tasks, codec), codec)
        checkpoint.check_weights(net, weights, start.path)
        same_experts(start, config)
    check_objective(config, begun=past is not None or start is not None)


def _codec_of(config: RunConfig, run: Path, past: Checkpoint | None = None) -> Codec:
    """The codec of a run: its own copy once it has one. Raises UserError if `past` had another."""
    codec = open_codec(config.codec, kept=run / checkpoint.CODEC if past is not None else None)
    if past is not None and past.meta.get("codec", codec.name) != codec.name:
        raise UserError(
            f"{past.path} was trained in the latents of {past.meta['codec']}, codec.path is "
            f"{codec.name} now. Name the VAE it was trained with."
        )
    return codec


def prepare(
    config: RunConfig,
    run: RunWriter,
    past: Checkpoint | None = None,
    console: Console | None = None,
) -> Setup:
    """Open the data, build the network, and gather the statistics of the trivial predictors."""
    accelerator = make_accelerator(config.training)
    tasks = build_tasks(config.tasks)
    quantities = frozenset(task.needs for task in tasks.values())
    sources = open_sources(config, quantities, "train")
    streams = cut_streams(match(tasks, sources, config), sources, config)
    torch.manual_seed(config.training.seed)  # the initial weights
    codec = _codec_of(config, run.path, past)
    net = build_network(config, tasks, codec)
    first = {task: stream.source for stream in reversed(streams) for task in stream.tasks}
    sizes = {task: sources[first[task]].size for task in tasks}
    check_sizes(net, sizes, codec.downsample)
    pipeline = DensePipeline(net, tasks, config, sizes, codec=codec)
    used = {stream.source for stream in streams if stream.weight > 0}
    held = open_sources(config, quantities, "eval")
    setup = Setup(
        config,
        accelerator,
        tasks,
        net,
        codec,
        make_stores(
            config,
            tasks,
            codec.to(accelerator.device),
            sources,
            streams,
            run.path,
            accelerator.device,
        ),
        {name: sources[name] for name in streamed(config) if name in used},
        pick_sources(pipeline, held, list(tasks)),
        sizes,
        Mixture(streams, config.training.batch, config.training.seed),
        overlap(config, config.data.values()),
        console or Console(enabled=False),
    )
    gather_statistics(setup, sources)
    return setup


def make_accelerator(settings: TrainingSettings) -> Accelerator:
    """Processes, device and precision; parameters that a task does not use are allowed."""
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(
        mixed_precision=precision_of(settings),
        kwargs_handlers=[unused],
        cpu=not torch.cuda.is_available(),
    )


def precision_of(settings: TrainingSettings) -> str:
    """What the forward pass computes in: "auto" is bfloat16 where the device multiplies it fast."""
    if settings.precision != "auto":
        return settings.precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() else "no"


def match(
    tasks: Mapping[str, Task], sources: Mapping[str, Source], config: RunConfig
) -> list[Stream]:
    """Every source with the tasks whose truth it holds.

    The weight of a task is shared by its sources by their own; a source is drawn by the sum over
    its tasks.
    """
    weights: dict[str, dict[str, float]] = {}
    for name, task in tasks.items():
        fitting = [one for one, source in sources.items() if task.needs in source.quantities]
        if not fitting:
            raise UserError(
                f"task {name} needs {task.needs}; no source of this run has it "
                f"({', '.join(sources)}). Add a source under data, or drop the task."
            )
        share = sum(config.data[one].weight for one in fitting)
        if not task.weight * share:
            raise UserError(
                f"tasks.{name} would get no batches: its weight, or that of {', '.join(fitting)}, "
                f"is 0. Give it a weight, or leave the task out."
            )
        for one in fitting:
            weight = task.weight * config.data[one].weight / share
            weights.setdefault(one, {})[name] = weight
    return [_stream(sources[one], one, own, config) for one, own in weights.items()]


def _stream(source: Source, name: str, weights: Mapping[str, float], config: RunConfig) -> Stream:
    independent = isinstance(config.data[name], ScenesSettings)
    groups = getattr(source, "groups", ())  # of sharded sources
    learning = tuple(task for task, weight in weights.items() if weight > 0)
    tasks = learning or tuple(weights)
    own = tuple(weights[task] for task in tasks)
    return Stream(tasks, name, sum(own), len(source), independent, groups, shares=own)


def gather_statistics(s: Setup, sources: Mapping[str, Source]) -> None:
    """Sums over training samples, for the trivial predictors that learn something."""
    streams = reversed(s.mixture.streams)
    first = {task: stream.source for stream in streams for task in stream.tasks}
    for source in sorted(set(first.values())):
        own = {name: task for name, task in s.tasks.items() if first[name] == source}
        store = s.stores.get(source)
        if isinstance(store, Bank):
            s.fill(source, min(STATISTICS_IMAGES, len(store)))
        else:
            count = min(STATISTICS_IMAGES, len(sources[source]))
            s.console.note(f"reads {count} samples of {source} for the trivial predictors")
        s.statistics |= statistics(own, store if isinstance(store, Bank) else sources[source])
