"""Pictures of predictions: what an image, its truth and some answers look like, and who is shown.

Truth and answers share their colours and their range, and are void where there is no truth. A
panel (`report.panels`) of the median image stands first in a report; the best and the worst image
are of the same form. While training, a grid of samples is kept for every validation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from stepsight.colours import colour_image, colour_spread, only, spread_legend, spread_limit
from stepsight.data.bad import BadItems
from stepsight.data.collate import collate
from stepsight.data.table import Readable, Source
from stepsight.evaluation.predictors import Model, Predictor
from stepsight.evaluation.results import metrics_of
from stepsight.evaluation.spread import pixel_errors
from stepsight.evaluation.statistics import measured, per_image
from stepsight.evaluation.views import ProtocolView, cropped, size_of, view_of
from stepsight.legends import ClassColour, Legend
from stepsight.measures import main_metric, measure, number
from stepsight.metrics.masked import Rows
from stepsight.metrics.protocol import Protocol, default_for
from stepsight.pipeline.dense import DensePipeline
from stepsight.report.grids import NOTE, PAPER, Tile, compose
from stepsight.report.panels import Kind, PanelTile, PicturePanel, TileName, write_panel
from stepsight.tasks.base import Task
from stepsight.types import Batch, Prediction, Sample

AS_IT_IS = ProtocolView("none", None)
LARGEST = 400  # pixels of a tile's longer side
COLUMNS: dict[str, tuple[TileName, ...]] = {  # of sample grids, and which tiles stand there
    "image": ("image",),
    "prompt": ("second", "prompt"),
    "truth": ("truth",),
    "one call": ("one call", "fewest calls"),
    "answer": ("answer", "best setting", "most calls", "one call"),
    "error": ("error",),
    "spread": ("spread",),
}
KEYS = {"truth": "scale", "error": "error_scale", "spread": "spread_scale"}  # below which columns


@dataclass
class ShownAnswer:
    """A prediction to be shown, and what is known of its setting (see `PanelTile`)."""

    name: TileName
    setting: str
    prediction: Prediction
    score: float | None = None
    over_set: float | None = None
    best: bool = False
    row: str = ""


class PaintedPanel(NamedTuple):
    """A panel and the pictures of its tiles."""

    panel: PicturePanel
    pictures: list[Tile]

    def write(self, folder: Path, kind: Kind = "panels", which: str = "") -> None:
        write_panel(folder, self.panel, self.pictures, kind, which)

    def tile(self, *names: TileName) -> Tile | None:
        """The picture of the first of these tiles that there is."""
        found = dict(zip((tile.name for tile in self.panel.tiles), self.pictures))
        return next((found[name] for name in names if name in found), None)


def paint(
    task: Task,
    source: Source,
    batch: Batch,
    answers: Sequence[ShownAnswer],
    protocol: Protocol,
    chosen: str,
    metric: str,
    spreads: Sequence[ShownAnswer] = (),
    judged: ShownAnswer | None = None,
) -> PaintedPanel:
    """The panel of a batch of one image: what is given, the answers, of some of them the spread, on
    one scale, and of one the error."""
    key, truth = batch.keys[0], truth_of(task, batch)
    tiles: list[tuple[PanelTile, Tensor]] = []

    def add(name: TileName, picture: Tensor, alt: str, **said: Any) -> None:
        tiles.append((PanelTile(name, alt, **said), picture))

    add("image", colour_image(batch.image), f"image {key}")
    for field in task.required_inputs[:1]:
        name: TileName = "second" if field == "second" else "prompt"
        alt = "the second image" if name == "second" else "what is asked about, in white"
        add(name, prompt_picture(getattr(batch, field)), alt)
    if truth is not None:
        add("truth", task.picture(truth, batch, like=truth), f"the true {task.name}")
    for one in answers:
        said = {k: v for k, v in vars(one).items() if k not in ("name", "prediction")}
        picture = task.picture(one.prediction.values, batch, like=truth)
        add(one.name, picture, f"{task.name}, predicted{_by(one)}", **said)
    values = torch.cat([one.prediction.values for one in answers])
    legend = task.legend(values, truth)
    scales: dict[str, Legend | None] = {"scale": legend and legend.called(source.classes)}
    if maps := [one.prediction.uncertainty for one in spreads]:
        known = [x.float() for x in maps if x is not None]
        scored = _scored(spreads[0], truth, batch, protocol)
        high = float(spread_limit(torch.cat(known, dim=-1), torch.cat([scored] * len(known), -1)))
        for one, spread in zip(spreads, known, strict=True):
            alt = f"where members differ{_by(one)}"
            picture = only(colour_spread(spread, high), scored)
            add("spread", picture, alt, setting=one.setting, row=one.row)
        unit = "px" if task.in_pixels else ""
        scales["spread_scale"] = spread_legend(known[0], max(high, 1e-6), unit)
    errors = judged and truth is not None and pixel_errors(judged.prediction, batch, protocol)
    if judged and errors:
        picture, scales["error_scale"] = _error_picture(task, *errors)
        add("error", picture, f"where the prediction errs{_by(judged)}", setting=judged.setting)
    title = getattr(source, "title", source.name)
    about = task.name, title, protocol.name, key, chosen, metric
    panel = PicturePanel(*about, tuple(tile for tile, _ in tiles), **scales)
    return PaintedPanel(panel, [tile_of(picture) for _, picture in tiles])


@torch.inference_mode()
def predicted(
    predictor: Predictor,
    source: Source,
    sample: Sample,
    view: ProtocolView,
    protocol: Protocol,
    chosen: str,
    over_set: float | None = None,
) -> PaintedPanel:
    """The panel of what a predictor shows of an image: the fewest calls, and its answer, whose
    score over the set is known or not; more calls where the fewest are the answer."""
    task, batch = predictor.task, collate([cropped(sample, view.crop)]).to(predictor.device)
    judgeable = truth_of(task, batch) is not None
    answers, metric = list[ShownAnswer](), task.metric
    estimates = predictor.shown(batch, view, [size_of(sample)])
    spent = math.prod(estimates[-1].setting)
    for estimate in estimates:
        (calls, members), prediction = estimate.setting, estimate.prediction
        name: TileName = "one call" if calls * members == 1 else "fewest calls"
        name = "more calls" if calls * members > spent else name
        answer = ShownAnswer(name, predictor.said(estimate.setting), prediction)
        if judgeable:
            rows = predictor.score(prediction, batch, protocol)
            metric = main_metric(task.name, measured(rows), protocol.metrics) or metric
            answer.score = float(per_image(rows, metric)[0])
        values = task.from_given(prediction.values, predictor.given)
        answer.prediction = replace(prediction, values=values)
        answers.append(answer)
    last = answers[-1]
    last.over_set = over_set
    if last.name != "one call" or answers[0].name == "fewest calls":
        last.name = "answer"
    answers.sort(key=lambda answer: answer.name == "more calls")
    spreads = [last] if last.prediction.uncertainty is not None else []
    return paint(task, source, batch, answers, protocol, chosen, metric, spreads, judged=last)


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
    spread. The first image of every task is also a panel beside the picture.

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
        # spread evenly over the source, the same for every run
        places = np.linspace(0, len(source) - 1, min(images, len(source))).astype(int)
        readable = Readable(source, bad or BadItems(), len(source))
        for turn, sample in enumerate(readable.samples(places.tolist())):
            drawn = predicted(
                model, source, sample, AS_IT_IS, default_for(task), "an image held out"
            )
            rows.append(drawn)
            if turn == 0:
                drawn.write(path.parent)
    return grid(rows, path)


def draw_extremes(
    folder: Path,
    predictor: Predictor,
    source: Source,
    rows: Rows,
    protocol: Protocol,
    indices: Sequence[int],
) -> None:
    """Write panels of the median image by the protocol's main metric, and of the best and the
    worst; none where nothing was measured.

    rows: of the setting that is shown, one per image of `indices`.
    """
    metric = main_metric(protocol.task, measured(rows), protocol.metrics)
    order = ranked(per_image(rows, metric), metric) if metric else []
    if metric is None or not len(order):
        return
    over_set = metrics_of(rows, protocol.name).get(metric)
    places = {"median": order[len(order) // 2], "best": order[0], "worst": order[-1]}
    for which, place in places.items():
        (sample,) = source.samples([indices[int(place)]])
        chosen = f"{which} image by {measure(metric).label} of {len(order)}"
        view = view_of(protocol)
        drawn = predicted(predictor, source, sample, view, protocol, chosen, over_set)
        if which == "median":
            drawn.write(folder)
        else:
            drawn.write(folder, "extremes", which)


def ranked(values: np.ndarray, metric: str) -> np.ndarray:
    """The images "n" whose values are known, the best first."""
    known = np.flatnonzero(np.isfinite(values))
    sign = -1 if measure(metric).higher_is_better else 1
    return known[np.argsort(sign * values[known], kind="stable")]


def grid(rows: Sequence[PaintedPanel], path: Path) -> Path:
    """Write a grid of panels; what none of them has is left out, a tile that one lacks is empty."""
    wanted = [[row.tile(*COLUMNS[name]) for name in COLUMNS] for row in rows]
    there = [i for i, column in enumerate(zip(*wanted)) if any(tile is not None for tile in column)]
    names = [[*COLUMNS][i] for i in there]
    tiles, keys = [], []
    for row, found in zip(rows, wanted):
        blank = np.full(row.pictures[0].shape, PAPER, np.uint8)
        tiles.append([blank if (tile := found[i]) is None else tile for i in there])
        scales = [None if found[i] is None else KEYS.get(name) for i, name in zip(there, names)]
        keys.append([scale and getattr(row.panel, scale) for scale in scales])
    scale = max(1, round(128 / max(tile.shape[0] for row in tiles for tile in row)))
    return compose(
        tiles, names, [_label(row.panel) for row in rows], path, scale=scale, keys=keys, note=NOTE
    )


def _label(panel: PicturePanel) -> list[str]:
    """The task, and of the answer its setting and its score of this image."""
    answer = [tile for tile in panel.tiles if tile.name not in ("spread", "error")][-1]
    score = "" if answer.score is None else number(answer.score)
    return [panel.task, answer.setting, f"{measure(panel.metric).label} {score}" if score else ""]


def _scored(answer: ShownAnswer, truth: Tensor | None, batch: Batch, protocol: Protocol) -> Tensor:
    """The pixels bool "b 1 h w" whose answers are judged; all where none are."""
    errors = None if truth is None else pixel_errors(answer.prediction, batch, protocol)
    every = torch.ones_like(batch.image[:, :1], dtype=torch.bool)
    return every if errors is None or not errors[1].any() else errors[1]


def _error_picture(task: Task, error: Tensor, valid: Tensor) -> tuple[Tensor, Legend]:
    """Errors "b 1 h w" in colours; those that are right or wrong need no range."""
    scored = error[valid] if valid.any() else error
    wrong = bool(((scored == 0) | (scored == 1)).all())
    high = 1.0 if wrong else float(spread_limit(error, valid)[0])
    legend = spread_legend(error, max(high, 1e-6), measure(task.metric).unit)
    if wrong:
        classes = map(ClassColour, ("right", "wrong"), (legend.stops[0], legend.stops[-1]))
        legend = replace(legend, kind="classes", stops=(), unit="", classes=tuple(classes))
    return colour_spread(error, high, valid), legend


def _by(answer: ShownAnswer) -> str:
    return f" at {answer.setting}" if answer.setting else ""


def truth_of(task: Task, batch: Batch) -> Tensor | None:
    """The truth in the form of predicted values, None where the batch lacks it."""
    return None if getattr(batch, task.target_field) is None else task.truth(batch)


def prompt_picture(prompt: Tensor) -> Tensor:
    """An image or frame as it is, a mask in white on black, uint8 "b 3 h w"."""
    if prompt.dtype == torch.bool:
        return (prompt.to(torch.uint8) * 255).expand(-1, 3, -1, -1)
    return colour_image(prompt)


def tile_of(picture: Tensor) -> Tile:
    """The first of pictures uint8 "b 3 h w"; of a large one every n-th pixel."""
    stride = math.ceil(max(picture.shape[-2:]) / LARGEST)
    return rearrange(picture[0, :, ::stride, ::stride].cpu(), "c h w -> h w c").numpy()
