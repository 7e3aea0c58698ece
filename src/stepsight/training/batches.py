"""Micro-batches: what the rows of a process hold, and what their error is.

Two objectives. Denoising: the weighted squared error of the network's answer at a drawn noise
level. End to end (Garcia et al. 2025): one step from the noisiest level, decoded, against the truth
in physical space; the decoder's activations are recomputed rather than kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from stepsight.coding import code, working_channels
from stepsight.data.augment import flip
from stepsight.data.collate import collate
from stepsight.data.loader import Request
from stepsight.data.mixture import Draw
from stepsight.diffusion.noise import training_noise
from stepsight.diffusion.objective import Network
from stepsight.latents import Latents
from stepsight.seeding import generator, numpy_generator
from stepsight.tasks.base import Task
from stepsight.tasks.config import ImageSettings
from stepsight.training.setup import Setup
from stepsight.types import Batch, Coded, Sample


@dataclass
class Part:
    """A micro-batch, ready for the network."""

    task: Task
    coded: Coded
    batch: Batch | None  # the truth in physical units; None when the latents come from a cache


def read_part(s: Setup, draw: Draw, step: int, rows: range) -> Part:
    """Some rows of a draw: read, mirrored, stacked and coded, or taken from the latent cache."""
    name, source = draw.stream.task, draw.stream.source
    indices = [draw.indices[row] for row in rows]
    mirrored = [s.config.training.flip and draw.mirrored[row] for row in rows]
    store = s.stores.get(source)
    if store is None:
        part = code_part(s, name, s.loader.take(Request.of(draw, step, rows)))
    elif isinstance(store, Latents):
        coded = store.coded(name, s.layout, indices, mirrored)
        part = Part(s.tasks[name], coded.to(s.device), None)
    else:
        pairs = zip(store.samples(indices), mirrored)
        part = stack_part(s, name, [flip(one) if mirror else one for one, mirror in pairs])
    hide_classes(s, part, step, rows)
    return part


def stack_part(s: Setup, task: str, samples: Sequence[Sample]) -> Part:
    """Samples at working size as a micro-batch of a task."""
    return code_part(s, task, collate(list(samples)))


def code_part(s: Setup, task: str, batch: Batch) -> Part:
    """A batch at working size as a micro-batch of a task."""
    batch = batch.to(s.device)
    return Part(s.tasks[task], code(batch, s.tasks[task], s.layout, s.codec, target=True), batch)


def hide_classes(s: Setup, part: Part, step: int, rows: range) -> None:
    """Give some rows of class-conditional generation the null row (classifier-free guidance:
    Ho & Salimans 2022, section 3.2)."""
    if isinstance(part.task, ImageSettings) and part.task.dropout:
        settings = s.config.training
        coins = numpy_generator(settings.seed, "class", step).random(settings.batch)
        hidden = torch.tensor([coins[row] < part.task.dropout for row in rows]).to(s.device)
        part.coded.label = torch.where(hidden, s.layout.labels, part.coded.label)


def count_of(s: Setup, part: Part) -> Tensor:
    """What the summed error of a part is divided by, before it is known for the whole batch."""
    return counts_of(s, part).sum()


def counts_of(s: Setup, part: Part) -> Tensor:
    """The share of each row "b" of `errors_of` in `count_of`: its valid entries, or 1 an image."""
    assert part.coded.valid is not None
    if s.config.diffusion.objective == "end_to_end":
        return part.coded.valid.new_ones(len(part.coded.label) // part.task.passes)
    return part.coded.valid.flatten(1).sum(dim=1)


def errors_of(s: Setup, net: Network, part: Part, t: Tensor, noise: Tensor) -> Tensor:
    """The error of each row "b", to be divided by `count_of`; t "b" and noise "b c h w"."""
    if s.config.diffusion.objective == "denoising":
        return s.diffusion.loss(net, part.coded, t, noise)[0]
    assert part.batch is not None, "the cache is refused for this objective"
    task = part.task
    z = s.diffusion.one_step(net, part.coded)[:, : working_channels(task, s.codec)].float()
    x = checkpoint(s.codec.decode, z, task.channels // task.passes, use_reentrant=False)
    return task.loss(rearrange(x, "(p b) c h w -> b (p c) h w", p=task.passes), part.batch)


def levels_and_noise(s: Setup, step: int, rows: range, part: Part) -> tuple[Tensor, Tensor]:
    """Noise levels "b", stratified over the global batch, and noise "b c h w" of some rows.

    All passes of an image share its level; their noise is their own.
    """
    assert part.coded.x is not None
    settings, passes = s.config.training, part.task.passes
    rng = numpy_generator(settings.seed, "level", step)
    strata = (rng.permutation(settings.batch) + rng.random(settings.batch)) / settings.batch
    own = torch.tensor([strata[row] for row in rows] * passes, dtype=torch.float32)
    t = s.diffusion.draw_times(own)
    streams = [
        generator(settings.seed, "noise", step * settings.batch + row, *([run] if run else []))
        for run in range(passes)
        for row in rows
    ]
    noise = training_noise(s.config.diffusion, part.coded.x.shape[1:], t, streams)
    return t.to(s.device), noise.to(s.device)
