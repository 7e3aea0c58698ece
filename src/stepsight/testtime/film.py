"""The film strip: an image under several sampling options, chosen and captioned by the whole set.

The image is the one whose gain from the cheapest setting to the best over the set is nearest to the
median gain, so that the strip shows what usually happens. Captions are the values of
the set, and the framed tile is the best one there, whatever this image says.

Rows are sampling options with their fewest members, and of the option with the best ensemble all
members, which are nested: a column there is an ensemble that grows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stepsight.colours import colour_spread
from stepsight.data.collate import collate
from stepsight.data.table import Source
from stepsight.diffusion.config import Views
from stepsight.evaluation.pictures import legend_of, prompt_picture, tile_of, truth_of
from stepsight.evaluation.results import metrics_of
from stepsight.evaluation.statistics import measured, per_image
from stepsight.evaluation.views import cropped
from stepsight.measures import main_metric, measure
from stepsight.metrics.masked import Rows
from stepsight.metrics.protocol import Protocol
from stepsight.pipeline.dense import DensePipeline
from stepsight.report.film_figure import Film, Shot
from stepsight.report.grids import Tile
from stepsight.scaling.sampling.paired import Setting
from stepsight.scaling.sampling.wording import count
from stepsight.tasks.base import Task
from stepsight.types import Batch, Prediction

BRIGHTEST = 0.98  # quantile of all spreads that is painted brightest
_PROMPTS = {"second": "next frame", "modal": "visible part"}


class SamplingOption(NamedTuple):
    """Sampling options, and how they score on the set."""

    pipeline: DensePipeline
    settings: Mapping[Setting, Rows]  # one row per image

    @property
    def label(self) -> str:
        """Temperature, and views where there are some: "T 0, mirror"."""
        settings = self.pipeline.diffusion.settings
        views = f", {settings.views}" if settings.views != "none" else ""
        return f"T {settings.temperature:g}{views}"

    @property
    def order(self) -> tuple[float, int]:
        """The plainest first."""
        settings = self.pipeline.diffusion.settings
        return settings.temperature, get_args(Views).index(settings.views)


class OptionSetting(NamedTuple):
    """A setting of one of the options."""

    option: int
    nfe: int
    members: int

    @property
    def calls(self) -> int:
        return self.nfe * self.members


class SetScores(NamedTuple):
    """How every setting scores on the set, by the protocol's main metric."""

    metric: str
    values: dict[OptionSetting, float]  # of the set, under the protocol's averaging
    images: dict[OptionSetting, NDArray[np.float64]]  # image by image

    def best(self, settings: Sequence[OptionSetting] | None = None) -> OptionSetting | None:
        """The best of `settings`, of equals the cheapest; None where none was measured."""
        known = [at for at in settings or self.values if np.isfinite(self.values[at])]
        error = measure(self.metric).error
        return min(known, key=lambda at: (error(self.values[at]), at.calls), default=None)

    @property
    def telling(self) -> int:
        """The image of median gain from the cheapest setting to the best over the set; of median
        score where they are the same."""
        best, cheapest = self.best(), min(self.values, key=lambda at: at.calls)
        if best is None:
            return 0
        gains = self.images[best] - (self.images[cheapest] if best != cheapest else 0.0)
        distance = np.abs(gains - np.nanmedian(gains)) if np.isfinite(gains).any() else gains
        return int(np.argmin(np.where(np.isfinite(distance), distance, np.inf)))


def set_scores(
    task: str, options: Sequence[SamplingOption], protocol: Protocol
) -> SetScores | None:
    """How the options score on the set; None where the protocol measured nothing."""
    scored = {
        OptionSetting(number, *setting): rows
        for number, option in enumerate(options)
        for setting, rows in sorted(option.settings.items())
    }
    metric = main_metric(task, measured(next(iter(scored.values()))), protocol.metrics)
    if metric is None:
        return None
    values = {at: metrics_of(rows, protocol.name) for at, rows in scored.items()}
    return SetScores(
        metric,
        {at: metrics.get(metric, np.nan) for at, metrics in values.items()},
        {at: per_image(rows, metric) for at, rows in scored.items()},
    )


