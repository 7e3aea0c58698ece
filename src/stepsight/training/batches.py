"""Micro-batches: what the rows of a process hold, and what their error is.

A micro-batch has a share for each task of its draw, of the same pictures. Which of their rows learn
what is in `rows`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stepsight.coding import code
from stepsight.data.augment import flip
from stepsight.data.collate import collate
from stepsight.data.loader import Request
from stepsight.data.mixture import Draw
from stepsight.diffusion.noise import training_noise
from stepsight.seeding import generator, numpy_generator
from stepsight.tasks.base import Task
from stepsight.tasks.config import ImageSettings
from stepsight.training.latents import Latents
from stepsight.training.rows import Coding, one_call_errors
from stepsight.training.setup import Setup
from stepsight.types import Batch, Coded, Sample


@dataclass
class Part:
    """A task's share of a micro-batch, ready for the network."""

    task: Task
    coded: Coded
    batch: Batch | None  # the truth in physical units; None when the latents come from a cache


def read_parts(s: Setup, draw: Draw, step: int, rows: range) -> list[Part]:
    """Some pictures of a draw, for each of its tasks: read, mirrored, stacked and coded, or taken
    from the latent cache."""
    names, source = draw.stream.tasks, draw.stream.source
    indices = [draw.indices[row] for row in rows]
    mirrored = [s.config.training.flip and draw.mirrored[row] for row in rows]
    store = s.stores.get(source)
    if isinstance(store, Latents):
        coded = {name: store.coded(name, s.layout, indices, mirrored) for name in names}
        parts = [Part(s.tasks[name], one.to(s.device), None) for name, one in coded.items()]
    else:
        if store is None:
            batch = s.loader.take(Request.of(draw, step, rows))
        else:
            pairs = zip(store.samples(indices), mirrored)
            batch = collate([flip(one) if mirror else one for one, mirror in pairs])
        batch = batch.to(s.device)
        parts = [code_part(s, name, batch) for name in names]
    for part in parts:
        shown = torch.arange(len(rows), device=s.device)
        shown = shown if part.task.images else torch.full_like(shown, -1)  # none: all see a blank
        part.coded.pictures = shown.repeat(part.task.passes)
        hide_classes(s, part, step, rows)
    return parts


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


def errors_of(s: Setup, net: nn.Module, part: Part, t: Tensor, noise: Tensor) -> Tensor:
    """The error of each row "b" at drawn levels, to be divided by `counts_of`; t "b" and noise
    "b c h w"."""
    if s.config.diffusion.objective == "end_to_end":
        assert part.batch is not None, "the cache is refused for this objective"
        return one_call_errors(s.diffusion, s.codec, net, part.task, part.coded, part.batch)
    coding = Coding(part.task, part.coded, t, noise, importance_of(s, part))
    x0, squared, _ = s.diffusion.errors(net, part.coded, *coding.noised(s.diffusion))
    return squared if coding.importance is None else coding.own_errors(x0)


def counts_of(s: Setup, part: Part) -> Tensor:
    """What the rows of `errors_of` count, "b": their valid entries, or 1 an image."""
    assert part.coded.valid is not None
    if s.config.diffusion.objective == "end_to_end":
        return part.coded.valid.new_ones(len(part.coded.label) // part.task.passes)
    return part.coded.valid.flatten(1).sum(dim=1)


def codings_of(s: Setup, parts: Sequence[Part], step: int, rows: range) -> list[Coding]:
    """Parts with their levels, noise and weights. Every task of a picture has its own levels."""
    found = []
    for number, part in enumerate(parts):
        t, noise = levels_and_noise(s, step, rows, part, [part.task.name] if number else [])
        found.append(Coding(part.task, part.coded, t, noise, importance_of(s, part), part.batch))
    return found


def importance_of(s: Setup, part: Part) -> Tensor | None:
    """The weights of a task's own error "b ..."; None where squared errors are asked for."""
    if not s.config.own_errors:
        return None
    assert part.batch is not None, "the cache is refused for this loss"
    weights = part.task.importance(part.batch, s.statistics.get(part.task.name))
    return weights.repeat(part.task.passes, 1, 1, 1)


def levels_and_noise(
    s: Setup, step: int, rows: range, part: Part, key: Sequence[str] = ()
) -> tuple[Tensor, Tensor]:
    """Noise levels "b", stratified over the global batch, and noise "b c h w" of some rows.

    All passes of an image share its level; their noise is their own.
    """
    assert part.coded.x is not None
    settings, passes = s.config.training, part.task.passes
    rng = numpy_generator(settings.seed, "level", step, *key)
    strata = (rng.permutation(settings.batch) + rng.random(settings.batch)) / settings.batch
    own = torch.tensor([strata[row] for row in rows] * passes, dtype=torch.float32)
    t = s.diffusion.draw_times(own)
    streams = [
        generator(
            settings.seed, "noise", step * settings.batch + row, *key, *([run] if run else [])
        )
        for run in range(passes)
        for row in rows
    ]
    noise = training_noise(s.config.diffusion, part.coded.x.shape[1:], t, streams)
    return t.to(s.device), noise.to(s.device)
