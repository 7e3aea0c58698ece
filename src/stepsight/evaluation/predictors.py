"""Who is scored: a model that predicts, or (`imported`) files that another program wrote.

The scoring loop knows neither. It asks a predictor for estimates on a batch that was cropped to
what the protocol looks at, for trivial predictions to compare with, and for a prediction's score.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stepsight.data.collate import collate
from stepsight.data.resize import Size, resize_sample
from stepsight.diffusion.config import DiffusionSettings
from stepsight.errors import UserError
from stepsight.evaluation.views import ProtocolView, fits, setting_text, working_at
from stepsight.metrics.alignment.align import Space
from stepsight.metrics.masked import Rows
from stepsight.metrics.protocol import Protocol
from stepsight.pipeline.config import STEPSIGHT, Profile
from stepsight.pipeline.dense import DensePipeline
from stepsight.pipeline.shared import Shared, Took, clock
from stepsight.pipeline.working import grid_of
from stepsight.scaling.sampling.paired import Setting
from stepsight.tasks.base import Task
from stepsight.types import Batch, Prediction, Sample


@dataclass(frozen=True)
class Estimate:
    """A prediction on the grid of the batch, and what it took.

    Its uncertainty is what users are given; `members` are as they were drawn, and
    `scale` is what their spread has to be multiplied by to be calibrated.
    """

    setting: Setting
    prediction: Prediction
    working: Size  # the grid it was made on
    seconds: float = 0.0  # per image, of this setting by itself, among the images of the batch
    members: Tensor | None = None  # "e b c h w", physical, on the grid of the batch
    merge: str = ""  # the rule that merged them, where several were asked for
    peak_gb: float = 0.0  # of memory, while the members were drawn
    scale: float = 1.0
    fits: bool = True  # whether it was seen at the size that the protocol asks for
    chances: Tensor | None = None  # "b k h' w'", probabilities of the k classes, or of the object
    # (k = 1), on the grid it was worked on: what an estimate states without any ensemble


@dataclass(frozen=True)
class Provenance:
    """How scores came about, as far as their rows do not say."""

    sampler: str
    checkpoint: str  # digest of the weights, or the folder of imported predictions
    split: str | None = None
    published: int | None = None  # images of the whole split, where that is known
    label: str | None = None  # stands beside every score
    available: int | None = None  # images of the split that are there
    options: Mapping[str, Any] = field(default_factory=dict)  # that are not as usual
    temperature: float | None = None  # of the start noise; None where that is not known
    views: str | None = None  # what further calls saw; None for files
    calibration: Mapping[str, Any] = field(default_factory=dict)  # the record of the "scale" that
    # the spread of members is multiplied by (`evaluation.calibration`); {} where none was fitted
    profile: Profile = STEPSIGHT  # by whose conventions


class Predictor(ABC):
    """What can be scored."""

    name: str  # of the task
    chunk_size: int  # images at a time
    given: Space  # what predicted depths are
    of_files = False  # whether an answer that cannot be scored is one bad item among others

    @property
    @abstractmethod
    def task(self) -> Task:
        """Lends pictures and trivial predictors."""

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    @abstractmethod
    def provenance(self) -> Provenance:
        """What made its predictions."""

    @property
    @abstractmethod
    def subject(self) -> Mapping[str, Any]:
        """What its estimates depend on besides the image, for the journal."""

    @abstractmethod
    def estimates(
        self, batch: Batch, view: ProtocolView, sizes: Sequence[Size]
    ) -> Iterator[Estimate]:
        """Estimates at every setting. `sizes`: the images' own, before `view` cropped them."""

    @abstractmethod
    def score(self, prediction: Prediction, batch: Batch, protocol: Protocol) -> Rows:
        """One row of numbers per image."""

    @abstractmethod
    def trivial(self, batch: Batch) -> dict[str, Prediction]:
        """Trivial predictors by name."""

    def best(self, samples: list[Sample], batch: Batch, working: Size) -> Prediction | None:
        """The truth of `samples`, which are `batch`, through the working size and back: the best
        within reach. None where that is not known, or the batch lacks the task's own truth."""
        return None

    def shown(self, batch: Batch, view: ProtocolView, sizes: Sequence[Size]) -> list[Estimate]:
        """What a picture shows; the last was scored."""
        return [*self.estimates(batch, view, sizes)][-1:]

    def said(self, setting: Setting) -> str:
        """A setting in words for a picture; "" where there is no other."""
        return ""

    def remark(self, protocol: Protocol) -> str | None:
        """What has to be said beside its scores under a protocol."""
        return None