@torch.inference_mode()
def shoot(
    task: str,
    options: Sequence[SamplingOption],
    source: Source,
    indices: Sequence[int],
    protocol: Protocol,
    *,
    seed: int = 0,
    chunk_size: int = 8,
) -> Film:
    """The strip of the telling image of a set, `indices` of `source`.

    Every option samples as its pipeline is set up, with the noise that was scored if `seed` is the
    same; `chunk_size` images x members pass the backbone at a time.
    """
    noise: dict[str, Any] = {"seed": seed, "chunk_size": chunk_size}
    options = sorted(options, key=lambda option: option.order)
    scores = set_scores(task, options, protocol)
    telling = scores.telling if scores else 0
    (sample,) = source.samples([indices[telling]])
    batch = collate([cropped(sample, protocol.crop)]).to(options[0].pipeline.device)
    chosen = options[0].pipeline.task(task)
    truth = truth_of(chosen, batch)
    shown: dict[str, dict[int, Shot]] = {}
    spreads: dict[int, Tensor] = {}
    for number, members in _kept(options, scores):
        for setting, prediction in _predictions(options[number], task, members, batch, noise):
            tile = tile_of(chosen.picture(prediction.values, batch, like=truth))
            shot = _shot(tile, scores, OptionSetting(number, *setting), telling)
            label = f"{options[number].label}\n{count(setting[1], 'member')}"
            shown.setdefault(label, {})[setting[0]] = shot
            if prediction.uncertainty is not None:  # the largest ensemble comes last
                spreads[setting[0]] = prediction.uncertainty.float()
    return Film(
        task,
        sample.key,
        scores.metric if scores else None,
        len(indices),
        _given(chosen, batch, truth),
        legend_of(chosen, truth),
        shown,
        *_spread_tiles(spreads),
    )


def _kept(
    options: Sequence[SamplingOption], scores: SetScores | None
) -> Iterator[tuple[int, list[int]]]:
    """The members shown of each option: the fewest, and of the option with the best ensemble, which
    comes last, all."""
    counts = [sorted({members for _, members in option.settings}) for option in options]
    several = [at for at in scores.values if at.members > 1] if scores else []
    best = scores.best(several) if scores and several else None
    full = best.option if best else None
    yield from ((number, members[:1]) for number, members in enumerate(counts) if number != full)
    if full is not None:
        yield full, counts[full]


def _predictions(
    option: SamplingOption, task: str, members: Sequence[int], batch: Batch, noise: dict[str, Any]
) -> Iterator[tuple[Setting, Prediction]]:
    """What the option predicts at every NFE, of nested members."""
    pipeline = option.pipeline
    for nfe in sorted({nfe for nfe, _ in option.settings}):
        drawn = pipeline.sample(batch, task, nfe=nfe, members=members[-1], **noise)
        for size in members:
            yield (nfe, size), pipeline.finish(pipeline.task(task).merge(drawn[:size]), batch)


def _shot(tile: Tile, scores: SetScores | None, at: OptionSetting, telling: int) -> Shot:
    if scores is None:
        return Shot(tile, np.nan, np.nan)
    return Shot(tile, scores.values[at], float(scores.images[at][telling]), at == scores.best())


def _given(task: Task, batch: Batch, truth: Tensor | None) -> dict[str, Tile]:
    """Input, prompt and truth, by caption."""
    pictures = {"input": prompt_picture(batch.image)}
    for name in task.required_inputs[:1]:
        pictures[_PROMPTS.get(name, "prompt")] = prompt_picture(getattr(batch, name))
    if truth is not None:
        pictures["truth"] = task.picture(truth, batch, like=truth)
    return {name: tile_of(picture) for name, picture in pictures.items()}


def _spread_tiles(spreads: Mapping[int, Tensor]) -> tuple[dict[int, Tile], float]:
    """Tiles of spreads "1 1 h w" on the same scale from 0, and its upper end."""
    if not spreads:
        return {}, 0.0
    values = torch.cat([spread.flatten() for spread in spreads.values()])
    brightest = max(float(np.nanquantile(values.cpu().numpy(), BRIGHTEST)), 1e-6)
    return {c: tile_of(colour_spread(x, hi=brightest)) for c, x in spreads.items()}, brightest
