"""Round-trip ceilings: the score that a perfect model would get with a target encoding and a codec.

No network takes part. The truth goes the way of a prediction, task.encode -> codec.encode ->
codec.decode -> task.decode, and is scored against itself under the task's protocol. What is lost on
the way (the clipping of depth to quantiles, fine structure that a VAE blurs, colours it shifts to
another class) no training can win back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
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
from stepsight.metrics.masked import Rows
from stepsight.metrics.protocol import Protocol
from stepsight.models.codec import Codec
from stepsight.report.grids import compose
from stepsight.tasks.base import Task
from stepsight.tasks.config import (
    AmodalSettings,
    DepthSettings,
    FlowSettings,
    NormalsSettings,
    SemanticSettings,
    TaskSettings,
)
from stepsight.tasks.table import build_task
from stepsight.types import Batch, Prediction, Target

CHUNK = 16  # images coded at a time


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
        passes = self.task.passes
        latents = self.codec.encode(rearrange(target.x, "b (p c) h w -> (p b) c h w", p=passes))
        x = self.codec.decode(latents, self.task.channels // passes)
        return self.task.decode(rearrange(x, "(p b) c h w -> b (p c) h w", p=passes))

    def score(self, batch: Batch) -> tuple[Rows, Tensor]:
        """One row of scores an image; its numbers of valid pixels and of those in a loss, "b 2"."""
        target = self.task.encode(batch)
        rows = self.task.score(self(target), batch, self.protocol.name)
        in_loss = self.codec.mask(target.valid).flatten(1).sum(dim=1) * self.codec.downsample**2
        return rows, torch.stack([target.valid.flatten(1).sum(dim=1), in_loss], dim=1)

    def ceiling(self, scored: Sequence[tuple[Rows, Tensor]]) -> Ceiling:
        """The ceiling over the images of all batches."""
        parts, counts = zip(*scored)
        rows = {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}
        valid, in_loss = torch.cat(counts).sum(dim=0).tolist()
        return Ceiling(
            task=self.task.name,
            encoding=self.encoding,
            codec=self.through,
            protocol=self.protocol.id,
            channels=self.task.channels,
            latents=self.task.passes * working_channels(self.task, self.codec),
            in_loss=in_loss / max(valid, 1),
            metric=self.task.metric,
            metrics=metrics_of(rows, self.protocol.name),
        )


def variants(classes: int) -> list[tuple[str, TaskSettings]]:
    """Every encoding that a truth can take, by name. classes: label values of the source."""
    return [
        *((space, DepthSettings(space=space)) for space in ("linear", "log", "inverse")),
        ("joint", FlowSettings()),
        ("separate", FlowSettings(components="separate")),
        ("mask", AmodalSettings()),
        ("rgb", AmodalSettings(target="rgb")),
        *(
            (code, SemanticSettings(classes=classes, encoding=code))
            for code in ("onehot", "bits", "palette")
        ),
        ("vectors", NormalsSettings()),
    ]


def round_trips(source: Source, codecs: Mapping[str, Codec]) -> list[RoundTrip]:
    """Every encoding of what `source` holds through each of `codecs`, by the caller's names.

    Raises UserError for a source without any truth to encode.
    """
    trips = [
        RoundTrip(encoding, task, protocol_of(settings), through, codec)
        for encoding, settings in variants(len(source.classes))
        if (task := build_task(settings)).needs in source.quantities
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
    for batch in _batches(source, images):
        batch = batch.to(device)
        for trip, parts in zip(trips, scored):
            parts.append(trip.score(batch))
    return [trip.ceiling(parts) for trip, parts in zip(trips, scored)]


def ceiling_grid(
    source: Source, codecs: Mapping[str, Codec], path: Path, images: int = 2, device: str = "cpu"
) -> Path:
    """Write a picture of the first `images`: image, truth, and the truth through each codec.

    One row an encoding; the columns of the images stand side by side.
    """
    batch = next(_batches(source, images)).to(device)
    rows: dict[str, list[Tensor]] = {}  # by label: pictures "b 3 h w" of an image's columns
    for trip in round_trips(source, codecs):
        task, truth = trip.task, trip.task.truth(batch)
        first = [colour_image(batch.image), task.picture(truth, batch, like=truth)]
        values = trip(task.encode(batch)).values
        row = rows.setdefault(f"{task.name} {trip.encoding}", first)
        row.append(task.picture(values, batch, like=truth))
    places = range(len(batch))
    tiles = [[tile for i in places for tile in _tiles(row, i)] for row in rows.values()]
    columns = ["image", "truth", *codecs] * len(batch)
    scale = max(1, round(128 / batch.image.shape[-2]))
    return compose(tiles, columns, list(rows), path, scale=scale)


def _tiles(pictures: list[Tensor], image: int) -> list[np.ndarray]:
    """One image of each of the pictures, uint8 "h w 3"."""
    return [rearrange(one[image].cpu(), "c h w -> h w c").numpy() for one in pictures]


def _batches(source: Source, images: int) -> Iterator[Batch]:
    count = min(images, len(source))
    for start in range(0, count, CHUNK):
        samples = source.samples(range(start, min(start + CHUNK, count)))
        yield collate([resize_sample(one, source.size) for one in samples])
