"""Between tasks, codec and backbone: which channels and label rows there are, and what fills them.

`Layout` follows from the tasks and the codec of a run. A batch is coded in two halves: `encode`
(task and codec, the costly one, whose outcome the latent cache keeps) and `to_model_inputs` (fitted
to the channels of the backbone); `code` is both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from accelerate import init_empty_weights
from einops import rearrange, repeat
from torch import Tensor, nn

from stepsight import checkpoint
from stepsight.averages import Weights
from stepsight.checkpoint import CheckpointError
from stepsight.config import RunConfig
from stepsight.errors import UserError
from stepsight.execution.compiling import compiled
from stepsight.execution.config import Precision
from stepsight.execution.precision import lowered, resolved
from stepsight.metrics.truth import require
from stepsight.models.codec import Codec, CodecShape, open_codec
from stepsight.models.config import GONE, VAE_PREFIX, ModelSettings
from stepsight.models.factory import build, check_size, repeated_blocks
from stepsight.tasks.base import Task
from stepsight.tasks.table import build_tasks
from stepsight.types import NULL, Batch, ModelInputs


@dataclass(frozen=True)
class Layout:
    """Channels and label rows of a backbone, which follow from its tasks and its codec."""

    target: int  # working channels of the noisy target: the most that any task needs
    cond: int  # working channels of all condition images together, likewise
    features: int
    rows: Mapping[str, int] = field(hash=False)  # the first label row of each task
    labels: int  # rows in all; the null row comes after them
    looked: int = 0  # channels that a task sees anew at every call
    picture: int = 3  # working channels of a condition image
    used: tuple[int, ...] = ()  # working channels of the target by label row
    places: int = 1  # of tasks that are denoised together, in one target

    @classmethod
    def of(cls, tasks: Mapping[str, Task], codec: CodecShape) -> Self:
        features = {task.feature_channels for task in tasks.values()} - {0}
        if len(features) > 1:
            raise UserError("two tasks of this run bring features of different kinds.")
        looked = max(task.look_channels for task in tasks.values()) if codec.downsample == 1 else 0
        places = _places(tasks, codec)
        rows, labels, used = {}, 0, []
        for name, task in tasks.items():
            rows[name], labels = labels, labels + task.label_count
            used += [places * working_channels(task, codec)] * task.label_count
        return cls(
            target=max(used),
            cond=max(task.images for task in tasks.values()) * codec.channels(3),
            features=max(features, default=0),
            rows=rows,
            labels=labels,
            looked=looked,
            picture=codec.channels(3),
            used=tuple(used),
            places=places,
        )

    def span(self, task: str) -> slice:
        """The label rows of a task."""
        later = [first for first in self.rows.values() if first > self.rows[task]]
        return slice(self.rows[task], min(later, default=self.labels))

    def build(self, settings: ModelSettings) -> nn.Module:
        """The backbone with these channels and rows."""
        return build(
            settings,
            target_channels=self.target,
            cond_channels=self.cond,
            labels=self.labels,
            feature_channels=self.features,
            looked_channels=self.looked,
            picture_channels=self.picture,
            used=self.used,
        )


def working_channels(task: Task, codec: CodecShape) -> int:
    """Channels of one run of the task's target in working space."""
    return codec.channels(task.channels // task.splits)


def place_of(task: Task, codec: CodecShape) -> slice:
    """Where they are in a target that the task may share with others."""
    channels = working_channels(task, codec)
    return slice(task.place * channels, (task.place + 1) * channels)


def _places(tasks: Mapping[str, Task], codec: CodecShape) -> int:
    """How many tasks are denoised together. Raises UserError unless each has a place of its own, as
    wide as the others."""
    places = 1 + max(task.place for task in tasks.values())
    if places == 1:
        return 1
    taken = sorted(task.place for task in tasks.values())
    alike = {(working_channels(task, codec), task.label_count) for task in tasks.values()}
    if taken != [*range(places)] or len(alike) > 1:
        said = ", ".join(f"tasks.{name}.place {task.place}" for name, task in tasks.items())
        raise UserError(
            f"tasks that are denoised together ({said}) need the places 0 to {len(tasks) - 1}, one "
            f"each, and as many channels each."
        )
    return places


def build_network(config: RunConfig, tasks: Mapping[str, Task], codec: CodecShape) -> nn.Module:
    """The backbone of a run. Raises UserError if its tasks do not fit one backbone."""
    if config.model.input == "per_task":
        for name, task in tasks.items():
            if task.label_count != task.splits:
                raise UserError(
                    f"model.input=per_task: task {name} has {task.label_count} classes, which "
                    f"would get an input convolution each. Use shared."
                )
    return Layout.of(tasks, codec).build(config.model)


def saved_network(
    saved: checkpoint.Checkpoint,
    tasks: Mapping[str, Task],
    codec: CodecShape,
    file: str = checkpoint.BACKBONE,
    device: str | torch.device = "cpu",
    precision: str = "float32",
) -> nn.Module:
    """The backbone of a checkpoint on `device`, with its averaged weights, or those of another
    `file`, `lowered` to a precision. No weight is drawn at random before it is read, and none is in
    memory twice.

    Raises CheckpointError for one that this version does not have, or for weights of another.
    """
    name = saved.config.model.name
    if GONE.fullmatch(name):
        raise CheckpointError(
            f"{saved.path} holds the weights of {name}, a backbone that this version no longer "
            f"has. Open it with the version of stepsight that wrote it (revision "
            f"{saved.meta.get('revision') or 'unknown'}), or train split-32 in its place."
        )
    if name.startswith(VAE_PREFIX):
        raise CheckpointError(
            f"{saved.path} holds a VAE, not a backbone. Train a backbone in its latents with "
            f"--codec.path {saved.home / 'vae'}."
        )
    with init_empty_weights():
        net = lowered(build_network(saved.config, tasks, codec), precision)
    saved.load(net, file, device)
    return net


def saved_codec(saved: checkpoint.Checkpoint, precision: Precision = "auto") -> Codec:
    """The codec a checkpoint was trained in: the copy in its run folder, else the folder named.
    precision: that it computes in; "auto": as the run has it.

    Raises CheckpointError if that is another VAE.
    """
    settings = saved.config.codec
    if precision != "auto":
        settings = replace(settings, precision=precision)
    codec = open_codec(settings, kept=saved.home / checkpoint.CODEC)
    trained = saved.meta.get("codec", codec.name)
    if codec.name != trained:
        raise CheckpointError(
            f"{saved.path} was trained in the latents of {trained}; codec.path "
            f"{saved.config.codec.path} holds {codec.name}. Keep the run's {checkpoint.CODEC}/ "
            f"folder beside its checkpoints."
        )
    return codec


def saved_model(
    saved: checkpoint.Checkpoint,
    device: str | torch.device,
    weights: Weights,
    precision: Precision = "auto",
) -> dict[str, Any]:
    """What a `DensePipeline` is made of, by its arguments' names, as `from_pretrained` says."""
    tasks, raw = build_tasks(saved.config.tasks), weights == "raw"
    file = checkpoint.RAW if raw else checkpoint.BACKBONE
    asked = saved.config.training.precision if precision == "auto" else precision
    codec = saved_codec(saved, precision)
    net = saved_network(saved, tasks, codec, file, device, resolved(asked, device))
    net.eval().requires_grad_(False)
    compiled(repeated_blocks(net), device)
    return {
        "net": net,
        "tasks": tasks,
        "config": saved.config,
        "sizes": saved.sizes,
        "statistics": saved.tensors(checkpoint.STATISTICS),
        "name": saved.digest(file),
        "codec": codec.for_use(device),
        "home": saved.home,
        "chosen": saved.meta.get("sampling"),
        "calibration": None if raw else saved.meta.get("calibration"),
        "metric": None if raw else saved.meta.get("metric"),
    }


@dataclass
class Parts:
    """A batch of one task in working space, before it is fitted to the channels of a backbone."""

    images: Tensor  # "b (n k) h w", the task's condition images
    features: Tensor | None  # "b f h' w'"
    label: Tensor  # int64 "b p", rows within those of the task
    x: Tensor | None = None  # "b p c h w", the target of each pass
    cells: Tensor | None = None  # bool "b 1 h w", where the target counts


def encode(batch: Batch, task: Task, codec: Codec, target: bool) -> Parts:
    """What task and codec make of a batch at working size: the costly half of `code`."""
    condition = task.condition(batch)
    height, width = (side // codec.downsample for side in batch.image.shape[-2:])
    images = [codec.encode(image) for image in condition.images.unbind(1)]
    features = condition.features
    if features is not None and codec.downsample > 1:
        features = F.adaptive_avg_pool2d(features, (height, width))
    parts = Parts(
        torch.cat([batch.image.new_zeros(len(batch), 0, height, width), *images], dim=1),
        features,
        label_rows(task, batch),
    )
    if target:
        truth, p = task.encode(batch), task.splits
        x = codec.encode(rearrange(truth.x, "b (p c) h w -> (b p) c h w", p=p))
        parts.x = rearrange(x, "(b p) c h w -> b p c h w", p=p)
        parts.cells = codec.mask(truth.valid)
    return parts


def to_model_inputs(parts: Parts, task: Task, layout: Layout) -> ModelInputs:
    """Parts in the channels and rows of a backbone.

    Rows are "(p b)": a task of several runs has all images for the first, then for the next.
    Surplus channels of the target are zero and outside the loss; missing condition images are zero.
    Raises UserError for a target of tasks that are denoised together: nothing here has all of it.
    """
    if parts.x is not None and layout.places > 1:
        raise UserError(
            f"task {task.name} is denoised together with others here, and such models are not "
            f"trained. Name its run with --init-from and train {task.name} alone, with place 0."
        )

    def each(value: Tensor) -> Tensor:
        return value if task.splits == 1 else repeat(value, "b ... -> (p b) ...", p=task.splits)

    missing = layout.cond - parts.images.shape[1]
    label = rearrange(parts.label, "b p -> (p b)")
    x = valid = None
    if parts.x is not None and parts.cells is not None:
        used = parts.x.shape[2]
        x = rearrange(parts.x, "b p c h w -> (p b) c h w")
        x = F.pad(x, (0, 0, 0, 0, 0, layout.target - used))
        inside = (torch.arange(layout.target, device=x.device) < used).to(x.dtype)
        valid = each(parts.cells.to(x.dtype)) * inside[:, None, None]
    return ModelInputs(
        x,
        each(F.pad(parts.images, (0, 0, 0, 0, 0, missing))),
        None if parts.features is None else each(parts.features),
        valid,
        torch.where(label == NULL, layout.labels, layout.rows[task.name] + label),
        look=task.look_at if layout.looked and task.look_channels else None,
    )


def code(batch: Batch, task: Task, layout: Layout, codec: Codec, target: bool) -> ModelInputs:
    """Task and codec together: what the loss takes, and what the sampler is conditioned on."""
    return to_model_inputs(encode(batch, task, codec, target), task, layout)


def label_rows(task: Task, batch: Batch) -> Tensor:
    """Rows "b p" within those of the task: the number of the run, or the class of the image, which
    may be NULL."""
    if task.label_count > task.splits:
        return require(task.name, batch, "class_id")[0][:, None]
    rows = torch.arange(task.splits, device=batch.image.device)
    return repeat(rows, "p -> b p", b=len(batch))


def check_sizes(net: nn.Module, sizes: Mapping[str, tuple[int, int]], downsample: int) -> None:
    """Raise UserError unless every task's working size fits the backbone and the codec."""
    for task, size in sizes.items():
        check_size(net, size, f"working size {size[0]}x{size[1]} of {task}", downsample)
