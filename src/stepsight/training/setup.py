"""Everything a training run stands on, built in one place and in one order."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn

from stepsight.config import RunConfig
from stepsight.data.bank import Bank
from stepsight.data.collate import collate
from stepsight.data.config import ScenesSettings
from stepsight.data.mixture import Draw, Mixture, Stream
from stepsight.data.resize import resize_sample
from stepsight.data.scenes.source import Scenes
from stepsight.data.table import Source
from stepsight.diffusion.noise import row_noise
from stepsight.diffusion.objective import Diffusion
from stepsight.diffusion.samplers import steps_for
from stepsight.errors import UserError
from stepsight.evaluation.evaluator import Scores, Setting
from stepsight.evaluation.pictures import sample_grid
from stepsight.evaluation.results import metrics_of
from stepsight.evaluation.run import forward_flops, open_sources, overlap, pick_sources
from stepsight.evaluation.trivial import STATISTICS_IMAGES, statistics
from stepsight.models.codec import Pixels
from stepsight.pipeline import DensePipeline, build_network, check_sizes, code
from stepsight.tasks.base import Task
from stepsight.tasks.config import SemanticSettings
from stepsight.tasks.table import build_tasks
from stepsight.training import distributed
from stepsight.training.config import TrainingSettings
from stepsight.training.folder import RunWriter
from stepsight.training.optim import EMA, build_optimizers

AHEAD = 512  # samples a bank is filled by at a time


@dataclass
class Setup:
    """A run in progress: what does not change, and where it stands."""

    config: RunConfig
    accelerator: Accelerator
    tasks: dict[str, Task]
    net: nn.Module
    banks: dict[str, Bank]
    evaluation_sources: dict[str, Source]  # by task
    sizes: dict[str, tuple[int, int]]  # by task
    mixture: Mixture
    label: str | None

    codec: Pixels = field(default_factory=Pixels)
    statistics: dict[str, Tensor] = field(default_factory=dict)
    forward_flops: dict[str, float] = field(default_factory=dict)
    training_flops: float = 0.0
    step: int = 0
    started_at: int = 0
    best: float = math.inf
    is_best: bool = False
    losses: dict[str, float] = field(default_factory=dict)  # validation loss by task
    filled: dict[str, int] = field(default_factory=dict)  # leading rows of each bank that are made
    rendering_s: float = 0.0  # processor seconds spent on making samples
    began: float = field(default_factory=time.perf_counter)
    start_up_s: float = 0.0
    cpu_began: float = 0.0  # processor seconds of this process when the loop began

    def __post_init__(self) -> None:
        self.labels = {task: row for row, task in enumerate(self.tasks)}
        self.channels = max(task.channels for task in self.tasks.values())
        self.diffusion = Diffusion(self.config.diffusion)
        self.device, self.main = self.accelerator.device, self.accelerator.is_main_process
        self.net.to(self.device)
        self.model = self.accelerator.prepare_model(self.net)
        self.optimizers = build_optimizers(self.net, self.config.training)
        self.ema = EMA(self.net, self.config.training.ema)
        pipeline = self.pipeline()
        self.forward_flops = {task: forward_flops(pipeline, task) for task in self.tasks}

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

    def supply(self, draw: Draw) -> None:
        """Make the samples that a draw reads, and some ahead, if they are not there yet."""
        self.fill(draw.stream.source, max(draw.indices) + 1)

    def fill(self, name: str, wanted: int) -> None:
        """Make the leading `wanted` rows of a bank; the processes share the work."""
        bank, done = self.banks[name], self.filled.get(name, 0)
        if wanted <= done:
            return
        upto = min(len(bank), -(-wanted // AHEAD) * AHEAD)
        clock = time.process_time()
        bank.fill(self.accelerator.process_index, self.accelerator.num_processes, stop=upto)
        self.rendering_s += time.process_time() - clock
        self.accelerator.wait_for_everyone()
        self.filled[name] = upto

    def pipeline(self) -> DensePipeline:
        return DensePipeline(self.net, self.tasks, self.config, self.sizes, self.statistics)

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
        settings = self.config.evaluation
        members = settings.members
        sample_grid(
            pipeline,
            self.evaluation_sources,
            path,
            nfe=settings.nfe,
            members=members,
            images=images,
        )

    def validation_row(self, scores: Scores, setting: Setting) -> dict[str, Any]:
        """A `val` line of metrics.jsonl."""
        loss = self.validation_loss(scores.task)
        self.losses[scores.task] = loss
        names = scores.baselines.items()
        return {
            "kind": "val",
            "step": self.step,
            "images_seen": self.step * self.config.training.batch,
            "task": scores.task,
            "data": scores.source,
            "nfe": setting[0],
            "members": setting[1],
            "n": len(scores.keys),
            "loss": loss,
            "metrics": metrics_of(scores.settings[setting], scores.protocol),
            "baselines": {name: metrics_of(own, scores.protocol) for name, own in names},
            "seconds": self.elapsed(),
        }

    @torch.inference_mode()
    def validation_loss(self, task: str) -> float:
        """Denoising loss of the network as it is on fixed images, noise levels and noise."""
        source = self.evaluation_sources[task]
        count = min(self.config.training.validation_images, len(source))
        total = valid = 0.0
        for start in range(0, count, 32):
            picks = range(start, min(start + 32, count))
            samples = [resize_sample(one, self.sizes[task]) for one in source.samples(picks)]
            batch = collate(samples).to(self.device)
            coded = code(
                batch, self.tasks[task], self.labels[task], self.channels, self.codec, True
            )
            assert coded.x is not None
            u = (torch.tensor(picks, dtype=torch.float32) * 0.618034 + 0.5) % 1
            noise = row_noise(coded.x.shape[1:], [("validation", key) for key in batch.keys])
            times = self.diffusion.draw_times(u.clamp(1e-3, 1 - 1e-3)).to(self.device)
            errors, counts = self.diffusion.loss(self.net, coded, times, noise.to(self.device))
            total, valid = total + float(errors.sum()), valid + float(counts.sum())
        return total / max(valid, 1.0)


def preflight(config: RunConfig) -> None:
    """Raise UserError for what would stop the run later, before anything is written."""
    check_processes(config.training, distributed.world())
    tasks = build_tasks(config.tasks)
    quantities = frozenset(task.needs for task in tasks.values())
    sources = open_sources(config, quantities, "train")
    match(tasks, open_sources(config, quantities, "eval"), config)
    streams = match(tasks, sources, config)
    for stream in streams:
        task, classes = tasks[stream.task], len(sources[stream.source].classes)
        if isinstance(task, SemanticSettings) and task.classes < classes:
            raise UserError(
                f"tasks.{task.name}.classes={task.classes}: {stream.source} has {classes} classes. "
                f"Use {classes}."
            )
    with torch.device("meta"):
        net = build_network(config, tasks)
    check_sizes(net, {stream.task: sources[stream.source].size for stream in streams})
    Diffusion(config.diffusion)
    wanted = {
        config.evaluation.nfe,
        *(config.evaluation.sweep_nfe if config.evaluation.sweep else ()),
    }
    for nfe in sorted(wanted):
        steps_for(config.diffusion.sampler, nfe)


def prepare(config: RunConfig, run: RunWriter) -> Setup:
    """Open the data, build the network, and gather the statistics of the trivial predictors."""
    accelerator = make_accelerator(config.training)
    tasks = build_tasks(config.tasks)
    quantities = frozenset(task.needs for task in tasks.values())
    sources = open_sources(config, quantities, "train")
    streams = match(tasks, sources, config)
    torch.manual_seed(config.training.seed)  # the initial weights
    net = build_network(config, tasks)
    sizes = {stream.task: sources[stream.source].size for stream in reversed(streams)}
    check_sizes(net, sizes)
    used = {stream.source for stream in streams}
    banks = {name: make_bank(config, name, sources[name], run.path) for name in used}
    pipeline = DensePipeline(net, tasks, config, sizes)
    held = open_sources(config, quantities, "eval")
    setup = Setup(
        config,
        accelerator,
        tasks,
        net,
        banks,
        pick_sources(pipeline, held, list(tasks)),
        sizes,
        Mixture(streams, config.training.batch, config.training.seed),
        overlap(config, config.data.values()),
    )
    gather_statistics(setup)
    return setup


def make_accelerator(settings: TrainingSettings) -> Accelerator:
    """Processes, device and precision; parameters that a task does not use are allowed."""
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(
        mixed_precision=settings.precision,
        kwargs_handlers=[unused],
        cpu=not torch.cuda.is_available(),
    )


def check_processes(settings: TrainingSettings, world: int) -> None:
    """There must be as many processes as asked for, and the batch must share out evenly."""
    if settings.processes and world != settings.processes:
        raise UserError(
            f"expected {settings.processes} processes (training.processes), got {world}. Launch "
            f"with torchrun --nproc-per-node {settings.processes}, or set training.processes to 0."
        )
    parts = settings.accumulate * world
    if settings.batch % parts:
        low = max(settings.batch // parts, 1) * parts
        raise UserError(
            f"training.batch={settings.batch} does not divide by {settings.accumulate} "
            f"micro-batches x {world} processes. Nearest: {low}, {low + parts}."
        )


def match(
    tasks: Mapping[str, Task], sources: Mapping[str, Source], config: RunConfig
) -> list[Stream]:
    """Every pair of a task and a source that holds its truth, weighted by both."""
    streams = []
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
            independent = isinstance(config.data[one], ScenesSettings)
            streams.append(Stream(name, one, weight, len(sources[one]), independent))
    return streams


def make_bank(config: RunConfig, name: str, source: Source, run: Path) -> Bank:
    """Where a source's training samples are kept at working size, empty until they are needed."""
    settings, folder = config.data[name], run / ".bank" / name
    fingerprint = repr((replace(settings, weight=1.0), config.data_root, sorted(source.quantities)))
    if isinstance(source, Scenes):
        fingerprint = source.fingerprint
        cache = source.settings.cache
        folder = Path(cache) / fingerprint if cache else folder
    return Bank.create(source, len(source), folder, fingerprint)


def drop_banks(run: Path) -> None:
    """Remove the samples that were made for this run only."""
    shutil.rmtree(run / ".bank", ignore_errors=True)


def gather_statistics(s: Setup) -> None:
    """Sums over training samples, for the trivial predictors that learn something."""
    for name, task in s.tasks.items():
        source = next(stream.source for stream in s.mixture.streams if stream.task == name)
        s.fill(source, min(STATISTICS_IMAGES, len(s.banks[source])))
        s.statistics[name] = statistics(task, s.banks[source])
