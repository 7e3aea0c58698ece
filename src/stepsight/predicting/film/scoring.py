"""How much depth flickers on films of procedural worlds: answered frame by frame, and as a film.

Both sides see the same frames and are scored alike (`metrics.temporal`); their times are taken in
turns, film by film.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stepsight.data.scenes.film import SceneFilm
from stepsight.errors import UserError
from stepsight.metrics import protocol as protocols
from stepsight.metrics.depth import depth_rows
from stepsight.metrics.protocol import Protocol
from stepsight.metrics.temporal import temporal_rows
from stepsight.pipeline.dense import DensePipeline
from stepsight.predicting.film.config import FilmSettings
from stepsight.predicting.film.following import predict_film
from stepsight.scaling.intervals import Interval, ratio_interval
from stepsight.types import Sample

SIDES = ("frame by frame", "film")
TRUTH = "truth"  # what it changes by itself
EACH = "abs_rel_each"  # AbsRel with a fit of its own for each frame, by the task's first protocol


@dataclass(frozen=True)
class FilmScores:
    """Means of each film, by side and metric, "f"; seconds of a frame likewise. values: answers to
    the last film by side, "t 1 h w"."""

    protocol: Protocol
    means: dict[str, dict[str, list[float]]]
    values: dict[str, Tensor]

    def mean(self, side: str, metric: str) -> float:
        return float(np.mean(self.means[side][metric]))

    def ratio(self, metric: str) -> Interval:
        """Of the film to frame by frame, with its 95 % interval over films."""
        film, frames = (self.means[side][metric] for side in reversed(SIDES))
        return ratio_interval(film, frames)


def score_films(
    pipeline: DensePipeline,
    films: Sequence[SceneFilm],
    protocol: Protocol,
    settings: FilmSettings,
    **how: Any,
) -> FilmScores:
    """Answer and score films; how: see `predict_film`. Raises UserError for a protocol that scores
    no films, or films of a single frame."""
    if protocol.needs != "film":
        names = [row.name for row in protocols.PROTOCOLS.values() if row.needs == "film"]
        raise UserError(f"{protocol.name} scores no films. Choose from: {', '.join(names)}.")
    means = {side: dict[str, list[float]]() for side in (*SIDES, TRUTH)}
    values = dict[str, Tensor]()
    for film in films:
        samples = list(film)
        if len(samples) < 2:
            raise UserError("a film of one frame does not flicker: give --frames 2 or more.")
        for side, answers, seconds in _answered(pipeline, samples, settings, how):
            values[side] = answers
            rows = _scored(answers, samples, protocol) | {"seconds": seconds}
            for name, value in rows.items():
                means[side].setdefault(name, []).append(value)
    return FilmScores(protocol, means, values)


def _answered(
    pipeline: DensePipeline, samples: Sequence[Sample], settings: FilmSettings, how: dict[str, Any]
) -> Iterator[tuple[str, Tensor, float]]:
    """Answers "t 1 h w" of each side, and the seconds of a frame."""
    frames = [sample.image for sample in samples]
    ways = {
        SIDES[0]: lambda: [pipeline(frame, "depth", **how) for frame in frames],
        SIDES[1]: lambda: list(predict_film(pipeline, "depth", frames, settings, **how)),
    }
    for side, way in ways.items():
        began = time.perf_counter()
        answers = torch.cat([one.values.cpu() for one in way()])
        yield side, answers, (time.perf_counter() - began) / len(frames)
    yield TRUTH, torch.stack([depth for depth, _ in map(_depth, samples)]), 0.0


def _scored(answers: Tensor, samples: Sequence[Sample], protocol: Protocol) -> dict[str, float]:
    truth, valid = (torch.stack([*each]) for each in zip(*map(_depth, samples)))
    flow, hidden = (torch.stack([*each]) for each in zip(*map(_motion, samples[:-1])))
    rows = temporal_rows(answers, truth, valid, flow, ~hidden, protocol)
    each = depth_rows(answers, truth, valid, protocols.default_for("depth"))
    named = {name: rows[name] for name in protocol.metrics} | {EACH: each["abs_rel"]}
    return {name: float(row.nanmean()) for name, row in named.items()}


def _depth(sample: Sample) -> tuple[Tensor, Tensor]:
    assert sample.depth is not None and sample.depth_valid is not None
    return sample.depth, sample.depth_valid


def _motion(sample: Sample) -> tuple[Tensor, Tensor]:
    """Flow and where the next frame hides the point."""
    assert sample.flow is not None and sample.occluded is not None
    assert sample.flow_valid is not None
    return sample.flow, sample.occluded | ~sample.flow_valid
