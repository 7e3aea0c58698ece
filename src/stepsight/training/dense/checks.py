"""What would stop the training of a backbone later, found first. All raise `UserError`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from stepsight.checkpoint import Checkpoint
from stepsight.config import RunConfig
from stepsight.data.mixture import Stream
from stepsight.data.table import Source
from stepsight.diffusion.config import sampler_spec
from stepsight.diffusion.objective import Diffusion
from stepsight.errors import UserError
from stepsight.models.config import parse
from stepsight.tasks.base import Task
from stepsight.tasks.table import build_tasks


def check_classes(
    streams: Sequence[Stream], tasks: Mapping[str, Task], sources: Mapping[str, Source]
) -> None:
    """A task must have room for the classes of its sources."""
    pairs = ((stream, tasks[name]) for stream in streams for name in stream.tasks)
    for stream, task in pairs:
        count = len(getattr(sources[stream.source], task.counted)) if task.counted else 0
        room = getattr(task, "classes", count)
        if room < count:
            raise UserError(
                f"tasks.{task.name}.classes={room}: {stream.source} has {count} classes. "
                f"Use {count}."
            )


def check_experts(start: Checkpoint, config: RunConfig) -> None:
    """Raise UserError where the weights of experts would come to mean something else."""
    old, new = start.config.model, config.model
    mixed = getattr(parse(new.name), "experts", 0)
    if mixed and old.expert_weights != new.expert_weights:
        raise UserError(
            f"{start.path} weighs its experts by model.expert_weights={old.expert_weights}, this "
            f"run by {new.expert_weights}: outputs would change. Set it to what it was."
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
    if rows.start and any(task.generative for task in config.tasks.values()):
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


def check_network(net: nn.Module) -> None:
    """Raise UserError for a backbone that is imported to be asked alone."""
    if getattr(net, "sees_picture", False):
        raise UserError(
            "model.unet: a U-Net that is told what CLIP sees in the picture cannot be trained "
            "here. Choose another model."
        )


def check_objective(config: RunConfig, begun: bool) -> None:
    """Raise UserError for an objective that could not be trained or sampled."""
    diffusion = Diffusion(config.diffusion)
    if config.diffusion.picture:
        raise UserError(
            f"diffusion.picture {config.diffusion.picture}: training starts from noise alone. "
            "Set 0."
        )
    if config.training.latents and config.diffusion.objective == "end_to_end":
        raise UserError(
            "training.latents: diffusion.objective=end_to_end compares in physical space and needs "
            "the samples themselves. Leave training.latents empty."
        )
    _check_rows(config)
    if config.diffusion.variance == "trained" and not config.model.learned_variance:
        raise UserError("diffusion.variance=trained needs model.learned_variance true.")
    if sampler_spec(config.diffusion.sampler).variance and config.diffusion.variance != "trained":
        raise UserError(
            f"diffusion.sampler={config.diffusion.sampler} draws by a variance that is to be "
            "trained: set diffusion.variance trained."
        )
    if config.diffusion.guidance != 1:
        for name, task in build_tasks(config.tasks).items():
            if not task.hidden_share:
                raise UserError(
                    f"diffusion.guidance={config.diffusion.guidance:g}: no label of task {name} is "
                    f"hidden in training, so that nothing could be guided. Set it to 1."
                )
    fitted = [name for name, task in config.tasks.items() if task.loses_scale]
    if config.diffusion.objective == "end_to_end" and not begun and fitted:
        raise UserError(
            f"diffusion.objective=end_to_end learns no {fitted[0]} from scratch: a new backbone "
            "answers a constant, for which every scale fits and the loss has no slope. Give "
            "--init-from."
        )
    evaluation = config.evaluation
    wanted = [("nfe", evaluation.nfe)]
    wanted += [("sweep_nfe", nfe) for nfe in evaluation.sweep_nfe if evaluation.sweep]
    for key, nfe in wanted:
        try:
            diffusion.check_calls(nfe)
        except UserError as error:
            sampler = f"diffusion.sampler = {config.diffusion.sampler}"
            raise UserError(f"evaluation.{key} = {nfe}, {sampler}: {error}") from error
