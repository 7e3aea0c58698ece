"""What a frame of a film costs, and who answers it: in no more calls than a picture takes."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

from stepsight.diffusion.config import spendable
from stepsight.errors import UserError
from stepsight.pipeline.dense import DensePipeline
from stepsight.predicting.film.config import FilmSettings
from stepsight.tasks.base import Task
from stepsight.types import Batch, Prediction

OPTIONS = ("nfe", "members", "temperature", "views", "sampler", "size", "seed")


@dataclass(frozen=True)
class FilmPlan:
    """A pipeline, sampling as asked, and the calls that a frame takes.

    first: of a frame that has none before it, from noise. calls: of the others, beside those of
    `motion`, the model's own flow to the frame before (None: answers are carried from where they
    were).
    """

    pipeline: DensePipeline
    task: Task
    settings: FilmSettings
    members: int
    seed: int
    first: int
    calls: int
    motion: Task | None
    motion_calls: int

    @property
    def aligns(self) -> bool:
        """Whether answers are brought to those before them by scale and shift."""
        return self.settings.align and is_relative(self.task)

    def finish(self, prediction: Prediction, batch: Batch) -> Prediction:
        """A prediction at working size on the grid of the frames."""
        pipeline = copy(self.pipeline)
        pipeline.tasks = pipeline.tasks | {self.task.name: self.task}
        return pipeline.finish(prediction, batch)

    @property
    def carries(self) -> bool:
        """Whether an answer depends on the one before it. Motion itself does not last."""
        return not self.task.in_pixels

    @property
    def window(self) -> int:
        """Frames that pass the network together."""
        return 1 if self.settings.starts == "previous" else self.settings.window


def plan_film(
    pipeline: DensePipeline, name: str, settings: FilmSettings, how: Mapping[str, Any]
) -> FilmPlan:
    """How the task `name` is answered for a film; how: options of a call of the pipeline.

    Raises UserError for tasks that read more than frames, options that films do not have, and
    settings that cannot be.
    """
    task, asked = pipeline.task(name), {k: v for k, v in how.items() if v is not None}
    if further := sorted(asked.keys() - {*OPTIONS}):
        raise UserError(f"{', '.join(further)}: an option of pictures, not of films.")
    if set(task.required_inputs) - {"second"} or task.label_count > task.splits:
        raise UserError(f"{task.name} reads more than the frames of a film: answer pictures.")
    if not 0 <= settings.smoothing < 1:
        raise UserError(f"smoothing {settings.smoothing:g}: give a share from 0 to below 1.")
    if settings.window < 1:
        raise UserError(f"a window of {settings.window} frames: give 1 or more.")
    setting = pipeline.setting(name, *(asked.get(key) for key in OPTIONS[:4]))
    pipeline = pipeline.sampling(sampler=asked.get("sampler")).with_setting(setting)
    pipeline = pipeline.sampling(views=asked.get("views"))
    pipeline = pipeline.at(asked["size"]) if "size" in asked else pipeline
    members, seed = setting.members, asked.get("seed", 0)
    calls = _calls(pipeline, task, settings, setting.nfe)
    if is_relative(task):  # a frame's own range is not the film's
        task = replace(task, clip=False, stretch=False)  # pyright: ignore[reportCallIssue]
    return FilmPlan(pipeline, task, settings, members, seed, setting.nfe, *calls)


def is_relative(task: Task) -> bool:
    """Whether its values are known up to a scale and shift of each picture."""
    return getattr(task, "range", "") == "quantile"


def _calls(
    pipeline: DensePipeline, task: Task, settings: FilmSettings, nfe: int
) -> tuple[int, Task | None, int]:
    """Calls of the task, who tells the motion, and the calls of that."""
    walk = pipeline.diffusion.settings
    fixed = walk.objective == "end_to_end" or walk.spacing == "custom"  # number of calls
    previous = settings.starts == "previous"
    if previous and (fixed or task.in_pixels or pipeline.layout.places > 1):
        raise UserError(
            f"starts previous: {task.name} of this model sets out from no answer. Choose noise."
        )
    sampler, calls = walk.sampler, nfe
    if previous:
        calls = _most(sampler, nfe // 2) or nfe
    motion = next((one for one in pipeline.tasks.values() if one.target_field == "flow"), None)
    if motion is None or task.in_pixels or fixed or not (settings.smoothing or previous):
        return calls, None, 0
    fewest = next(calls for calls in range(1, 4) if spendable(sampler, calls))
    left = min(calls, _most(sampler, nfe - fewest * motion.splits))
    return (left, motion, fewest) if left else (calls, None, 0)


def _most(sampler: str, calls: int) -> int:
    """The most calls up to `calls` that a sampler can spend; 0 where it can spend none."""
    return next((count for count in range(calls, 0, -1) if spendable(sampler, count)), 0)
