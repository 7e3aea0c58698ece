"""Which rows of a batch are asked what: starts, rollouts on the model's own answers, noised truth.

A sampler never sees noised truth: it begins at t = 1, from zeros (temperature 0) or noise, and goes
on from what the model itself answered. A network trained on noised truth alone is not used to
either (exposure bias). So a batch has three kinds of rows:
* start: t = 1, x = 0, or noise for some of them;
* rollout (step-unrolled training, Saxena et al. 2023, "The surprising effectiveness of diffusion
  models for optical flow and monocular depth estimation"): from the answer x0 to a start of the
  same step, without gradient, to x_t = alpha x0 + sigma start; for some steps by way of one more
  call in between. Nothing has to be kept from step to step, and hardly a forward pass is added;
* denoise: truth noised to a drawn level.

Which picture gets which kind, all levels and all noise are functions of (seed, step, number of the
row): nothing depends on the number of processes or on how the batch is cut.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stepsight.config import RunConfig
from stepsight.seeding import numpy_generator
from stepsight.training.config import RowsSettings, TrainingSettings


@dataclass(frozen=True)
class Rows:
    """The rows of a micro-batch, by place of the picture in it."""

    start: Tensor  # int64, pictures with a row at t = 1
    later: Tensor  # int64, pictures with a row below it: first the rollouts
    rollouts: Tensor  # int64, places within `start` of the pictures that roll on
    noisy: Tensor  # float32 "start": 1 for starts from noise, 0 from zeros
    deep: Tensor | None = (
        None  # "rollouts" in (0, 1): how far back towards 1 a call lies in between
    )

    def to(self, device: torch.device) -> Rows:
        values = (self.start, self.later, self.rollouts, self.noisy, self.deep)
        return Rows(*(None if value is None else value.to(device) for value in values))  # type: ignore[arg-type]


def rows_of(settings: TrainingSettings, step: int, rows: range) -> Rows:
    """The kinds of some rows of batch number `step`."""
    rng = numpy_generator(settings.seed, "rows", step)
    coins = rng.random(settings.batch)
    deep, depths = rng.random() < settings.rows.deep, rng.random(settings.batch)
    starts, rollouts = counts(settings.rows, settings.batch)
    order = spread_out(settings.batch)[np.asarray(rows)]
    start = np.flatnonzero(order < starts)
    rolling = order[start] < rollouts
    later = np.concatenate([start[rolling], np.flatnonzero(order >= starts)])
    numbers = np.asarray(rows)
    return Rows(
        torch.from_numpy(start),
        torch.from_numpy(later),
        torch.from_numpy(np.flatnonzero(rolling)),
        torch.from_numpy((coins[numbers[start]] < settings.rows.noisy).astype(np.float32)),
        torch.from_numpy(depths[numbers[start[rolling]]].astype(np.float32)) if deep else None,
    )


def kinds_of(settings: TrainingSettings, rows: range) -> tuple[bool, ...]:
    """Whether some rows of a batch have starts, rows below t = 1, and rollouts: in every step."""
    found = rows_of(settings, 0, rows)
    return tuple(len(places) > 0 for places in (found.start, found.later, found.rollouts))


def spread_out(batch: int) -> np.ndarray:
    """The place of each picture of a batch in the order of kinds: every kind is spread evenly over
    the batch, so that processes, which take a stretch of it each, have equal work. (Which pictures
    make a batch, and in which order, is random already.) Van der Corput's sequence: the order of
    the numbers with their bits reversed."""
    bits = max(1, (batch - 1).bit_length())
    reversed_bits = [int(f"{row:0{bits}b}"[::-1], 2) for row in range(batch)]
    return np.argsort(np.argsort(reversed_bits))


def counts(rows: RowsSettings, batch: int) -> tuple[int, int]:
    """How many of the pictures of a batch have a start, and how many of those roll on."""
    pictures = rows.start + rows.denoise
    starts = round(batch * rows.start / pictures)
    return starts, min(starts, round(batch * rows.rollout / pictures))


def rows_per_picture(config: RunConfig) -> float:
    """Rows with a gradient for each picture and task, and the further calls of rollouts, which have
    none, at a third."""
    if config.diffusion.objective == "end_to_end":
        return 1.0
    training = config.training
    rollouts = counts(training.rows, training.batch)[1] / training.batch
    return 1 + rollouts * (1 + training.rows.deep / 3)
