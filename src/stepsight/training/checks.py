"""What would stop a run later, found before anything is written. All raise `UserError`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stepsight.checkpoint import Checkpoint
from stepsight.config import RunConfig
from stepsight.data.mixture import Stream
from stepsight.data.table import Source
from stepsight.diffusion.objective import Diffusion
from stepsight.errors import UserError
from stepsight.models.config import parse
from stepsight.tasks.base import Task
from stepsight.tasks.config import DepthSettings, ImageSettings, SemanticSettings
from stepsight.training.config import TrainingSettings


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


def check_classes(
    streams: Sequence[Stream], tasks: Mapping[str, Task], sources: Mapping[str, Source]
) -> None:
    """A task must have room for the classes of its sources."""
    pairs = ((stream, tasks[name]) for stream in streams for name in stream.tasks)
    for stream, task in pairs:
        classes = len(sources[stream.source].classes)
        if isinstance(task, SemanticSettings) and task.classes < classes:
            raise UserError(
                f"tasks.{task.name}.classes={task.classes}: {stream.source} has {classes} classes. "
                f"Use {classes}."
            )
        kinds = len(sources[stream.source].categories)
        if isinstance(task, ImageSettings) and task.classes < kinds:
            raise UserError(
                f"tasks.image.classes={task.classes}: {stream.source} has {kinds} classes. "
                f"Use {kinds}."
            )


def same_experts(start: Checkpoint, config: RunConfig) -> None:
    """Raise UserError where the weights of experts would come to mean something else."""
    old, new = start.config.model, config.model
    mixed = getattr(parse(new.name), "experts", 0)
    if mixed and old.expert_weights != new.expert_weights:
        raise UserError(
            f"{start.path} weighs its experts by model.expert_weights={old.expert_weights}, this "
            f"run by {new.expert_weights}: it would answer otherwise. Set it to what it was."
        )


def _check_rows(config: RunConfig) -> None:
    """Refuse kinds of rows and errors that the diffusion or its space cannot have."""
    settings, rows = config.diffusion, config.training.rows
    if settings.objective == "end_to_end":
        return  # one call from zeros, with an error of its own: neither is read
    if rows.rollout and settings.prediction != "x":
        raise UserError(
            "training.rows.rollout: walks on the model's own answers are learnt as errors of x0; "
            f"diffusion.prediction {settings.prediction} would weigh them by 1/t^2. Use prediction "
            "x, or rows rollout 0."
        )
    if rows.start and settings.weighting != "uniform":
        raise UserError(
            f"training.rows.start: diffusion.weighting {settings.weighting} gives rows at t = 1 no "
            "weight. Use uniform, or rows start 0, rollout 0, denoise 1."
        )
    if rows.start and rows.noisy and settings.multires_noise:
        raise UserError(
            "training.rows.noisy: samples start from white noise, and diffusion.multires_noise is "
            "not. Set rows noisy 0, or rows start 0, rollout 0, denoise 1."
        )
    if rows.start and ImageSettings.name in config.tasks:
        raise UserError(
            "training.rows.start: pictures are generated from noise, not from zeros. Set rows "
            "start 0, rollout 0, denoise 1."
        )
    if config.own_errors and config.training.latents:
        raise UserError(
            f"training.loss {config.training.loss}: the tasks' own errors are weighed by the truth "
            "itself, which training.latents does not keep. Use --training.loss squared, or no "
            "latent cache."
        )
    if config.training.loss == "task" and not config.own_errors_possible:
        raise UserError(
            "training.loss task: the tasks' own errors are of x0 in pixels, with uniform weight. "
            "Use diffusion.prediction x without a codec, or --training.loss squared."
        )


def check_objective(config: RunConfig, begun: bool) -> None:
    """Raise UserError for an objective that could not be trained or sampled."""
    diffusion = Diffusion(config.diffusion)
    depth = config.tasks.get("depth")
    if config.training.latents and config.diffusion.objective == "end_to_end":
        raise UserError(
            "training.latents: diffusion.objective=end_to_end compares in physical space and needs "
            "the samples themselves. Leave training.latents empty."
        )
    _check_rows(config)
    if config.diffusion.variance == "trained" and not config.model.learned_variance:
        raise UserError("diffusion.variance=trained needs model.learned_variance true.")
    affine = isinstance(depth, DepthSettings) and depth.range == "quantile"
    if config.diffusion.objective == "end_to_end" and not begun and affine:
        raise UserError(
            "diffusion.objective=end_to_end learns no depth from scratch: a new backbone answers a "
            "constant, for which every scale fits and the loss has no slope. Give --init-from."
        )
    wanted = {
        config.evaluation.nfe,
        *(config.evaluation.sweep_nfe if config.evaluation.sweep else ()),
    }
    for nfe in sorted(wanted):
        diffusion.check_calls(nfe)
