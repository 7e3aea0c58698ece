"""The film strip: one image at every NFE and number of members, beside its truth.

Columns are model calls a member, rows are members; each tile carries the image's own score, and the
best one is framed. Members are nested, so that a column is one ensemble that grows. The last row is
the spread of the largest ensemble, on one scale for all columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from stepsight.colours import colour_spread
from stepsight.data.collate import collate
from stepsight.data.table import Source
from stepsight.evaluation import figures
from stepsight.evaluation.pictures import Tile, prompt_picture, tile_of
from stepsight.evaluation.predictors import Setting
from stepsight.evaluation.statistics import measured, per_image
from stepsight.evaluation.views import cropped
from stepsight.measures import main_metric, measure, number
from stepsight.metrics.protocol import Protocol
from stepsight.pipeline import DensePipeline
from stepsight.types import Batch, Prediction

BRIGHTEST = 0.98  # quantile of all spreads that is painted brightest
TILE, GAP, CAPTION = 1.28, 0.12, 0.26  # inches, of which there are 150 dots: 64 pixels are 192
HEADING, MARGIN = 0.56, 0.34


@dataclass(frozen=True)
class Film:
    """What a film strip shows of one image of a task."""

    task: str
    key: str
    metric: str | None
    given: dict[str, Tile]  # input, prompt and truth, by caption
    tiles: dict[Setting, Tile]
    values: dict[Setting, float]  # the image's metric
    spreads: dict[int, Tile]  # of the most members, by NFE; empty for single members
    brightest: float  # the spread painted brightest

    @property
    def nfe(self) -> list[int]:
        return sorted({nfe for nfe, _ in self.tiles})

    @property
    def members(self) -> list[int]:
        return sorted({members for _, members in self.tiles})

    @property
    def best(self) -> Setting | None:
        """The setting with the best score of this image; None where none was measured."""
        known = {one: value for one, value in self.values.items() if np.isfinite(value)}
        if self.metric is None or not known:
            return None
        sign = -1 if measure(self.metric).higher_is_better else 1
        return min(known, key=lambda setting: sign * known[setting])


def film_strip(
    pipeline: DensePipeline,
    source: Source,
    task: str,
    index: int,
    nfe: Sequence[int],
    members: Sequence[int],
    rule: Protocol,
    path: Path,
    *,
    seed: int = 0,
    rows: int = 8,
) -> Path:
    """Predict image `index` of `source` at every pair of `nfe` and `members`, and draw the strip.

    The pipeline samples as it is set up; a column costs its largest ensemble, of which `rows` pass
    the backbone at a time.
    """
    film = shoot(pipeline, source, task, index, nfe, members, rule, seed=seed, rows=rows)
    return figures.to_png(draw(film), path)


@torch.inference_mode()
def shoot(
    pipeline: DensePipeline,
    source: Source,
    task: str,
    index: int,
    nfe: Sequence[int],
    members: Sequence[int],
    rule: Protocol,
    *,
    seed: int = 0,
    rows: int = 8,
) -> Film:
    """The tiles and scores of a strip."""
    (sample,) = source.samples([index])
    batch = collate([cropped(sample, rule.crop)]).to(pipeline.device)
    chosen, most = pipeline.task(task), max(members)
    found: dict[Setting, Prediction] = {}
    for calls in nfe:
        drawn = pipeline.sample(batch, task, nfe=calls, members=most, seed=seed, rows=rows)
        for count in members:
            found[calls, count] = pipeline.finish(chosen.merge(drawn[:count]), batch)
    truth = chosen.truth(batch) if getattr(batch, chosen.needs) is not None else None
    shown = {one: chosen.picture(x.values, batch, like=truth) for one, x in found.items()}
    metric, values = _scores(pipeline, batch, task, found, rule)
    spreads, brightest = _spreads({c: found[c, most].uncertainty for c in nfe})
    given = {"input": batch.image}
    if chosen.asks:
        given[_PROMPTS.get(chosen.asks[0], "prompt")] = getattr(batch, chosen.asks[0])
    pictures = {name: prompt_picture(image) for name, image in given.items()}
    if truth is not None:
        pictures["truth"] = chosen.picture(truth, batch, like=truth)
    return Film(
        task,
        sample.key,
        metric,
        given={name: tile_of(picture) for name, picture in pictures.items()},
        tiles={setting: tile_of(picture) for setting, picture in shown.items()},
        values=values,
        spreads=spreads,
        brightest=brightest,
    )


_PROMPTS = {"second": "next frame", "modal": "visible part"}


def _scores(
    pipeline: DensePipeline,
    batch: Batch,
    task: str,
    found: Mapping[Setting, Prediction],
    rule: Protocol,
) -> tuple[str | None, dict[Setting, float]]:
    """The protocol's main metric and its value for each prediction of the image."""
    chosen = pipeline.task(task)
    rows = {setting: chosen.score(one, batch, rule.name) for setting, one in found.items()}
    metric = main_metric(task, measured(next(iter(rows.values()))), rule.metrics)
    if metric is None:
        return None, {}
    return metric, {setting: float(per_image(own, metric)[0]) for setting, own in rows.items()}


