"""Who is scored: a model that predicts, or (`imported`) files that another program wrote.

The scoring loop knows neither. It asks a predictor for answers on a batch that was cropped to what
the protocol looks at, for trivial answers to compare with, and for the score of an answer.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from stepsight.data.collate import collate
from stepsight.data.resize import Size, resize_sample
from stepsight.diffusion.config import DiffusionSettings
from stepsight.errors import UserError
from stepsight.evaluation.memory import peak_gb, reset_peak
from stepsight.evaluation.views import View
from stepsight.metrics.alignment.align import Space
from stepsight.metrics.masked import Rows
from stepsight.metrics.protocol import Protocol as Rule
from stepsight.pipeline.dense import DensePipeline
from stepsight.tasks.base import Task
from stepsight.types import Batch, Prediction, Sample

Setting = tuple[int, int]  # NFE, members


@dataclass(frozen=True)
class Answer:
    """A prediction on the grid of the batch, and what it took.

    Its uncertainty is the one that is stated to users; `members` are as they were drawn, and
    `scale` is what their spread has to be multiplied by to be calibrated.
    """

    setting: Setting
    prediction: Prediction
    working: Size  # the grid it was made on
    seconds: float = 0.0  # an image
    members: Tensor | None = None  # "e b c h w", physical, on the grid of the batch
    merge: str = ""  # the rule that merged them, where several were asked for
    peak_gb: float = 0.0  # of memory, while the members were drawn
    scale: float = 1.0
    chances: Tensor | None = None  # "b k h' w'", probabilities of the k classes, or of the object
    # (k = 1), on the grid it was worked on: what an answer states without any ensemble


class Predictor(Protocol):
    """What can be scored."""

    @property
    def name(self) -> str:
        """Of the task."""
        ...

    @property
    def task(self) -> Task:
        """Lends pictures and trivial predictors."""
        ...

    @property
    def device(self) -> torch.device: ...

    @property
    def rows(self) -> int:
        """Images at a time."""
        ...

    @property
    def sampler(self) -> str: ...

    @property
    def temperature(self) -> float | None:
        """Of the start noise; None where that is not known."""
        ...

    @property
    def views(self) -> str | None:
        """What further calls saw; None for files."""
        ...

    @property
    def calibration(self) -> Mapping[str, Any]:
        """The record of the "scale" that the spread of its members is multiplied by
        (`evaluation.calibration`); {} where none was fitted."""
        ...

    @property
    def given(self) -> Space:
        """What predicted depths are."""
        ...

    @property
    def digest(self) -> str:
        """Of the weights, or the name of the folder of files."""
        ...

    @property
    def subject(self) -> Mapping[str, Any]:
        """What its answers depend on besides the image, for the journal."""
        ...

    @property
    def options(self) -> Mapping[str, Any]:
        """What has to be told with its results because it is not as usual."""
        ...

    def answers(self, batch: Batch, view: View, sizes: Sequence[Size]) -> Iterator[Answer]:
        """Answers at every setting. `sizes`: the images' own, before `view` cropped them."""
        ...

    def score(self, prediction: Prediction, batch: Batch, rule: Rule) -> Rows:
        """One row of numbers an image."""
        ...

    def trivial(self, batch: Batch) -> dict[str, Prediction]:
        """Trivial predictors by name."""
        ...

    def best(self, samples: list[Sample], batch: Batch, working: Size) -> Prediction | None:
        """The truth of `samples`, which are `batch`, through the working size and back: the best
        within reach. None where the batch lacks the task's own truth."""
        ...

    def shown(self, batch: Batch, view: View, sizes: Sequence[Size]) -> dict[str, Prediction]:
        """Predictions for a picture, by heading; the last one is the one that was scored."""
        ...

    def remark(self, rule: Rule) -> str | None:
        """What has to be said beside its scores under a protocol."""
        ...


