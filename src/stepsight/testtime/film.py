"""The film strip: one image in several ways of sampling, chosen and captioned by the whole set.

The image is the one whose gain from the cheapest setting to the one that is best over the set is
nearest to the median gain, so that the strip shows what usually happens. Captions are the values of
the set, and the framed tile is the best one there, whatever this image says.

Rows are ways of sampling and their fewest members, and of the way with the best ensemble all
members, which are nested: a column there is one ensemble that grows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stepsight.colours import colour_spread
from stepsight.data.collate import collate
from stepsight.data.table import Source
from stepsight.diffusion.config import Views
from stepsight.evaluation.pictures import legend_of, prompt_picture, tile_of, truth_of
from stepsight.evaluation.predictors import Setting
from stepsight.evaluation.results import metrics_of
from stepsight.evaluation.statistics import measured, per_image
from stepsight.evaluation.views import cropped
from stepsight.measures import main_metric, measure
from stepsight.metrics.masked import Rows
from stepsight.metrics.protocol import Protocol
from stepsight.pipeline.dense import DensePipeline
from stepsight.report import figures
from stepsight.report.film_figure import Film, Shot, draw
from stepsight.report.grids import Tile
from stepsight.tasks.base import Task
from stepsight.types import Batch, Prediction

BRIGHTEST = 0.98  # quantile of all spreads that is painted brightest
_PROMPTS = {"second": "next frame", "modal": "visible part"}


class Way(NamedTuple):
    """A way of sampling, and how it scores on the set."""

    pipeline: DensePipeline
    settings: Mapping[Setting, Rows]  # one row an image

    @property
    def label(self) -> str:
        """Temperature, and views where there are some: "T 0, mirror"."""
        used = self.pipeline.diffusion.settings
        views = f", {used.views}" if used.views != "none" else ""
        return f"T {used.temperature:g}{views}"

    @property
    def order(self) -> tuple[float, int]:
        """The plainest first."""
        used = self.pipeline.diffusion.settings
        return used.temperature, get_args(Views).index(used.views)


class Place(NamedTuple):
    """A setting of one of the ways."""

    way: int
    nfe: int
    members: int

    @property
    def calls(self) -> int:
        return self.nfe * self.members


class Standing(NamedTuple):
    """What the set says of every setting, by the protocol's main metric."""

    metric: str
    values: dict[Place, float]  # of the set, under the protocol's averaging
    images: dict[Place, NDArray[np.float64]]  # image by image

    def best(self, places: Sequence[Place] | None = None) -> Place | None:
        """The best of `places`, of equals the cheapest; None where none was measured."""
        known = [at for at in places or self.values if np.isfinite(self.values[at])]
        sign = -1 if measure(self.metric).higher_is_better else 1
        return min(known, key=lambda at: (sign * self.values[at], at.calls), default=None)

    @property
    def telling(self) -> int:
        """The image of median gain from the cheapest setting to the best one over the set; of
        median score where they are the same."""
        best, cheapest = self.best(), min(self.values, key=lambda at: at.calls)
        if best is None:
            return 0
        gains = self.images[best] - (self.images[cheapest] if best != cheapest else 0.0)
        distance = np.abs(gains - np.nanmedian(gains)) if np.isfinite(gains).any() else gains
        return int(np.argmin(np.where(np.isfinite(distance), distance, np.inf)))


def film_strip(
    path: Path,
    task: str,
    ways: Sequence[Way],
    source: Source,
    indices: Sequence[int],
    rule: Protocol,
    *,
    seed: int = 0,
    rows: int = 8,
) -> Path:
    """Draw the strip of the telling image of a set, `indices` of `source`, to `path`.

    Every way samples as its pipeline is set up, with the noise that was scored if `seed` is the
    same; `rows` images x members pass the backbone at a time.
    """
    film = shoot(task, ways, source, indices, rule, seed=seed, rows=rows)
    return figures.to_png(draw(film), path)


def standing(task: str, ways: Sequence[Way], rule: Protocol) -> Standing | None:
    """How the ways stand; None where the protocol measured nothing."""
    scored = {
        Place(number, *setting): rows
        for number, way in enumerate(ways)
        for setting, rows in sorted(way.settings.items())
    }
    metric = main_metric(task, measured(next(iter(scored.values()))), rule.metrics)
    if metric is None:
        return None
    values = {at: metrics_of(rows, rule.name).get(metric, np.nan) for at, rows in scored.items()}
    return Standing(metric, values, {at: per_image(rows, metric) for at, rows in scored.items()})