def _spreads(found: Mapping[int, Tensor | None]) -> tuple[dict[int, Tile], float]:
    """Tiles of spreads "1 1 h w" on one scale from 0, and its upper end."""
    known = {calls: spread.float() for calls, spread in found.items() if spread is not None}
    if not known:
        return {}, 0.0
    values = torch.cat([spread.flatten() for spread in known.values()])
    brightest = max(float(np.nanquantile(values.cpu().numpy(), BRIGHTEST)), 1e-6)
    return {c: tile_of(colour_spread(x, hi=brightest)) for c, x in known.items()}, brightest


class Sheet:
    """A figure on which tiles of one size are placed in inches from the upper left corner."""

    def __init__(self, size: tuple[float, float], tile: tuple[float, float]) -> None:
        self.figure = Figure(figsize=size)
        self._size, self._tile = size, tile

    def place(self, x: float, y: float, tile: Tile) -> Axes:
        """A tile with its upper left corner at (x, y)."""
        axes = self.box(x, y, *self._tile)
        axes.imshow(tile, interpolation="nearest", aspect="auto")
        axes.set(xticks=[], yticks=[])
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.xaxis.labelpad = 2
        return axes

    def box(self, x: float, y: float, width: float, height: float) -> Axes:
        """Axes of another size."""
        whole, tall = self._size
        return self.figure.add_axes(
            (x / whole, 1 - (y + height) / tall, width / whole, height / tall)
        )

    def write(self, x: float, y: float, text: str, **look: Any) -> None:
        whole, tall = self._size
        self.figure.text(x / whole, 1 - y / tall, text, **look)


@matplotlib.rc_context(figures.STYLE)
def draw(film: Film) -> Figure:
    """The strip as a figure."""
    rows = len(film.members) + bool(film.spreads)
    aside = -(-len(film.given) // rows)  # columns of input, prompt and truth
    height, width = next(iter(film.tiles.values())).shape[:2]
    tile = (TILE, TILE * height / width)
    left = aside * (TILE + GAP) + MARGIN
    across, down = TILE + GAP, tile[1] + CAPTION
    sheet = Sheet((left + len(film.nfe) * across + 0.7, HEADING + rows * down), tile)
    sheet.write(0, 0.18, f"{film.task}: {film.key}", weight="bold", size=11)
    for place, (name, picture) in enumerate(film.given.items()):
        column, row = divmod(place, rows)
        sheet.place(column * across, HEADING + row * down, picture).set_xlabel(name)
    for x, calls in enumerate(film.nfe):
        for y, count in enumerate(film.members):
            axes = sheet.place(left + x * across, HEADING + y * down, film.tiles[calls, count])
            _caption(axes, film, (calls, count))
        centre = left + x * across + TILE / 2
        sheet.write(centre, HEADING - 0.07, f"{calls} NFE", ha="center", size=9.5)
    labels = [f"{count} member{'s' if count > 1 else ''}" for count in film.members]
    labels += ["spread"] if film.spreads else []
    for y, label in enumerate(labels):
        middle = HEADING + y * down + tile[1] / 2
        sheet.write(left - 0.14, middle, label, rotation=90, ha="center", va="center", size=9.5)
    if film.metric:
        end = left + len(film.nfe) * across - GAP
        sheet.write(end, 0.18, measure(film.metric).axis, ha="right", size=9.5)
    _draw_spreads(sheet, film, left, HEADING + len(film.members) * down)
    return sheet.figure


def _draw_spreads(sheet: Sheet, film: Film, left: float, top: float) -> None:
    """The last row with its scale; nothing for single members."""
    if not film.spreads:
        return
    for x, calls in enumerate(film.nfe):
        height = sheet.place(left + x * (TILE + GAP), top, film.spreads[calls]).bbox.height
    scale = sheet.box(left + len(film.nfe) * (TILE + GAP), top, 0.1, height / sheet.figure.dpi)
    shown = ScalarMappable(Normalize(0, film.brightest), "inferno")
    sheet.figure.colorbar(shown, cax=scale).outline.set_visible(False)  # type: ignore[operator]


def _caption(axes: Axes, film: Film, setting: Setting) -> None:
    """The score below a tile; the best one is framed."""
    if setting not in film.values:
        return
    best = setting == film.best
    axes.set_xlabel(number(film.values[setting]), weight="bold" if best else "normal")
    for spine in axes.spines.values():
        spine.set(visible=best, edgecolor=figures.PALETTE[1], linewidth=3)
