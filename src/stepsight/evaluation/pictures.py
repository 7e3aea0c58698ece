"""Pictures of predictions: sample grids while training, best, median and worst after evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from stepsight.colours import colour_image, colour_spread
from stepsight.data.collate import collate
from stepsight.data.table import Source
from stepsight.evaluation.evaluator import Scores, Setting
from stepsight.evaluation.grids import compose
from stepsight.evaluation.measures import measure, number
from stepsight.evaluation.results import per_image
from stepsight.pipeline import DensePipeline
from stepsight.types import Batch

Tile = np.ndarray  # uint8 "h w 3"


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
    rows: list[list[Tile]] = []
    labels: list[str] = []
    for task, source in sources.items():
        wanted = _telling(source, min(images, len(source)))
        for sample in source.samples(wanted):
            batch = collate([sample]).to(pipeline.device)
            rows.append(_tiles(pipeline, batch, task, nfe, members))
            labels.append(task)
    names = ["image", "prompt", "truth", "1 x 1", f"{nfe} x {members}", "spread"]
    return compose(rows, names, labels, path, scale=_scale(rows))


def extremes_grid(
    pipeline: DensePipeline,
    source: Source,
    scores: Scores,
    setting: Setting,
    indices: list[int],
    path: Path,
) -> Path | None:
    """The best, median and worst images of a task under `setting`; None if none was measured."""
    task = pipeline.task(scores.task)
    values = per_image(scores.settings[setting], task.metric)
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return None
    order = known[np.argsort(values[known])]
    if task.higher_is_better:
        order = order[::-1]
    places = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    rows, labels = [], []
    for name, place in places.items():
        batch = collate(source.samples([indices[place]])).to(pipeline.device)
        rows.append(_tiles(pipeline, batch, task.name, *setting))
        labels.append(f"{name} {measure(task.metric).label} {number(float(values[place]))}")
    nfe, members = setting
    names = ["image", "prompt", "truth", "1 x 1", f"{nfe} x {members}", "spread"]
    return compose(rows, names, labels, path, scale=_scale(rows))


@torch.inference_mode()
def _tiles(
    pipeline: DensePipeline, batch: Batch, task_name: str, nfe: int, members: int
) -> list[Tile]:
    task = pipeline.task(task_name)
    truth = task.truth(batch)
    one = pipeline.predict(batch, task_name, nfe=1, members=1)
    many = pipeline.predict(batch, task_name, nfe=nfe, members=members)
    image = colour_image(batch.image)
    prompt = getattr(batch, task.asks[0]) if task.asks else None
    if prompt is None:
        asked = torch.full_like(image, 255)
    elif prompt.dtype == torch.bool:
        asked = (prompt.to(torch.uint8) * 255).expand_as(image)
    else:
        asked = colour_image(prompt)
    spread = many.uncertainty if many.uncertainty is not None else torch.zeros_like(truth[:, :1])
    pictures = [
        image,
        asked,
        task.picture(truth, batch, like=truth),
        task.picture(one.values, batch, like=truth),
        task.picture(many.values, batch, like=truth),
        colour_spread(spread.float()),
    ]
    return [_tile(picture) for picture in pictures]


def _telling(source: Source, count: int) -> list[int]:
    """Indices to show: spread evenly over the source, the same for every run."""
    return [int(i) for i in np.linspace(0, len(source) - 1, count)]


def _tile(picture: Tensor) -> Tile:
    return rearrange(picture[0].cpu(), "c h w -> h w c").numpy()


def _scale(rows: list[list[Tile]]) -> int:
    """Enlarge small tiles to about 128 pixels."""
    return max(1, round(128 / max(tile.shape[0] for row in rows for tile in row)))
