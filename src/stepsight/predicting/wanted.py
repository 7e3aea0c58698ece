"""What is asked for: of a collection of pictures and films, all that its answers depend on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from stepsight.evaluation.predictors import sampling_options
from stepsight.pipeline.dense import DensePipeline
from stepsight.predicting.film.config import FilmSettings
from stepsight.predicting.item import Item

Limits = tuple[float, float]


@dataclass(frozen=True)
class Wanted:
    """What is asked for. how: options of `DensePipeline.__call__`. save: formats separated by
    commas. limits: of the colours; None: each picture's own, but one range a film; "common": one
    range of all. camera: `fov` or `given` of `points.intrinsics`. inside: what is inside in masks,
    as `read_mask` takes it."""

    task: str
    items: Sequence[Item]
    out: Path
    how: Mapping[str, Any] = field(default_factory=dict)
    save: str | None = None
    batch: int = 8
    tile: int | None = None
    limits: Limits | Literal["common"] | None = None
    camera: Mapping[str, Any] = field(default_factory=dict)
    inside: str = ""
    film: FilmSettings = field(default_factory=FilmSettings)

    def drawn(self, item: Item) -> str:
        """What the files of an item depend on besides `asked_of`."""
        camera = {name: value for name, value in self.camera.items() if value is not None}
        return json.dumps([self.limits, camera, asdict(self.film) if item.film else {}])


def asked_of(pipeline: DensePipeline, wanted: Wanted) -> dict[str, Any]:
    """What the answers depend on besides the pictures: as the manifest says it, with what
    `evaluation.predictions` looks for."""
    task, how = pipeline.task(wanted.task), dict(wanted.how)
    usual = ("nfe", "members", "temperature", "views")
    planned = pipeline.setting(task.name, *(how.pop(name, None) for name in usual))
    used = pipeline.with_setting(planned)
    facts = {"task": task.name, "crop": "none", "working": how.pop("size", None)}
    facts |= {"checkpoint": pipeline.name, "weights": pipeline.weights}
    facts |= {"profile": pipeline.profile.id, "precision": pipeline.precision}
    facts |= {"sampler": pipeline.diffusion.settings.sampler}
    facts |= sampling_options(used.diffusion.settings, task)
    facts |= {"nfe": planned.nfe, "members": planned.members, "tile": wanted.tile}
    facts["as_film"] = any(item.frames for item in wanted.items) or None
    facts["mask_inside"] = wanted.inside or None
    facts["calibration"] = dict(pipeline.fitted.get(task.name) or {})
    if getattr(task, "measured", None):
        facts["metric"] = dict(pipeline.metric[task.name])
    return facts | {name: value for name, value in how.items() if value is not None}
