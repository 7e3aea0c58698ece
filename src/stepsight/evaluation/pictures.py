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
    rows: list[list[Tile | None]] = []
    labels: list[str] = []
    for task, source in sources.items():
        wanted = _telling(source, min(images, len(source)))
        for sample in source.samples(wanted):
            batch = collate([sample]).to(pipeline.device)
            rows.append(_tiles(pipeline, batch, task, nfe, members))
            labels.append(task)
    return _write(rows, labels, nfe, members, path)


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
    return _write(rows, labels, *setting, path)


def _write(
    rows: list[list[Tile | None]], labels: list[str], nfe: int, members: int, path: Path
) -> Path:
    """Compose the grid; the column of prompts is left out when no row has one."""
    names = ["image", "prompt", "truth", "1 x 1", f"{nfe} x {members}", "spread"]
    if all(row[1] is None for row in rows):
        names.remove("prompt")
        rows = [[tile for tile in row if tile is not None] for row in rows]
    whole = [[np.full_like(row[0], 255) if t is None else t for t in row] for row in rows]
    scale = max(1, round(128 / max(tile.shape[0] for row in whole for tile in row)))
    return compose(whole, names, labels, path, scale=scale)


@torch.inference_mode()
def _tiles(
    pipeline: DensePipeline, batch: Batch, task_name: str, nfe: int, members: int
) -> list[Tile | None]:
    """The tiles of a row; None for the prompt of a task that has none."""
    task = pipeline.task(task_name)
    truth = task.truth(batch)
    one = pipeline.predict(batch, task_name, nfe=1, members=1)
    many = pipeline.predict(batch, task_name, nfe=nfe, members=members)
    spread = many.uncertainty if many.uncertainty is not None else torch.zeros_like(truth[:, :1])
    pictures = [
        colour_image(batch.image),
        _prompt(getattr(batch, task.asks[0])) if task.asks else None,
        task.picture(truth, batch, like=truth),
        task.picture(one.values, batch, like=truth),
        task.picture(many.values, batch, like=truth),
        colour_spread(spread.float()),
    ]
    return [None if picture is None else _tile(picture) for picture in pictures]


def _prompt(asked: Tensor) -> Tensor:
    """A second frame, or a mask in white on black, uint8 "b 3 h w"."""
    if asked.dtype == torch.bool:
        return (asked.to(torch.uint8) * 255).expand(-1, 3, -1, -1)
    return colour_image(asked)


def _telling(source: Source, count: int) -> list[int]:
    """Indices to show: spread evenly over the source, the same for every run."""
    return [int(i) for i in np.linspace(0, len(source) - 1, count)]


def _tile(picture: Tensor) -> Tile:
    return rearrange(picture[0].cpu(), "c h w -> h w c").numpy()
