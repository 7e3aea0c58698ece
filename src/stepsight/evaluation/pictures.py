"""Pictures of predictions: sample grids while training, best, median and worst after evaluation.

Truth and predictions of a row share their colours and their range, which stand beside the row, and
fade to grey where there is no truth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from stepsight.colours import Legend, colour_image, colour_spread, spread_limit
from stepsight.data.bad import BadItems
from stepsight.data.collate import collate
from stepsight.data.table import Readable, Source
from stepsight.evaluation.predictors import Model, Predictor
from stepsight.evaluation.spread import pixel_errors
from stepsight.evaluation.statistics import measured, per_image
from stepsight.evaluation.views import ProtocolView, cropped, size_of, view_of
from stepsight.measures import main_metric, measure, number
from stepsight.metrics.masked import Rows
from stepsight.metrics.protocol import Protocol, default_for
from stepsight.pipeline.dense import DensePipeline
from stepsight.report.grids import NOTE, Tile, compose
from stepsight.tasks.base import Task
from stepsight.types import Batch, Prediction, Sample

Tiles = dict[str, Tile | None]  # a row of the grid, by heading
AS_IT_IS = ProtocolView("none", None)
LARGEST = 400  # pixels of a tile's longer side


@dataclass(frozen=True)
class Shown:
    """A row of a grid."""

    tiles: Tiles
    label: tuple[str, ...]  # lines
    legend: Legend | None


def sample_grid(
    pipeline: DensePipeline,
    sources: dict[str, Source],
    path: Path,
    *,
    nfe: int | None = None,
    members: int | None = None,
    images: int = 3,
    bad: BadItems | None = None,
) -> Path:
    """Rows: `images` of every task; columns: rgb, prompt, truth, fewest calls, answer, its error,
    spread.

    nfe, members: of the answers, which are then sampled as `pipeline` is set up; left out, each
    task answers as it usually does (`DensePipeline.default_setting`). bad: what to do about images
    that cannot be read; None: stop.
    """
    rows = []
    for task, source in sources.items():
        calls, count, sampling = nfe, members, pipeline
        if calls is None or count is None:
            usual = pipeline.setting(task, nfe, members)
            calls, count, sampling = usual.nfe, usual.members, pipeline.with_setting(usual)
        model = Model(sampling, task, [calls], [count], pipeline.config.diffusion.sampler)
        temperature = sampling.diffusion.settings.temperature
        label = (task, f"{calls} x {count}, T {temperature:g}")
        protocol = default_for(task)
        # spread evenly over the source, the same for every run
        places = np.linspace(0, len(source) - 1, min(images, len(source))).astype(int)
        readable = Readable(source, bad or BadItems(), len(source))
        for sample in readable.samples(places.tolist()):
            rows.append(_predicted(model, sample, AS_IT_IS, protocol, label, answer="answer"))
    return _write(rows, path)


def extremes_grid(
    predictor: Predictor,
    source: Source,
    rows: Rows,
    protocol: Protocol,
    indices: Sequence[int],
    path: Path,
) -> Path | None:
    """The best, median and worst images by the protocol's main metric; None if none was measured.

    rows: of the setting that is shown, one per image of `indices`.
    """
    metric = main_metric(protocol.task, measured(rows), protocol.metrics)
    values = per_image(rows, metric) if metric else np.empty(0)
    known = np.flatnonzero(np.isfinite(values))
    if metric is None or not len(known):
        return None
    order = known[np.argsort(values[known], kind="stable")]
    if measure(metric).higher_is_better:
        order = order[::-1]
    places = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    shown = []
    for name, place in places.items():
        (sample,) = source.samples([indices[int(place)]])
        label = f"{name} {measure(metric).label} {number(float(values[place]))}"
        shown.append(_predicted(predictor, sample, view_of(protocol), protocol, (label,)))
    return _write(shown, path)


def _write(rows: list[Shown], path: Path) -> Path:
    """Compose the grid; a column that no row has is left out, a tile that a row lacks is white."""
    every = [row.tiles for row in rows]
    names = [name for name in every[0] if any(row[name] is not None for row in every)]
    whole = [
        [np.full_like(row["image"], 255) if (tile := row[name]) is None else tile for name in names]
        for row in every
    ]
    scale = max(1, round(128 / max(tile.shape[0] for row in whole for tile in row)))
    labels, legends = [row.label for row in rows], [row.legend for row in rows]
    return compose(whole, names, labels, path, scale=scale, legends=legends, note=NOTE)


@torch.inference_mode()
def _predicted(
    predictor: Predictor,
    sample: Sample,
    view: ProtocolView,
    protocol: Protocol,
    label: tuple[str, ...],
    answer: str | None = None,
) -> Shown:
    """An image as a protocol looks at it, with what is predicted for it; `answer` renames the last
    prediction, where rows of several settings share a column."""
    batch = collate([cropped(sample, view.crop)]).to(predictor.device)
    shown = predictor.shown(batch, view, [size_of(sample)])
    if answer is not None:
        first, *_, last = [*shown.items()] * 2  # the same, where a single call is usual
        shown = dict([first, (answer, last[1])])
    return _row(predictor.task, batch, shown, protocol, label)


def _row(
    task: Task,
    batch: Batch,
    shown: Mapping[str, Prediction],
    protocol: Protocol,
    label: tuple[str, ...],
) -> Shown:
    """The tiles of a row, None for what there is not; error and spread are those of the last."""
    truth, last = truth_of(task, batch), list(shown.values())[-1]
    errors = None if truth is None else pixel_errors(last, batch, protocol)
    error, note = (None, ()) if errors is None else _error_picture(task, *errors)
    prompts = task.required_inputs
    pictures = {
        "image": colour_image(batch.image),
        "prompt": prompt_picture(getattr(batch, prompts[0])) if prompts else None,
        "truth": None if truth is None else task.picture(truth, batch, like=truth),
        **{name: task.picture(x.values, batch, like=truth) for name, x in shown.items()},
        "error": error,
        "spread": None if last.uncertainty is None else colour_spread(last.uncertainty.float()),
    }
    tiles = {name: None if x is None else tile_of(x) for name, x in pictures.items()}
    return Shown(tiles, (*label, *note), legend_of(task, truth))


def _error_picture(task: Task, error: Tensor, valid: Tensor) -> tuple[Tensor, tuple[str, ...]]:
    """Errors "b 1 h w" in colours, and what is brightest; right and wrong need no range."""
    limit = spread_limit(error, valid)
    note = f"error to {number(float(limit))} {measure(task.metric).unit}".rstrip()
    return colour_spread(error, limit, valid), () if float(limit) in (0, 1) else (note,)


def truth_of(task: Task, batch: Batch) -> Tensor | None:
    """The truth in the form of predicted values, None where the batch lacks it."""
    return None if getattr(batch, task.target_field) is None else task.truth(batch)


def legend_of(task: Task, truth: Tensor | None) -> Legend | None:
    """What the colours of a truth's picture stand for, where the task has a legend."""
    legend = getattr(task, "legend", None)
    return None if legend is None or truth is None else legend(truth)


def prompt_picture(prompt: Tensor) -> Tensor:
    """An image or frame as it is, a mask in white on black, uint8 "b 3 h w"."""
    if prompt.dtype == torch.bool:
        return (prompt.to(torch.uint8) * 255).expand(-1, 3, -1, -1)
    return colour_image(prompt)


def tile_of(picture: Tensor) -> Tile:
    """The first of pictures uint8 "b 3 h w"; of a large one every n-th pixel."""
    stride = math.ceil(max(picture.shape[-2:]) / LARGEST)
    return rearrange(picture[0, :, ::stride, ::stride].cpu(), "c h w -> h w c").numpy()
