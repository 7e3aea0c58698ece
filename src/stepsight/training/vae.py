"""Training a small VAE on the images and the encoded targets of a run's tasks.

A batch shows the VAE its images and its targets, as the pictures that the codec will make of them
(`models.vae.to_pictures`). With x a picture, x' decoded from a sample of its posterior, e = x' - x
and D finite differences along an axis, all of them means over entries:

    loss = |e| + e^2 + EDGES (|D_h e| + |D_w e|) + KL kl(posterior, N(0, 1))

An autoencoder with the tiny KL weight of Rombach et al. 2022 (section 3.1); the third term keeps
the edges of masks and depth sharp. There is no perceptual and no adversarial term: both need a
second network. At the end the latents are brought to mean 0 and deviation 1 (ibid., appendix G) by
`shift_factor` and `scaling_factor` of the saved configuration.

The stage is short: it runs in one process, writes no checkpoints and cannot be resumed.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor

from stepsight import distributed
from stepsight.config import RunConfig
from stepsight.data.augment import flip
from stepsight.data.cache.bank import Bank
from stepsight.data.collate import collate
from stepsight.data.mixture import Draw, Mixture
from stepsight.data.table import Source
from stepsight.errors import UserError
from stepsight.evaluation.sources import open_sources
from stepsight.measures import number
from stepsight.models.config import CodecSettings
from stepsight.models.factory import activation_bytes, flops_by_group, parameter_groups
from stepsight.models.vae import VAE, build_vae, check_sides, to_pictures
from stepsight.report.console import Console
from stepsight.seeding import generator
from stepsight.tasks.base import Task
from stepsight.tasks.table import build_tasks
from stepsight.training.config import TrainingSettings
from stepsight.training.folder import RunWriter, choose
from stepsight.training.loop import Meter, due
from stepsight.training.optim import EMA, build_optimizers, descend, rate
from stepsight.training.reconstruction import encode_passes, survival, survival_grid
from stepsight.training.setup import AHEAD, match
from stepsight.training.stores import check_reading, drop_banks, make_bank, streamed
from stepsight.training.tracker import Tracker

EDGES = 0.1
KL = 1e-6
SCALED_BY = 256  # training images, with their targets, that set the scale of the latents
FOLDER = "vae"  # of the run folder: what codec.path takes


@dataclass
class Stage:
    """A VAE in training, and what it is trained and validated on."""

    config: RunConfig
    tasks: dict[str, Task]
    banks: dict[str, Bank]
    mixture: Mixture
    held: list[tuple[Task, Source]]
    net: AutoencoderKL
    began: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self.steps = self.config.training.images // self.config.training.batch
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.net.to(self.device, memory_format=torch.channels_last)  # pyright: ignore
        self.optimizers = build_optimizers(self.net, self.config.training)
        self.ema = EMA(self.net, self.config.training.ema)

    def pictures(self, draw: Draw, task: str) -> Tensor:
        """What the VAE sees of a draw, "n 3 h w": its images, then their targets of a task.

        Some samples are mirrored; the bank is filled a little ahead.
        """
        bank = self.banks[draw.stream.source]
        bank.fill(stop=(max(draw.indices) // AHEAD + 1) * AHEAD)
        samples = bank.samples(draw.indices)
        if self.config.training.flip:
            samples = [flip(one) if yes else one for one, yes in zip(samples, draw.mirrored)]
        batch = collate(samples).to(self.device)
        target = encode_passes(self.tasks[task], batch)
        return torch.cat([batch.image, to_pictures(target)])

    def codec(self) -> VAE:
        """The VAE with the averaged weights, as it will be saved."""
        self.ema.swap(self.net)
        try:
            return VAE.from_module(self.net, CodecSettings())
        finally:
            self.ema.swap(self.net)

    def elapsed(self) -> float:
        return time.perf_counter() - self.began


def fit_vae(config: RunConfig, *, name: str, run_dir: str | None, overwrite: bool) -> Path:
    """Train the VAE `config.model.name`; returns the run folder, whose vae/ holds it.

    Raises UserError for anything the user can mend.
    """
    run = RunWriter(choose(run_dir, name, None, overwrite))
    check(config)
    run.create(config, anew=overwrite)
    run.checkpoints.rmdir()
    with Console(run.path / "train.log") as console:
        tracker = Tracker(config, run)
        try:
            s = prepare(config, run)
            console.header(header(s, run))
            train(s, run, console)
            finish(s, run)
        finally:
            tracker.close()
            drop_banks(run.path)
        folder = run.path / FOLDER
        console.done(s.elapsed(), folder, f"uv run train.py --codec.path {folder}")
    return run.path


def check(config: RunConfig) -> None:
    """Raise UserError for what would stop the run later, before anything is written."""
    training = config.training
    if training.processes > 1 or distributed.world() > 1:
        raise UserError(
            "training.processes: one process trains a VAE, with all cores. Set it to 0 or 1, and "
            "start without torchrun."
        )
    if training.accumulate > 1:
        raise UserError("training.accumulate: not for a VAE. Set it to 1, or lower the batch.")
    if config.codec.path:
        raise UserError("codec.path: a VAE is trained on pixels. Leave it empty.")
    if streamed(config):
        raise UserError("data: a VAE is trained on samples that are kept. Set stream to False.")
    check_reading(config)
    describe_vae(config)
    for split in ("train", "eval"):
        tasks, sources = _open(config, split)
        match(tasks, sources, config)


def precision_of(settings: TrainingSettings) -> str:
    """What a VAE computes in: float32 unless bfloat16 is asked for by name."""
    return "bf16" if settings.precision == "bf16" else "no"


def prepare(config: RunConfig, run: RunWriter) -> Stage:
    """Open the data and build the network."""
    tasks, sources = _open(config, "train")
    _, held = _open(config, "eval")
    streams = match(tasks, sources, config)
    used = {stream.source for stream in streams}
    torch.manual_seed(config.training.seed)  # the initial weights
    return Stage(
        config,
        tasks,
        {name: make_bank(config, name, sources[name], run.path) for name in used},
        Mixture(streams, config.training.batch, config.training.seed),
        [
            (tasks[task], held[one.source])
            for one in match(tasks, held, config)
            for task in one.tasks
        ],
        build_vae(config.model.name),
    )


def _open(config: RunConfig, split: Any) -> tuple[dict[str, Task], dict[str, Source]]:
    tasks = build_tasks(config.tasks)
    return tasks, open_sources(config, frozenset(task.needs for task in tasks.values()), split)


def header(s: Stage, run: RunWriter) -> list[str]:
    """What is about to happen."""
    settings, parameters = s.config.training, sum(p.numel() for p in s.net.parameters())
    shares = ", ".join(f"{task} {share:.0%}" for task, share in s.mixture.shares().items())
    return [
        f"stepsight  run {run.path}   seed {settings.seed}",
        f"model  {s.config.model.name}  {parameters / 1e6:.2f} M parameters",
        f"tasks  {shares}    data {', '.join(s.config.data)}",
        f"device {s.device}, {torch.get_num_threads()} threads, "
        f"precision {precision_of(settings)}    batch {settings.batch}, {settings.images} images",
    ]


def train(s: Stage, run: RunWriter, console: Console) -> None:
    """From the first batch to the last, logging and validating on the way."""
    settings, meter, started = s.config.training, Meter(), time.perf_counter()
    precision = precision_of(settings)
    for step in range(s.steps):
        clock = time.perf_counter()
        draw = s.mixture.draw(step)
        task = draw.stream.tasks[step % len(draw.stream.tasks)]  # tasks take turns
        pictures = s.pictures(draw, task)
        meter.waited += time.perf_counter() - clock

        with torch.autocast(s.device.type, torch.bfloat16, enabled=precision == "bf16"):
            loss = objective(s.net, pictures, generator(settings.seed, "posterior", step))
        loss_value = float(loss.detach())
        stop_if_not_finite(loss_value, step, draw, task)
        loss.backward()
        descend(s.net, s.optimizers, s.ema, settings, step * settings.batch)

        done, seen = step + 1, (step + 1) * settings.batch
        meter.loss[task].append(loss_value)
        meter.images += settings.batch
        last = done == s.steps
        if due(seen, settings.log_every) or last:
            eta = (time.perf_counter() - started) / done * (s.steps - done)
            report(s, run, console, meter, done, eta)
            meter = Meter()
        if due(seen, settings.validate_every) or seen == settings.first_validation or last:
            meter.since += validate(s, run, console, done)


def objective(net: AutoencoderKL, pictures: Tensor, draw: torch.Generator) -> Tensor:
    """The loss at the head of this module, a scalar, of pictures "n 3 h w" in [-1, 1]."""
    posterior = net.encode(pictures).latent_dist  # pyright: ignore[reportAttributeAccessIssue]
    found = net.decode(posterior.sample(draw)).sample  # pyright: ignore[reportAttributeAccessIssue]
    error = found.float() - pictures
    edges = error.diff(dim=-2).abs().mean() + error.diff(dim=-1).abs().mean()
    kl = posterior.kl().float().mean() / posterior.mean[0].numel()
    return error.abs().mean() + error.square().mean() + EDGES * edges + KL * kl


def stop_if_not_finite(loss: float, step: int, draw: Draw, task: str) -> None:
    if not math.isfinite(loss):
        raise UserError(
            f"loss is {loss} at step {step}, task {task}, samples "
            f"{list(draw.indices)} of {draw.stream.source}. Lower training.lr."
        )


def report(s: Stage, run: RunWriter, console: Console, meter: Meter, done: int, eta: float) -> None:
    """One training line, for people and for metrics.jsonl."""
    row, seen = meter.row(), done * s.config.training.batch
    lr = s.config.training.lr * rate(s.config.training, seen)
    console.train(
        done,
        s.steps,
        images_seen=seen,
        loss=row["loss"],
        losses={k.removeprefix("loss/"): v for k, v in row.items() if k.startswith("loss/")},
        images_per_s=row["images_per_s"],
        lr=lr,
        eta_s=eta,
        data_share=row["data_share"],
    )
    stamp = {"kind": "train", "step": done, "images_seen": seen}
    run.log(stamp | row | {"lr": lr, "seconds": s.elapsed()})


def validate(s: Stage, run: RunWriter, console: Console, done: int) -> float:
    """How well held-out images and targets survive the averaged VAE; the seconds it took."""
    clock, codec = time.perf_counter(), s.codec().to(s.device)
    stamp = {"kind": "val", "step": done, "images_seen": done * s.config.training.batch}
    for task, source in s.held:
        count = min(s.config.training.validation_images, len(source))
        found = survival(codec, task, source, count, s.device)
        console.note(
            f"val@{done}  {task.name} on {source.name}: image PSNR {number(found['psnr'])} dB, "
            f"target MAE {number(found['mae'])}  [{count} img]"
        )
        row = {"task": task.name, "data": source.name, "n": count, "metrics": found}
        run.log(stamp | row | {"seconds": s.elapsed()})
    return time.perf_counter() - clock


def finish(s: Stage, run: RunWriter) -> None:
    """Set the scale of the latents, save the VAE, and draw what it does."""
    s.net.register_to_config(**latent_scale(s))
    codec = s.codec()
    codec.save(run.path / FOLDER)
    survival_grid(codec, s.held, run.samples / "final.png", s.device)


def latent_scale(s: Stage) -> dict[str, float]:
    """Shift and scale that give latents of training pictures mean 0 and deviation 1."""
    codec, batches = s.codec(), -(-SCALED_BY // s.config.training.batch)
    draws = [s.mixture.draw(step) for step in range(batches)]
    tasks = [draw.stream.tasks[step % len(draw.stream.tasks)] for step, draw in enumerate(draws)]
    latents = [codec.encode(s.pictures(*pair)).flatten() for pair in zip(draws, tasks)]
    raw = torch.cat(latents) / codec.scale + codec.shift
    return {"shift_factor": float(raw.mean()), "scaling_factor": 1 / float(raw.std())}


def describe_vae(config: RunConfig) -> dict[str, Any]:
    """What a run would be, in the words of `dry_run.describe`; an image counts with the pictures
    of the task that has most. Raises UserError for a name or a size that does not fit."""
    with torch.device("meta"):
        net = build_vae(config.model.name)
    tasks, training = build_tasks(config.tasks), config.training
    sizes = {name: tuple(settings.size) for name, settings in config.data.items()}  # type: ignore[attr-defined]
    stride = 2 ** (len(net.config.block_out_channels) - 1)  # pyright: ignore[reportAttributeAccessIssue]
    for name, size in sizes.items():
        check_sides(size, stride, f"data.{name}.size")
    height, width = max(sizes.values(), key=math.prod)
    pictures = 1 + max(one.passes * -(-one.channels // one.passes // 3) for one in tasks.values())
    example = (torch.empty(pictures, 3, height, width, device="meta"),)
    groups = parameter_groups(net)
    per_group = flops_by_group(lambda: build_vae(config.model.name), example)
    kept = activation_bytes(lambda: build_vae(config.model.name), example) * training.batch
    total, forward = sum(groups.values()), sum(per_group.values())
    shape = [training.batch * pictures, 3, height, width]
    return {
        "model": config.model.name,
        "codec": "pixels",
        "tasks": {name: {"channels": task.channels} for name, task in tasks.items()},
        "data": {name: f"{size[0]}x{size[1]}" for name, size in sizes.items()},
        "input": shape,
        "output": shape,
        "params_total": total,
        "params_active": total,
        "params_by_group": groups,
        "flops_forward": forward,
        "flops_by_group": per_group,
        "flops_train_per_image": 3 * forward,
        "flops_train": 3 * forward * training.images,
        "memory_bytes": 5 * 4 * total + kept,  # float32: weight, gradient, average, two moments
        "memory_bytes_activations": kept,
    }
