"""A film answered frame after frame, so that answers follow one another as the frames do.

Frames share their start noise: a draw of its own for each would flicker. Answers are held together
by `steady`, along the flow that the model itself predicts, if it has that task (`plan`). A frame
equal to the one before it gets the same answer, without any call.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stepsight.pipeline.adaptive import picked
from stepsight.pipeline.dense import DensePipeline
from stepsight.pipeline.working import grid_of
from stepsight.predicting.film.config import FilmSettings
from stepsight.predicting.film.plan import FilmPlan, plan_film
from stepsight.predicting.film.steady import ShownFrame, steadied
from stepsight.tasks.base import Task, resize
from stepsight.types import Batch, Prediction

STRENGTH = 0.9  # time at which a frame begins that sets out from the answer before it
USUAL = FilmSettings()
NOISE = 0  # key of the noise that all frames share
PIXELS = 1 << 22  # of the frames of a window together, at their own size
PATIENCE = 8  # windows of frames that may gather before they are answered, equal ones among them


class FrameInput(NamedTuple):
    """What a task reads: a frame, uint8 "3 h w", and of tasks that read two the next one."""

    frame: Tensor
    second: Tensor | None

    def same(self, other: FrameInput | None) -> bool:
        """Whether both are equal, pixel by pixel."""
        if other is None or not torch.equal(self.frame, other.frame):
            return False
        return self.second is None or torch.equal(self.second, other.second)  # type: ignore[arg-type]


def predict_film(
    pipeline: DensePipeline,
    task: str,
    frames: Iterable[Tensor],
    settings: FilmSettings = USUAL,
    **how: Any,
) -> Iterator[Prediction]:
    """Answers to frames, uint8 "3 h w" of one size, on their own grid ("1 c h w"), in their order;
    a window of frames is in memory at a time. Of tasks that read two frames each is answered with
    the next, the last not at all.

    how: options of a call of the pipeline (`plan.OPTIONS`). Pictures are painted over the range of
    the first answer. Raises UserError as `plan_film` does.
    """
    follower = _Follower(plan_film(pipeline, task, settings, how))
    answer: Prediction | None = None
    for window in _windows(_seen(frames, follower.plan.task), follower.plan.window):
        fresh = iter(follower.answers([seen for seen, again in window if not again]))
        for _, again in window:
            answer = answer if again else next(fresh)
            assert answer is not None  # the first frame has none before it
            yield replace(answer)


def _seen(frames: Iterable[Tensor], task: Task) -> Iterator[FrameInput]:
    if "second" in task.required_inputs:
        return (FrameInput(*pair) for pair in pairwise(frames))
    return (FrameInput(frame, None) for frame in frames)


def _windows(film: Iterable[FrameInput], size: int) -> Iterator[list[tuple[FrameInput, bool]]]:
    """At most `size` frames that differ from the one before each, fewer of large ones, with those
    that do not differ."""
    window, fresh, before = list[tuple[FrameInput, bool]](), 0, None
    for seen in film:
        size = max(1, min(size, PIXELS // seen.frame[0].numel()))
        again = seen.same(before)
        if len(window) >= PATIENCE * size or (fresh == size and not again):
            yield window
            window, fresh = [], 0
        window.append((seen, again))
        fresh, before = fresh + (not again), seen
    if window:
        yield window


class _Follower:
    """Answers windows of frames that follow one another."""

    def __init__(self, plan: FilmPlan) -> None:
        self.plan = plan
        self._frame: Tensor | None = None  # the last one, and what was shown of it
        self._shown: ShownFrame | None = None
        self._limits: tuple[float, float] | None = None  # of the colours

    @torch.inference_mode()
    def answers(self, film: Sequence[FrameInput]) -> list[Prediction]:
        """One for each."""
        if not film:
            return []
        plan, batch = self.plan, self._batch(film)
        flows = self._flows(film)
        merged = plan.pipeline.task(plan.task.name).merge(self._sample(batch, flows[0]))
        pictures = resize(batch.image, (int(merged.x.shape[-2]), int(merged.x.shape[-1])))
        shown = []
        for row, flow in enumerate(flows):
            now = ShownFrame(pictures[row : row + 1], merged.x[row : row + 1])
            if self._shown and plan.carries:
                now = steadied(now, self._shown, flow, plan.settings, plan.aligns)
            self._shown = now
            shown.append(now.x)
        self._frame = film[-1].frame
        prediction = plan.task.decode(torch.cat(shown))
        prediction.uncertainty = merged.uncertainty
        return self._painted(plan.finish(prediction, batch), batch)

    def _sample(self, batch: Batch, flow: Tensor | None) -> Tensor:
        """Members "e b c h w" of the task; from the answer before, where that is wanted."""
        plan = self.plan
        how: dict[str, Any] = {"nfe": plan.calls, "members": plan.members}
        if plan.settings.starts == "previous":
            if self._shown is None:
                how["nfe"] = plan.first
            else:
                how |= {"start": self._shown.moved(flow).x, "strength": STRENGTH}
        return plan.pipeline.sample(batch, plan.task.name, seed=plan.seed, alike=NOISE, **how)

    def _flows(self, film: Sequence[FrameInput]) -> list[Tensor | None]:
        """For each frame the flow to the one before it, "1 2 h w" on the grid of the answers; None
        for the first of all, and where no one tells it."""
        plan = self.plan
        known = [] if self._frame is None else [self._frame]
        frames = known + [seen.frame for seen in film]
        pairs = [FrameInput(now, before) for before, now in pairwise(frames)]
        if plan.motion is None or not pairs:
            return [None] * len(film)
        how: dict[str, Any] = {"nfe": plan.motion_calls, "members": 1, "seed": plan.seed}
        batch = self._batch(pairs)
        drawn = plan.pipeline.sample(batch, plan.motion.name, alike=NOISE, **how)
        grid = plan.pipeline.working_size(plan.task.name, grid_of(batch))
        flow = plan.motion.rescale(plan.motion.merge(drawn).values, grid)
        return [None] * (len(film) - len(pairs)) + [*flow.split(1)]

    def _painted(self, answers: Prediction, batch: Batch) -> list[Prediction]:
        """The rows of a prediction, with their pictures."""
        task, values = self.plan.task, answers.values
        self._limits = self._limits or task.limits(values[:1])
        if self._limits:
            answers.picture = task.coloured(values, self._limits)
        else:
            answers.picture = task.picture(values, batch)
        return [picked(answers, [row]) for row in range(len(batch))]

    def _batch(self, film: Sequence[FrameInput]) -> Batch:
        """Frames in [-1, 1]."""
        device = self.plan.pipeline.device

        def stacked(some: Sequence[Tensor]) -> Tensor:
            return torch.stack([*some]).to(device).float() / 127.5 - 1

        names = [f"frame {number}" for number in range(len(film))]
        batch = Batch(stacked([seen.frame for seen in film]), names, ["film"] * len(film))
        seconds = [seen.second for seen in film if seen.second is not None]
        batch.second = stacked(seconds) if seconds else None
        return batch
