"""Micro-batches: what the rows of a process hold, and what their error is.

A micro-batch has a share for each task of its draw, of the same pictures. Which of their rows learn
what is in `rows`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.coding import code, working_channels
from stepsight.data.mixture import Draw
from stepsight.diffusion.noise import training_noise
from stepsight.execution.noise import Stream, normal
from stepsight.pipeline.dense import DensePipeline
from stepsight.seeding import numpy_generator
from stepsight.tasks.base import Task
from stepsight.training.dense.errors import Coding, one_call_errors
from stepsight.training.feed import Feed, sent
from stepsight.training.latents import Latents
from stepsight.types import Batch, ModelInputs


@dataclass
class Part:
    """A task's share of a micro-batch, ready for the network."""

    task: Task
    coded: ModelInputs
    batch: Batch | None  # the truth in physical units; None when the latents come from a cache


def read_parts(
    pipeline: DensePipeline, feed: Feed, draw: Draw, step: int, rows: range
) -> list[Part]:
    """Some pictures of a draw, for each of its tasks: read, mirrored, stacked and coded, or taken
    from the latent cache."""
    names, store = draw.stream.tasks, feed.stores.get(draw.stream.source)
    if isinstance(store, Latents):
        cells = [draw.indices[row] for row in rows], feed.mirrored(draw, rows)
        coded = {name: store.coded(name, pipeline.layout, *cells) for name in names}
        parts = [Part(pipeline.tasks[name], sent(coded[name], feed.device), None) for name in names]
    else:
        batch = feed.batch(draw, step, rows)
        parts = [code_part(pipeline, name, batch) for name in names]
    for part in parts:
        hide_classes(pipeline, part, step, rows)
    return parts


def code_part(pipeline: DensePipeline, name: str, batch: Batch) -> Part:
    """A batch at working size as a micro-batch of a task."""
    task = pipeline.tasks[name]
    return Part(task, code(batch, task, pipeline.layout, pipeline.codec, target=True), batch)


def hide_classes(pipeline: DensePipeline, part: Part, step: int, rows: range) -> None:
    """Give some rows of class-conditional generation the null row (classifier-free guidance:
    Ho & Salimans 2022, section 3.2)."""
    if share := part.task.hidden_share:
        settings, label = pipeline.config.training, part.coded.label
        coins = numpy_generator(settings.seed, "class", step).random(settings.batch)
        hidden = torch.tensor([coins[row] < share for row in rows]).to(label.device)
        part.coded.label = torch.where(hidden, pipeline.layout.labels, label)


def errors_of(pipeline: DensePipeline, part: Part, t: Tensor, noise: Tensor) -> Tensor:
    """The error of each row "b" at drawn levels, to be divided by `counts_of`; t "b" and noise
    "b c h w"."""
    diffusion, net = pipeline.diffusion, pipeline.net
    if pipeline.config.diffusion.objective == "end_to_end":
        assert part.batch is not None, "the cache is refused for this objective"
        return one_call_errors(diffusion, pipeline.codec, net, part.task, part.coded, part.batch)
    coding = Coding(part.task, part.coded, t, noise, importance_of(pipeline, part))
    x0, squared, _ = diffusion.errors(net, part.coded, *coding.noised(diffusion))
    return squared if coding.importance is None else coding.own_errors(x0)


def counts_of(pipeline: DensePipeline, part: Part) -> Tensor:
    """What the rows of `errors_of` count, "b": their valid entries, or 1 per image."""
    assert part.coded.valid is not None
    if pipeline.config.diffusion.objective == "end_to_end":
        return part.coded.valid.new_ones(len(part.coded.label) // part.task.splits)
    return part.coded.valid.flatten(1).sum(dim=1)


def codings_of(
    pipeline: DensePipeline, parts: Sequence[Part], step: int, rows: range
) -> list[Coding]:
    """Parts with their levels, noise and weights. Every task of a picture has its own levels."""
    codings = []
    for number, part in enumerate(parts):
        key = [part.task.name] if number else []
        t, noise = levels_and_noise(pipeline, step, rows, part, key)
        weights = importance_of(pipeline, part)
        codings.append(Coding(part.task, part.coded, t, noise, weights, part.batch))
    return codings


def importance_of(pipeline: DensePipeline, part: Part) -> Tensor | None:
    """The weights of a task's own error "b ..."; None where squared errors are asked for."""
    if not pipeline.config.own_errors:
        return None
    assert part.batch is not None, "the cache is refused for this loss"
    weights = part.task.importance(part.batch, pipeline.statistics.get(part.task.name))
    return weights.repeat(part.task.splits, 1, 1, 1)


def levels_and_noise(
    pipeline: DensePipeline, step: int, rows: range, part: Part, key: Sequence[str] = ()
) -> tuple[Tensor, Tensor]:
    """Noise levels "b", stratified over the global batch, and noise "b c h w" of some rows.

    All passes of an image share its level; their noise is their own.
    """
    assert part.coded.x is not None
    settings, passes, device = pipeline.config.training, part.task.splits, part.coded.x.device
    rng = numpy_generator(settings.seed, "level", step, *key)
    strata = (rng.permutation(settings.batch) + rng.random(settings.batch)) / settings.batch
    mine = torch.from_numpy(strata[rows.start : rows.stop].astype(np.float32)).repeat(passes)
    t = pipeline.diffusion.draw_times(mine).to(device)
    images = step * settings.batch + torch.arange(rows.start, rows.stop, device=device)
    runs = torch.arange(passes, device=device)
    addresses = torch.stack([images.repeat(passes), runs.repeat_interleave(len(rows))], dim=1)
    return t, part_noise(pipeline, part, ("noise", settings.seed, *key), addresses, t)


def part_noise(
    pipeline: DensePipeline, part: Part, stream: Stream, rows: Tensor, t: Tensor | None = None
) -> Tensor:
    """Noise "b c h w" of rows of these addresses, as the diffusion is trained with at times "b"
    (None: white): in the leading channels, those that the task has; zeros in the rest."""
    assert part.coded.x is not None
    channels, *size = part.coded.x.shape[1:]
    shape = (used := working_channels(part.task, pipeline.codec)), *size
    if t is None:
        noise = normal(stream, rows, shape)
    else:
        noise = training_noise(pipeline.config.diffusion, stream, rows, shape, t)
    return F.pad(noise, (0, 0, 0, 0, 0, channels - used))
