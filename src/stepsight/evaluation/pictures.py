"""Pictures of predictions: sample grids while training, best, median and worst after evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from stepsight.colours import colour_image, colour_spread
from stepsight.data.collate import collate
from stepsight.data.table import Source
from stepsight.evaluation.grids import compose
from stepsight.evaluation.predictors import Model, Predictor
from stepsight.evaluation.statistics import measured, per_image
from stepsight.evaluation.views import View, cropped, view_of
from stepsight.measures import main_metric, measure, number
from stepsight.metrics.masked import Rows
from stepsight.metrics.protocol import Protocol
from stepsight.pipeline import DensePipeline
from stepsight.tasks.base import Task
from stepsight.types import Batch, Prediction, Sample

Tile = np.ndarray  # uint8 "h w 3"
Tiles = dict[str, Tile | None]  # a row of the grid, by heading
AS_IT_IS = View("none", None)
LARGEST = 400  # pixels of a tile's longer side


def sample_grid(
    pipeline: DensePipeline,
    sources: dict[str, Source],
    path: Path,
    *,
    nfe: int,
    members: int,
    images: int = 3,
) -> Path:
    """Rows: `images` of every task; columns: rgb, prompt, truth, 1 step, N x M, spread."""
    rows: list[Tiles] = []
    labels: list[str] = []
    for task, source in sources.items():
        model = Model(pipeline, task, [nfe], [members], pipeline.config.diffusion.sampler)
        wanted = _telling(source, min(images, len(source)))
        for sample in source.samples(wanted):
            rows.append(_answered(model, sample, AS_IT_IS))
            labels.append(task)
    return _write(rows, labels, path)


def extremes_grid(
    predictor: Predictor,
    source: Source,
    rows: Rows,
    rule: Protocol,
    indices: Sequence[int],
    path: Path,
) -> Path | None:
    """The best, median and worst images by the protocol's main metric; None if none was measured.

    rows: of the setting that is shown, one an image of `indices`.
    """
    metric = main_metric(rule.task, measured(rows), rule.metrics)
    values = per_image(rows, metric) if metric else np.empty(0)
    known = np.flatnonzero(np.isfinite(values))
    if metric is None or not len(known):
        return None
    order = known[np.argsort(values[known])]
    if measure(metric).higher_is_better:
        order = order[::-1]
    places = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    tiles, labels = [], []
    for name, place in places.items():
        (sample,) = source.samples([indices[int(place)]])
        tiles.append(_answered(predictor, sample, view_of(rule)))
        labels.append(f"{name} {measure(metric).label} {number(float(values[place]))}")
    return _write(tiles, labels, path)


def _write(rows: list[Tiles], labels: list[str], path: Path) -> Path:
    """Compose the grid; a column that no row has is left out, a tile that a row lacks is white."""
    names = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    whole = [
        [np.full_like(row["image"], 255) if (tile := row[name]) is None else tile for name in names]
        for row in rows
    ]
    scale = max(1, round(128 / max(tile.shape[0] for row in whole for tile in row)))
    return compose(whole, names, labels, path, scale=scale)


@torch.inference_mode()
def _answered(predictor: Predictor, sample: Sample, view: View) -> Tiles:
    """The tiles of an image as a protocol looks at it, with what is predicted for it."""
    batch = collate([cropped(sample, view.crop)]).to(predictor.device)
    height, width = sample.image.shape[-2:]
    return _tiles(predictor.task, batch, predictor.shown(batch, view, [(height, width)]))


def _tiles(task: Task, batch: Batch, shown: Mapping[str, Prediction]) -> Tiles:
    """The tiles of a row; None for what there is not."""
    has_truth = getattr(batch, task.needs) is not None
    truth = task.truth(batch) if has_truth else None
    spread = list(shown.values())[-1].uncertainty
    pictures = {
        "image": colour_image(batch.image),
        "prompt": prompt_picture(getattr(batch, task.asks[0])) if task.asks else None,
        "truth": None if truth is None else task.picture(truth, batch, like=truth),
        **{name: task.picture(one.values, batch, like=truth) for name, one in shown.items()},
        "spread": None if spread is None else colour_spread(spread.float()),
    }
    return {name: None if x is None else tile_of(x) for name, x in pictures.items()}


def prompt_picture(asked: Tensor) -> Tensor:
    """An image or frame as it is, a mask in white on black, uint8 "b 3 h w"."""
    if asked.dtype == torch.bool:
        return (asked.to(torch.uint8) * 255).expand(-1, 3, -1, -1)
    return colour_image(asked)


def _telling(source: Source, count: int) -> list[int]:
    """Indices to show: spread evenly over the source, the same for every run."""
    return [int(i) for i in np.linspace(0, len(source) - 1, count)]


def tile_of(picture: Tensor) -> Tile:
    """The first of pictures uint8 "b 3 h w"; of a large one every n-th pixel."""
    stride = math.ceil(max(picture.shape[-2:]) / LARGEST)
    return rearrange(picture[0, :, ::stride, ::stride].cpu(), "c h w -> h w c").numpy()
