"""The film strip: an image under several sampling options, chosen and captioned by the whole set.

Of the images that score about as well as most, the one whose gain from the cheapest setting to the
best over the set is nearest to the median gain, so that the strip shows what usually happens.
Captions are the values of the set, and the tile marked as best is the best one there, whatever this
image says. Of the same image is the panel with which a report begins: the cheapest setting, the
best one, and where that one errs.

Rows are sampling options with their fewest members, and of the option with the best ensemble all
members, which are nested: a column there is an ensemble that grows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from stepsight.data.collate import collate
from stepsight.data.table import Source
from stepsight.diffusion.config import Views
from stepsight.evaluation.pictures import PaintedPanel, ShownAnswer, paint, ranked
from stepsight.evaluation.results import metrics_of
from stepsight.evaluation.statistics import measured, per_image
from stepsight.evaluation.views import cropped, setting_text
from stepsight.measures import main_metric, measure
from stepsight.metrics.masked import Rows
from stepsight.metrics.protocol import Protocol
from stepsight.pipeline.dense import DensePipeline
from stepsight.scaling.sampling.paired import Setting
from stepsight.scaling.sampling.wording import count
from stepsight.types import Batch, Prediction


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
    def cheapest(self) -> OptionSetting:
        """The setting of fewest calls, of several the best."""
        fewest = min(at.calls for at in self.values)
        alike = [at for at in self.values if at.calls == fewest]
        return self.best(alike) or alike[0]

    @property
    def telling(self) -> int:
        """Of the third of the images in the middle by the best setting over the set, that of
        median gain from the cheapest; of median score where they are the same."""
        best = self.best()
        order = ranked(self.images[best], self.metric) if best else []
        if best is None or not len(order):
            return 0
        third, gains = len(order) // 3, self.images[best] - self.images[self.cheapest]
        middle, usual = order[third : len(order) - third], np.nanmedian(gains)
        distance = np.nan_to_num(np.abs(gains[middle] - usual), nan=np.inf)
        centre = np.abs(np.arange(len(middle)) - len(middle) // 2)
        return int(middle[np.lexsort((centre, distance))[0]])

    def chosen(self) -> str:
        """Why the telling image is shown."""
        label, images = measure(self.metric).label, len(next(iter(self.images.values())))
        if self.best() in (None, self.cheapest):
            return f"median image by {label} of {images}"
        return f"image of middling {label} and median gain from sampling, of {images}"


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


class Film(NamedTuple):
    """What is shown of an image that tells of a set."""

    panel: PaintedPanel
    strip: PaintedPanel


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
    """The telling image of a set, `indices` of `source`.

    Every option samples as its pipeline is set up, with the noise that was scored if `seed` is the
    same; `chunk_size` images x members pass the backbone at a time.
    """
    noise: dict[str, Any] = {"seed": seed, "chunk_size": chunk_size}
    options = sorted(options, key=lambda option: option.order)
    scores = set_scores(task, options, protocol)
    telling = scores.telling if scores else 0
    (sample,) = source.samples([indices[telling]])
    batch = collate([cropped(sample, protocol.crop)]).to(options[0].pipeline.device)
    answers: dict[OptionSetting, ShownAnswer] = {}
    for number, members in _kept(options, scores):
        for setting, prediction in _predictions(options[number], task, members, batch, noise):
            at = OptionSetting(number, *setting)
            answers[at] = _answer(prediction, options[number], scores, at, telling)
    chosen = options[0].pipeline.task(task)
    metric = scores.metric if scores else chosen.metric
    what = scores.chosen() if scores else f"first image of {len(indices)}"
    about = protocol, what, metric
    largest = max(at.members for at in answers)
    several = [one for at, one in answers.items() if at.members == largest > 1]
    named = [replace(one, row=f"spread of {count(largest, 'member')}") for one in several]
    rows = list(dict.fromkeys(one.row for one in answers.values()))
    ordered = sorted(answers.values(), key=lambda one: rows.index(one.row))
    strip = paint(chosen, source, batch, ordered, *about, spreads=named)
    shown = _panel(scores, answers)
    judged = next((one for one in shown if one.best), shown[-1])
    spread = [one for one in (judged, *shown[::-1], *several[::-1]) if _has_spread(one)][:1]
    spread = [replace(one, row="") for one in spread]
    return Film(paint(chosen, source, batch, shown, *about, spreads=spread, judged=judged), strip)


def _panel(
    scores: SetScores | None, answers: Mapping[OptionSetting, ShownAnswer]
) -> list[ShownAnswer]:
    """The cheapest answer, and the best over the set; that with the most calls where they are the
    same, so that it can be seen what those do."""
    cheapest = scores.cheapest if scores else min(answers, key=lambda at: at.calls)
    best = scores.best() if scores else None
    second = best if best not in (None, cheapest) else max(answers, key=lambda at: at.calls)
    names = "one call" if cheapest.calls == 1 else "fewest calls", "best setting"
    if second != best:
        names = names[0], "most calls"
    shown = {
        at: replace(answers[at], name=name, row="")
        for at, name in zip((second, cheapest), names[::-1])
    }
    return [*shown.values()][::-1]


def _has_spread(answer: ShownAnswer) -> bool:
    return answer.prediction.uncertainty is not None


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


def _answer(
    prediction: Prediction,
    option: SamplingOption,
    scores: SetScores | None,
    at: OptionSetting,
    telling: int,
) -> ShownAnswer:
    setting = at.nfe, at.members
    answer = ShownAnswer(
        "answer", setting_text(setting, option.pipeline.diffusion.settings), prediction
    )
    answer.row = f"{option.label}, {count(at.members, 'member')}"
    if scores is not None:
        answer.score, answer.over_set = float(scores.images[at][telling]), scores.values[at]
        answer.best = at == scores.best()
    return answer