@dataclass(frozen=True)
class Model:
    """A pipeline at every pair of `nfe` and `members`.

    Members are nested: the largest ensemble is sampled once a NFE and its prefixes are merged, by
    each of `merges` (by none: by the task's own rule).
    keep: the members themselves are part of an answer, for the scores of uncertainty.
    size: the longer side at work, whatever the protocol says; None leaves it to the protocol.
    """

    pipeline: DensePipeline
    name: str
    nfe: Sequence[int]
    members: Sequence[int]
    sampler: str
    seed: int = 0
    rows: int = 64  # images at a time, and rows (images x members) a forward pass
    keep: bool = False
    given: Space = "depth"
    merges: Sequence[str] = ()
    size: int | None = None

    @property
    def task(self) -> Task:
        return self.pipeline.task(self.name)

    @property
    def options(self) -> Mapping[str, Any]:
        config, own = self.pipeline.config, self.pipeline.usual(self.name)
        usual = _way(config.diffusion, config.tasks[self.name])
        usual |= {"temperature": own.temperature, "views": own.views}
        return {name: value for name, value in self._way().items() if value != usual.get(name)}

    @property
    def device(self) -> torch.device:
        return self.pipeline.device

    @property
    def digest(self) -> str:
        return self.pipeline.name

    @property
    def temperature(self) -> float | None:
        return self.pipeline.diffusion.settings.temperature

    @property
    def views(self) -> str | None:
        return self.pipeline.diffusion.settings.views

    @property
    def calibration(self) -> Mapping[str, Any]:
        return self.pipeline.fitted.get(self.name, {})

    @property
    def subject(self) -> Mapping[str, Any]:
        settings = {"nfe": list(self.nfe), "members": list(self.members), "seed": self.seed}
        own = {"checkpoint": self.digest, "sampler": self.sampler, "kept": self.keep}
        own["calibration"] = dict(self.calibration)
        return own | self._way() | {"merges": list(self.merges)} | settings

    def answers(self, batch: Batch, view: View, sizes: Sequence[Size]) -> Iterator[Answer]:
        pipeline, grid = self._working(batch, view), grid_of(batch)
        for calls in self.nfe:
            reset_peak(self.device)
            began = _clock(self.device)
            drawn = self._draw(pipeline, batch, calls, max(self.members))
            took = _clock(self.device) - began
            peak = peak_gb(self.device)
            members = self._members(drawn, grid)
            for rule, task in self._merging().items():
                for count in self.members:
                    began = _clock(self.device)
                    merged = pipeline.finish(task.merge(drawn[:count]), batch)
                    spent = took * count / max(self.members) + _clock(self.device) - began
                    yield Answer(
                        setting=(calls, count),
                        prediction=merged,
                        working=(int(drawn.shape[-2]), int(drawn.shape[-1])),
                        seconds=spent / len(batch),
                        members=members[:count] if members is not None and count > 1 else None,
                        merge=rule,
                        peak_gb=peak,
                        scale=self.calibration.get("scale") or 1.0,
                        chances=self._chances(drawn[:count]),
                    )

    def score(self, prediction: Prediction, batch: Batch, rule: Rule) -> Rows:
        return self.task.score(prediction, batch, rule.name)

    def trivial(self, batch: Batch) -> dict[str, Prediction]:
        return self.task.baselines(batch, self.pipeline.statistics.get(self.name))

    def best(self, samples: list[Sample], batch: Batch, working: Size) -> Prediction | None:
        if getattr(batch, self.task.needs) is None:
            return None
        small = collate([resize_sample(sample, working) for sample in samples])
        truth = self.task.decode(self.task.encode(small.to(self.device)).x)
        return self.pipeline.finish(truth, batch)

    def shown(self, batch: Batch, view: View, sizes: Sequence[Size]) -> dict[str, Prediction]:
        pipeline = self._working(batch, view)
        found = {}
        for calls, count in ((self._fewest(), 1), (self.nfe[-1], self.members[-1])):
            merged = self.task.merge(self._draw(pipeline, batch, calls, count))
            found[f"{calls} x {count}"] = pipeline.finish(merged, batch)
        return found

    def remark(self, rule: Rule) -> str | None:
        return None

    def _fewest(self) -> int:
        """The fewest calls that its sampler can spend, of those worth trying."""
        diffusion = self.pipeline.sampling(sampler=self.sampler).diffusion
        for calls in (1, 2):
            try:
                diffusion.check_calls(calls)
                return calls
            except UserError:
                continue
        return self.nfe[0]

    def _way(self) -> dict[str, Any]:
        """How it samples and merges, besides the sampler."""
        return _way(self.pipeline.diffusion.settings, self.task) | {"size": self.size}

    def _working(self, batch: Batch, view: View) -> DensePipeline:
        longest = view.working if self.size is None else self.size
        return working_at(self.pipeline, self.name, longest, grid_of(batch))

    def _merging(self) -> dict[str, Task]:
        """The task once for each rule that members are merged by; "" is its own."""
        name, pipeline = self.name, self.pipeline
        tasks = {rule: pipeline.sampling(merge={name: rule}).task(name) for rule in self.merges}
        return tasks or {"": self.task}

    def _draw(self, pipeline: DensePipeline, batch: Batch, calls: int, count: int) -> Tensor:
        return pipeline.sample(
            batch,
            self.name,
            nfe=calls,
            members=count,
            sampler=self.sampler,
            seed=self.seed,
            rows=self.rows,
        )

    def _chances(self, drawn: Tensor) -> Tensor | None:
        """The mean of the probabilities that the members "e b c h w" state, if the task's do."""
        of, pipeline = getattr(self.task, "chances", None), self.pipeline
        known = pipeline.statistics.get(self.name) if pipeline.config.own_errors else None
        found = [of(member, known) for member in drawn] if self.keep and of else []
        return torch.stack(found).mean(dim=0) if found and found[0] is not None else None

    def _members(self, drawn: Tensor, grid: Size) -> Tensor | None:
        if not self.keep or len(drawn) < 2:
            return None
        decoded = [self.task.decode(member).values for member in drawn]
        return torch.stack([self.task.rescale(values, grid) for values in decoded])


def _way(diffusion: DiffusionSettings, task: object) -> dict[str, Any]:
    found = {"spacing": diffusion.spacing, "schedule": diffusion.sampling_schedule}
    found |= {"eta": diffusion.eta, "times": list(diffusion.sampling_times)}
    found |= {name: getattr(diffusion, name) for name in ("temperature", "views", "starts")}
    return found | {"merge": getattr(task, "merge_by", None)}


def working_at(
    pipeline: DensePipeline, task: str, longest: int | None, grid: Size
) -> DensePipeline:
    """The pipeline at another working size: `longest` is that of the longer side, 0 the grid's own,
    None what the task was trained at. Sides are rounded to multiples of the stride."""
    if longest is None:
        return pipeline
    scale = longest / max(grid) if longest else 1.0
    other = copy.copy(pipeline)
    other.sizes = pipeline.sizes | {task: (round(grid[0] * scale), round(grid[1] * scale))}
    return other


def grid_of(batch: Batch) -> Size:
    """Height and width of its images."""
    return int(batch.image.shape[-2]), int(batch.image.shape[-1])


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
