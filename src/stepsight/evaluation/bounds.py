"""What any model has to beat and what no model can pass: trivial predictors, round-trip ceilings.

A trivial predictor looks at no image. A ceiling is the score that a perfect model would get with a
target encoding and a codec, without any network: the truth goes the way of a prediction,
task.encode -> codec.encode -> codec.decode -> task.decode, and is scored against itself under the
task's protocol. What is lost on the way (the clipping of depth to quantiles, fine structure that a
VAE blurs, colours it shifts to another class) no training can win back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from stepsight.coding import working_channels
from stepsight.colours import colour_image
from stepsight.data.collate import collate
from stepsight.data.resize import resize_sample
from stepsight.data.table import Source
from stepsight.errors import UserError
from stepsight.evaluation.jobs import protocol_of
from stepsight.evaluation.results import metrics_of
from stepsight.evaluation.statistics import concatenated
from stepsight.metrics.masked import Rows
from stepsight.metrics.protocol import Protocol
from stepsight.models.codec import Codec
from stepsight.models.config import check_sides
from stepsight.report.grids import compose
from stepsight.tasks.base import Task
from stepsight.tasks.config import TABLE as TASKS
from stepsight.tasks.config import TaskSettings
from stepsight.tasks.table import build_task
from stepsight.types import Batch, Prediction, Target

STATISTICS_IMAGES = 1024  # training samples that the learned predictors are made of
CHUNK, CODED = 64, 16  # images scored, and coded, at a time


def statistics(tasks: Mapping[str, Task], source: Source) -> dict[str, Tensor]:
    """For each task, sums "s h w" over the first training samples, at working size."""
    totals: dict[str, Tensor] = {}
    for batch in batches(source, STATISTICS_IMAGES, CHUNK):
        for name, task in tasks.items():
            part = task.statistics(batch)
            totals[name] = totals[name] + part if name in totals else part
    return totals


def trivial_metrics(
    task: Task, train: Source | None, held: Source, protocol: str, images: int
) -> dict[str, dict[str, float]]:
    """Metrics of every trivial predictor of `task` over the first `images` of `held`; without a
    `train`, of those that learn nothing."""
    learned = statistics({task.name: task}, train)[task.name] if train else None
    parts: dict[str, list[Rows]] = {}
    for batch in batches(held, images, CHUNK):
        for name, prediction in task.baselines(batch, learned).items():
            parts.setdefault(name, []).append(task.score(prediction, batch, protocol))
    return {name: metrics_of(concatenated(rows), protocol) for name, rows in parts.items()}


def batches(source: Source, images: int, chunk: int) -> Iterator[Batch]:
    """The first `images` of a source at its working size, `chunk` at a time."""
    count = min(images, len(source))
    for start in range(0, count, chunk):
        samples = source.samples(range(start, min(start + chunk, count)))
        if samples:  # those that cannot be read may have been left out
            yield collate([resize_sample(sample, source.size) for sample in samples])


@dataclass(frozen=True)
class Ceiling:
    """What is left of the truth."""

    task: str
    encoding: str
    codec: str  # as its caller calls it
    protocol: str  # id; only scores of one protocol compare
    channels: int  # of the target
    latents: int  # channels the backbone would denoise
    in_loss: float  # share of the valid pixels that a loss counts: those of wholly valid cells
    metric: str
    metrics: dict[str, float]

    @property
    def value(self) -> float:
        return self.metrics[self.metric]


@dataclass(frozen=True)
class RoundTrip:
    """One encoding through one codec, there and back."""

    encoding: str
    task: Task
    protocol: Protocol
    through: str
    codec: Codec

    @torch.inference_mode()
    def __call__(self, target: Target) -> Prediction:
        """What the codec gives back of `target`, a pass at a time, decoded."""
        passes = self.task.splits
        check_sides(target.x.shape[-2:], self.codec.downsample, "image")
        latents = self.codec.encode(rearrange(target.x, "b (p c) h w -> (p b) c h w", p=passes))
        x = self.codec.decode(latents, self.task.channels // passes)
        return self.task.decode(rearrange(x, "(p b) c h w -> b (p c) h w", p=passes))

    def score(self, batch: Batch) -> tuple[Rows, Tensor]:
        """One row of scores per image; its counts of valid pixels and of those in a loss, "b 2"."""
        target = self.task.encode(batch)
        rows = self.task.score(self(target), batch, self.protocol.name)
        in_loss = self.codec.mask(target.valid).flatten(1).sum(dim=1) * self.codec.downsample**2
        return rows, torch.stack([target.valid.flatten(1).sum(dim=1), in_loss], dim=1)

    def ceiling(self, scored: Sequence[tuple[Rows, Tensor]]) -> Ceiling:
        """The ceiling over the images of all batches."""
        parts, counts = zip(*scored)
        rows = {name: value.cpu() for name, value in concatenated(parts).items()}
        valid, in_loss = torch.cat(counts).sum(dim=0).tolist()
        return Ceiling(
            task=self.task.name,
            encoding=self.encoding,
            codec=self.through,
            protocol=self.protocol.id,
            channels=self.task.channels,
            latents=self.task.splits * working_channels(self.task, self.codec),
            in_loss=in_loss / max(valid, 1),
            metric=self.task.metric,
            metrics=metrics_of(rows, self.protocol.name),
        )


def variants(classes: int) -> list[tuple[str, TaskSettings]]:
    """Every encoding that a truth can take, by name. classes: label values of the source."""
    return [
        (name, task(**options, **({"classes": classes} if task.counted == "classes" else {})))
        for task in TASKS.values()
        for name, options in task.encodings.items()
    ]


def round_trips(source: Source, codecs: Mapping[str, Codec]) -> list[RoundTrip]:
    """Every encoding of what `source` holds through each of `codecs`, by the caller's names.

    Raises UserError for a source without any truth to encode.
    """
    trips = [
        RoundTrip(encoding, task, protocol_of(settings), through, codec)
        for encoding, settings in variants(len(source.classes))
        if (task := build_task(settings)).target_field in source.quantities
        for through, codec in codecs.items()
    ]
    if not trips:
        raise UserError(f"{source.name} holds no dense truth to encode. Choose another source.")
    return trips


def ceilings(
    source: Source, codecs: Mapping[str, Codec], images: int, device: str = "cpu"
) -> list[Ceiling]:
    """The ceilings of all `round_trips` over the first `images` of `source`, at its working size.

    Raises UserError as `round_trips` does, and unless both sides of that size are multiples of
    every codec's `downsample`.
    """
    trips = round_trips(source, codecs)
    scored: list[list[tuple[Rows, Tensor]]] = [[] for _ in trips]
    for batch in batches(source, images, CODED):
        batch = batch.to(device)
        for trip, parts in zip(trips, scored):
            parts.append(trip.score(batch))
    return [trip.ceiling(parts) for trip, parts in zip(trips, scored)]


def ceiling_grid(
    source: Source, codecs: Mapping[str, Codec], path: Path, images: int = 2, device: str = "cpu"
) -> Path:
    """Write a picture of the first `images`: image, truth, and the truth through each codec.

    One row per encoding; the columns of the images stand side by side.
    """
    batch = next(batches(source, images, CODED)).to(device)
    rows: dict[str, list[Tensor]] = {}  # by label: pictures "b 3 h w" of an image's columns
    for trip in round_trips(source, codecs):
        task, truth = trip.task, trip.task.truth(batch)
        first = [colour_image(batch.image), task.picture(truth, batch, like=truth)]
        values = trip(task.encode(batch)).values
        row = rows.setdefault(f"{task.name} {trip.encoding}", first)
        row.append(task.picture(values, batch, like=truth))
    stacks = [torch.stack(row, dim=1).cpu() for row in rows.values()]
    tiles = [list(rearrange(stack, "b p c h w -> (b p) h w c").numpy()) for stack in stacks]
    columns = ["image", "truth", *codecs] * len(batch)
    scale = max(1, round(128 / batch.image.shape[-2]))
    return compose(tiles, columns, list(rows), path, scale=scale)