@torch.inference_mode()
def shoot(
    task: str,
    ways: Sequence[Way],
    source: Source,
    indices: Sequence[int],
    rule: Protocol,
    *,
    seed: int = 0,
    rows: int = 8,
) -> Film:
    """What the strip shows."""
    ways = sorted(ways, key=lambda way: way.order)
    found = standing(task, ways, rule)
    telling = found.telling if found else 0
    (sample,) = source.samples([indices[telling]])
    batch = collate([cropped(sample, rule.crop)]).to(ways[0].pipeline.device)
    chosen = ways[0].pipeline.task(task)
    truth = truth_of(chosen, batch)
    shown: dict[str, dict[int, Shot]] = {}
    spreads: dict[int, Tensor] = {}
    for number, members in _kept(ways, found):
        for at, prediction in _predictions(ways[number], task, members, batch, seed, rows):
            tile = tile_of(chosen.picture(prediction.values, batch, like=truth))
            shot = _shot(tile, found, Place(number, *at), telling)
            shown.setdefault(_label(ways[number], at), {})[at[0]] = shot
            if prediction.uncertainty is not None:  # the largest ensemble comes last
                spreads[at[0]] = prediction.uncertainty.float()
    return Film(
        task,
        sample.key,
        found.metric if found else None,
        len(indices),
        _given(chosen, batch, truth),
        legend_of(chosen, truth),
        shown,
        *_spread_tiles(spreads),
    )


def _kept(ways: Sequence[Way], found: Standing | None) -> Iterator[tuple[int, list[int]]]:
    """The members shown of each way: the fewest, and of the way with the best ensemble, which comes
    last, all."""
    counts = [sorted({members for _, members in way.settings}) for way in ways]
    several = [at for at in found.values if at.members > 1] if found else []
    best = found.best(several) if found and several else None
    full = best.way if best else None
    yield from ((number, members[:1]) for number, members in enumerate(counts) if number != full)
    if full is not None:
        yield full, counts[full]


def _predictions(
    way: Way, task: str, members: Sequence[int], batch: Batch, seed: int, rows: int
) -> Iterator[tuple[Setting, Prediction]]:
    """What the way predicts at every NFE, of nested members."""
    for nfe in sorted({nfe for nfe, _ in way.settings}):
        drawn = way.pipeline.sample(batch, task, nfe=nfe, members=members[-1], seed=seed, rows=rows)
        for count in members:
            merged = way.pipeline.task(task).merge(drawn[:count])
            yield (nfe, count), way.pipeline.finish(merged, batch)


def _shot(tile: Tile, found: Standing | None, at: Place, telling: int) -> Shot:
    if found is None:
        return Shot(tile, np.nan, np.nan)
    return Shot(tile, found.values[at], float(found.images[at][telling]), at == found.best())


def _label(way: Way, setting: Setting) -> str:
    return f"{way.label}\n{setting[1]} member{'s' if setting[1] > 1 else ''}"


def _given(task: Task, batch: Batch, truth: Tensor | None) -> dict[str, Tile]:
    """Input, prompt and truth, by caption."""
    pictures = {"input": prompt_picture(batch.image)}
    for name in task.asks[:1]:
        pictures[_PROMPTS.get(name, "prompt")] = prompt_picture(getattr(batch, name))
    if truth is not None:
        pictures["truth"] = task.picture(truth, batch, like=truth)
    return {name: tile_of(picture) for name, picture in pictures.items()}


def _spread_tiles(spreads: Mapping[int, Tensor]) -> tuple[dict[int, Tile], float]:
    """Tiles of spreads "1 1 h w" on one scale from 0, and its upper end."""
    if not spreads:
        return {}, 0.0
    values = torch.cat([spread.flatten() for spread in spreads.values()])
    brightest = max(float(np.nanquantile(values.cpu().numpy(), BRIGHTEST)), 1e-6)
    return {c: tile_of(colour_spread(x, hi=brightest)) for c, x in spreads.items()}, brightest
