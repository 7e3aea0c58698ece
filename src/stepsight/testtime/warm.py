"""Warm starts: the prediction of a frame of a video as the start of the next frame's.

The second frame of a pair is predicted in full. Its answer is noised to a time `strength` < 1, from
which the first frame is denoised in fewer calls; beside it the same number of calls from pure
noise. The answer is taken as it is and, where the model has flow, moved along with a flow that is
predicted in the fewest calls, which count. What the other frame took does not count: in a video its
prediction is there already.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

from stepsight.diffusion.config import spendable
from stepsight.metrics.photometric import warped
from stepsight.pipeline.dense import DensePipeline
from stepsight.tasks.base import Task
from stepsight.types import Batch, Prediction

STRENGTHS = (0.3, 0.5, 0.7)  # times at which a warm trajectory begins


class Warm(NamedTuple):
    """A merged prediction at working size, and what this frame took."""

    name: str
    rival: str  # the cold prediction in as many calls per member; "" where there is none
    nfe: int  # calls per member
    extra: int  # calls besides
    prediction: Prediction


def can_start_warm(pipeline: DensePipeline, task: Task, batch: Batch) -> bool:
    """Whether the second frame has all that the task asks for, an image alone, and that the
    model can be sampled in any number of steps, from a start of this task alone."""
    settings = pipeline.diffusion.settings
    any_steps = settings.objective != "end_to_end" and settings.spacing != "custom"
    image_alone = not task.required_inputs and task.label_count == task.splits
    alone = image_alone and pipeline.layout.places == 1
    return any_steps and alone and batch.second is not None


def warm_starts(
    pipeline: DensePipeline,
    batch: Batch,
    task: str,
    *,
    nfe: int,
    members: int,
    seed: int = 0,
    chunk_size: int = 64,
) -> Iterator[Warm]:
    """First the predictions of the second frames in `nfe` calls per member, `carried` over as they
    are, and moved; then for half of `nfe`, and for a single call, the images of `batch` from pure
    noise and from these starts at every strength."""
    assert batch.second is not None
    chosen = pipeline.task(task)
    before = replace(batch, image=batch.second, second=None)
    noise: dict[str, Any] = {"seed": seed, "chunk_size": chunk_size}

    def merged(frame: Batch, calls: int, **warm: Any) -> Prediction:
        return chosen.merge(
            pipeline.sample(frame, task, nfe=calls, members=members, **noise, **warm)
        )

    carried = merged(before, nfe)
    starts = {"": (0, carried)}
    flows = (other for other in pipeline.tasks.values() if other.target_field == "flow")
    if motion := next(flows, None):
        starts["_moved"] = _moved(pipeline, motion, batch, carried, noise)
    for how, (extra, start) in starts.items():
        yield Warm(f"carried{how}", "", 0, extra, start)
    for calls in _spendable(pipeline, [nfe // 2, 1]):
        cold = f"cold_{calls}"
        yield Warm(cold, "", calls, 0, merged(batch, calls))
        for (how, (extra, start)), strength in product(starts.items(), STRENGTHS):
            warm = merged(batch, calls, start=start.x, strength=strength)
            yield Warm(f"warm_{calls}{how}_from_{strength:g}", cold, calls, extra, warm)


def _moved(
    pipeline: DensePipeline, task: Task, batch: Batch, there: Prediction, noise: dict[str, Any]
) -> tuple[int, Prediction]:
    """The prediction of the second frame fetched along the flow to it, and the calls that took."""
    calls, *_ = _spendable(pipeline, [1, 2])
    drawn = pipeline.sample(batch, task.name, nfe=calls, members=1, **noise)
    grid = (int(there.x.shape[-2]), int(there.x.shape[-1]))
    x = warped(there.x, task.rescale(task.merge(drawn).values, grid))
    return calls * task.splits, pipeline.task(there.task).decode(x)


def _spendable(pipeline: DensePipeline, calls: Sequence[int]) -> list[int]:
    """Those of `calls` that the sampler can spend, once each."""
    sampler = pipeline.diffusion.settings.sampler
    return [count for count in dict.fromkeys(calls) if spendable(sampler, count)]
