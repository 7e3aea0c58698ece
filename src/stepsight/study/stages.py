"""The stages of a study as commands, with their configurations; and when one is done.

A stage is done by what it left: a run its records (or what follows from its sweep), a latent cache
its rows, experts their checkpoint, a sweep its claims, laws their page. Nothing is noted twice.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np

from stepsight import config as configuration
from stepsight.config import RunConfig
from stepsight.errors import UserError
from stepsight.models.config import VAE_PREFIX
from stepsight.scaling.ladders.jobs import CommandJob
from stepsight.scaling.ladders.ladder import merged
from stepsight.scaling.ladders.launch import finished, last_written
from stepsight.study.graph import Stage, Start, Study

Launcher = Literal["local", "torchrun", "slurm"]
CONFIGS, LOGS = "configs", "logs"
ALL = 10**6  # checkpoints kept of a run that others start from on its way
LENGTHS = ("log_every", "validate_every", "first_validation", "checkpoint_every", "warmup")
PROGRAM = ("-m", "stepsight.cli.main")
WRITTEN = {"upcycle": "checkpoints", "sweep": "claims.json", "laws": "report.html"}  # last, whole
VAE_WEIGHTS = "vae/diffusion_pytorch_model.safetensors"


@dataclass(frozen=True, kw_only=True)
class StageJob(CommandJob):
    """A stage as a command."""

    kind: str
    config: RunConfig | None  # of kinds that have one
    shown: tuple[str, ...]  # the command as people type it, without the program

    @property
    def done(self) -> bool:
        if self.config is None:
            return (self.folder / WRITTEN[self.kind]).exists()
        training = self.config.training
        if self.kind == "latents":
            caches = [self.folder / name / "done.npy" for name in self.config.data]
            return all(path.is_file() and np.load(path)[: training.images].all() for path in caches)
        if self.config.model.name.startswith(VAE_PREFIX):
            return (self.folder / VAE_WEIGHTS).is_file()
        last = last_written(training.evaluate, self.config.evaluation.sweep)
        return finished(self.folder, training.images, last)


def jobs_of(study: Study, launcher: Launcher = "local") -> list[StageJob]:
    """The commands of all stages. Raises UserError for settings that no run has."""
    files = {stage.files: configuration.load(stage.files) for stage in study.stages if stage.files}
    configs = {
        stage.name: config_of(study, stage, files[stage.files])
        for stage in study.stages
        if stage.files
    }
    for start in (start for stage in study.stages for start in stage.starts if start.share < 1):
        before = configs[start.stage]  # further saves, as of a preempted run, may push out none
        configs[start.stage] = replace(before, training=replace(before.training, keep=ALL))
    return [_job(study, stage, configs, launcher) for stage in study.stages]


def config_of(study: Study, stage: Stage, told: RunConfig) -> RunConfig:
    """What the files of a stage told, with its own settings, as long as the study's scale says."""
    where, values = f"{study.file}: {stage.name}", told.to_dict()
    settings = dict(stage.settings)
    if stage.kind == "latents":
        settings["training.latents"] = str(study.out / stage.name)
    return shortened(configuration.from_dict(merged(values, settings), where), study.lengths)


def shortened(config: RunConfig, share: Fraction) -> RunConfig:
    """With that share of the images of training: whole batches, and as many intervals as before."""
    training = config.training
    if share == 1:
        return config

    def times(images: int) -> int:
        return max(round(images * share / training.batch), 1) * training.batch if images else 0

    every = times(training.checkpoint_every)
    saved, rest = divmod(training.images, training.checkpoint_every or training.images)
    images = every * saved if every and not rest else times(training.images)
    lengths = {name: times(getattr(training, name)) for name in LENGTHS}
    return replace(config, training=replace(training, images=images, **lengths))


def _job(
    study: Study, stage: Stage, configs: Mapping[str, RunConfig], launcher: Launcher
) -> StageJob:
    config, folder = configs.get(stage.name), study.out / stage.name
    written = str(study.out / CONFIGS / f"{stage.name}.yaml")
    starts = [str(_folder(study, start, configs)) for start in stage.starts]
    match stage.kind:
        case "train":
            words = ["train", "--config", written, "--run-dir", str(folder), "--resume", "auto"]
            words += ["--init-from", *starts] if starts else []
        case "latents":
            words = ["data", "latents", "--config", written]
        case "upcycle":
            words = ["convert", "upcycle", "--checkpoint", *starts, "--out", str(folder)]
        case "sweep":
            words = ["evaluate", "--sweep", "--out", str(folder)]
            words += [word for start in starts for word in ("--checkpoint", start)]
        case _:
            words = ["scaling", "report", *starts, "--out", str(folder)]
    words += [word for name, value in stage.options.items() for word in (f"--{name}", str(value))]
    return StageJob(
        name=stage.name,
        folder=folder,
        command=(*_program(stage, launcher, _processes(stage, configs)), *words),
        log=study.out / LOGS / f"{stage.name}.log",
        needs=stage.needs,
        kind=stage.kind,
        config=config,
        shown=tuple(words),
    )


def _processes(stage: Stage, configs: Mapping[str, RunConfig]) -> int:
    """Of a stage under a launcher: as its settings say, or those of the first it looks at."""
    first = stage.name if stage.name in configs else stage.starts[0].stage
    return max(configs[first].training.processes, 1) if first in configs else 1


def _program(stage: Stage, launcher: Launcher, processes: int) -> tuple[str, ...]:
    if launcher == "local" or processes == 1 or stage.kind not in ("train", "latents", "sweep"):
        return sys.executable, *PROGRAM
    torchrun = "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)
    return sys.executable, "-m", *torchrun, *PROGRAM


def _folder(study: Study, start: Start, configs: Mapping[str, RunConfig]) -> Path:
    """A run, or the checkpoint that it kept after a share of its images."""
    if not start.stage:
        return Path(start.folder)
    folder = study.out / start.stage
    if start.share == 1:
        return folder
    training = configs[start.stage].training
    images = round(start.share * training.images)
    if not training.checkpoint_every or images % training.checkpoint_every:
        raise UserError(
            f"{study.file}: {start.stage}@{start.share:g}: it saves every "
            f"{training.checkpoint_every} of its {training.images} images. Give a share of "
            "which it has a checkpoint."
        )
    return folder / "checkpoints" / f"step-{images // training.batch:06d}"