@dataclass(frozen=True)
class Model(Predictor):
    """A pipeline at every pair of `nfe` and `members`.

    Members are nested: the largest ensemble is sampled once per NFE and its prefixes are merged, by
    each of `merges` (by none: by the task's own rule).
    keep: the members themselves are part of an estimate, for the scores of uncertainty.
    size: the longer side at work, whatever the protocol says; None leaves it to the protocol.
    """

    pipeline: DensePipeline
    name: str
    nfe: Sequence[int]
    members: Sequence[int]
    sampler: str
    seed: int = 0
    chunk_size: int = 64  # images at a time, and rows (images x members) per forward pass
    keep: bool = False
    given: Space = "depth"
    merges: Sequence[str] = ()
    size: int | None = None

    @property
    def task(self) -> Task:
        return self.pipeline.task(self.name)

    @property
    def device(self) -> torch.device:
        """Where answers are merged and scored: metrics are float64, which Apple's GPUs lack."""
        device = self.pipeline.device
        return torch.device("cpu") if device.type == "mps" else device

    @property
    def provenance(self) -> Provenance:
        config, usual = self.pipeline.config, self.pipeline.default_setting(self.name)
        usually = sampling_options(config.diffusion, config.tasks[self.name])
        usually |= {"temperature": usual.temperature, "views": usual.views, "weights": "ema"}
        usually |= {"precision": "float32", "profile": self.pipeline.published.id}
        settings, options = self.pipeline.diffusion.settings, self._sampling_options()
        return Provenance(
            self.sampler,
            self.pipeline.name,
            options={name: x for name, x in options.items() if x != usually.get(name)},
            temperature=settings.temperature,
            views=settings.views,
            calibration=self._calibration,
            profile=self.pipeline.profile,
        )

    @property
    def subject(self) -> Mapping[str, Any]:
        weights = {"checkpoint": self.pipeline.name, "sampler": self.sampler, "kept": self.keep}
        weights["calibration"] = dict(self._calibration)
        if measured := getattr(self.task, "measured", None):
            weights["measured"] = [*measured]
        settings = {"nfe": list(self.nfe), "members": list(self.members), "seed": self.seed}
        return weights | self._sampling_options() | {"merges": list(self.merges)} | settings

    def estimates(
        self, batch: Batch, view: ProtocolView, sizes: Sequence[Size]
    ) -> Iterator[Estimate]:
        pipeline, grid = self._working(batch, view), grid_of(batch)
        as_asked = fits(pipeline.working_size(self.name, grid), grid, view.working)
        shared = Shared(self.device)
        for calls in self.nfe:
            _reset_peak(self.device)
            drawn, took = self._timed(pipeline, batch, calls, max(self.members), shared)
            peak, members = _peak_gb(self.device), self._members(drawn, grid)
            for merge, task in self._merging().items():
                for count in self.members:
                    began = clock(self.device)
                    merged = pipeline.finish(task.merge(drawn[:count]), batch)
                    spent = took.of(count / max(self.members)) + clock(self.device) - began
                    yield Estimate(
                        setting=(calls, count),
                        prediction=merged,
                        working=(int(drawn.shape[-2]), int(drawn.shape[-1])),
                        seconds=spent / len(batch),
                        members=members[:count] if members is not None and count > 1 else None,
                        merge=merge,
                        peak_gb=peak,
                        scale=self._calibration.get("scale") or 1.0,
                        fits=as_asked,
                        chances=self._chances(drawn[:count]),
                    )

    def score(self, prediction: Prediction, batch: Batch, protocol: Protocol) -> Rows:
        return self.task.score(prediction, batch, protocol.name)

    def trivial(self, batch: Batch) -> dict[str, Prediction]:
        return self.task.baselines(batch, self.pipeline.statistics.get(self.name))

    def best(self, samples: list[Sample], batch: Batch, working: Size) -> Prediction | None:
        if getattr(batch, self.task.target_field) is None:
            return None
        small = collate([resize_sample(sample, working) for sample in samples])
        truth = self.task.decode(self.task.encode(small.to(self.device)).x)
        return self.pipeline.finish(truth, batch)

    def shown(self, batch: Batch, view: ProtocolView, sizes: Sequence[Size]) -> list[Estimate]:
        """The fewest calls, or more of them where those are scored; then the largest setting."""
        pipeline, shown = self._working(batch, view), list[Estimate]()
        fewest, scored = (self._fewest(), 1), (self.nfe[-1], self.members[-1])
        for setting in (fewest if fewest != scored else (4 * fewest[0], 1), scored):
            merged = self.task.merge(self._draw(pipeline, batch, *setting))
            shown.append(Estimate(setting, pipeline.finish(merged, batch), grid_of(batch)))
        return shown

    def said(self, setting: Setting) -> str:
        return setting_text(setting, self.pipeline.diffusion.settings)

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

    @property
    def _calibration(self) -> Mapping[str, Any]:
        return self.pipeline.fitted.get(self.name, {})

    def _sampling_options(self) -> dict[str, Any]:
        options = sampling_options(self.pipeline.diffusion.settings, self.task)
        options |= {"size": self.size, "weights": self.pipeline.weights}
        options |= {"profile": self.pipeline.profile.id}
        return options | {"precision": self.pipeline.precision}

    def _working(self, batch: Batch, view: ProtocolView) -> DensePipeline:
        return working_at(self.pipeline, self.name, grid_of(batch), self.size, view.working)

    def _merging(self) -> dict[str, Task]:
        """The task once per rule that members are merged by; "" is its own."""
        name, pipeline = self.name, self.pipeline
        tasks = {merge: pipeline.sampling(merge={name: merge}).task(name) for merge in self.merges}
        return tasks or {"": self.task}

    def alone(self, batch: Batch, view: ProtocolView) -> dict[Setting, float]:
        """Seconds that the answer to `batch`, of one image, takes at every setting by itself."""
        pipeline, seconds = self._working(batch, view), dict[Setting, float]()
        for count in self.members:
            shared = Shared(self.device)
            for calls in self.nfe:
                drawn, took = self._timed(pipeline, batch, calls, count, shared)
                began = clock(self.device)
                pipeline.finish(self.task.merge(drawn), batch)
                seconds[calls, count] = took.of(1.0) + clock(self.device) - began
        return seconds

    def _timed(
        self, pipeline: DensePipeline, batch: Batch, calls: int, count: int, shared: Shared
    ) -> tuple[Tensor, Took]:
        """Members, and what they would have taken had nothing been shared. What was lost on passes
        that did not fit into memory does not count."""
        shared.begin()
        began, lost = clock(self.device), pipeline.memory.lost
        drawn = self._draw(pipeline, batch, calls, count, shared)
        whole = clock(self.device) - began + shared.lent - (pipeline.memory.lost - lost)
        seeing = shared.spent.get("view", 0.0)
        return drawn, Took(seeing, whole - seeing)

    def _draw(
        self,
        pipeline: DensePipeline,
        batch: Batch,
        calls: int,
        count: int,
        shared: Shared | None = None,
    ) -> Tensor:
        options: dict[str, Any] = {"sampler": self.sampler, "chunk_size": self.chunk_size}
        options |= {"nfe": calls, "members": count, "seed": self.seed, "shared": shared}
        return pipeline.sample(batch, self.name, **options)

    def _chances(self, drawn: Tensor) -> Tensor | None:
        """The mean of the probabilities that the members "e b c h w" state, if the task's do."""
        of, pipeline = getattr(self.task, "chances", None), self.pipeline
        known = pipeline.statistics.get(self.name) if pipeline.config.own_errors else None
        chances = [of(member, known) for member in drawn] if self.keep and of else []
        return torch.stack(chances).mean(dim=0) if chances and chances[0] is not None else None

    def _members(self, drawn: Tensor, grid: Size) -> Tensor | None:
        if not self.keep or len(drawn) < 2:
            return None
        decoded = [self.task.decode(member).values for member in drawn]
        return torch.stack([self.task.rescale(values, grid) for values in decoded])


def sampling_options(diffusion: DiffusionSettings, task: object) -> dict[str, Any]:
    """How a task is sampled and merged, besides the sampler."""
    options = {"spacing": diffusion.spacing, "schedule": diffusion.sampling_schedule}
    options |= {"eta": diffusion.eta, "times": list(diffusion.sampling_times)}
    alike = ("convention", "temperature", "views", "starts", "guidance")
    options |= {name: getattr(diffusion, name) for name in alike}
    return options | {"merge": getattr(task, "merge_by", None)}


def _reset_peak(device: torch.device) -> None:
    """Forget earlier peaks of a GPU; a process cannot forget its own."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak_gb(device: torch.device) -> float:
    """Peak memory in GB: allocated on the GPU since `_reset_peak`, else resident since the start
    of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    status = Path("/proc/self/status")
    if status.exists():  # Linux, whose getrusage counts the process that forked this one as well
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024 / 1e9
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9  # macOS: bytes
