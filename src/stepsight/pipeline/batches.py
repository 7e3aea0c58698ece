"""What answers batches: a network with its tasks, its process and the way it is to be used.

Validation, evaluation and the sweep call `sample` and `predict` on batches. An image is brought to
the working size of its task, members are denoised from noise that is seeded per image and member,
and the merged prediction is brought back to the image's own grid. What users hand in is made
batches in `dense`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

import torch
from torch import Tensor, nn

from stepsight.averages import Weights
from stepsight.coding import Layout, code
from stepsight.config import RunConfig
from stepsight.diffusion.config import SamplingOptions, resampled
from stepsight.diffusion.objective import Diffusion
from stepsight.errors import UserError, suggest
from stepsight.execution.config import Precision
from stepsight.execution.graphs import Graphs
from stepsight.execution.precision import lowered_to, resolved
from stepsight.models.codec import Codec, Pixels
from stepsight.pipeline.adaptive import members_until, picked, within
from stepsight.pipeline.budget import plan_budget, sampling_options
from stepsight.pipeline.config import OWN, STEPSIGHT, Which
from stepsight.pipeline.defaults import SamplingSetting
from stepsight.pipeline.inputs import noise_keys
from stepsight.pipeline.members import Drawing, MemberOptions, MemberSampler
from stepsight.pipeline.memory import RowLimits, fitting
from stepsight.pipeline.seen import SeenBatch, together
from stepsight.pipeline.working import (
    Size,
    brought_back,
    grid_of,
    inputs_at,
    padded,
    working_size,
)
from stepsight.tasks.base import Task
from stepsight.tasks.merging import merge_rules as merge_rules
from stepsight.tasks.merging import merging
from stepsight.tasks.table import build_tasks
from stepsight.types import Batch, ModelInputs, Prediction

if TYPE_CHECKING:
    from stepsight.scaling.sampling.planner import Plan


class BatchPipeline:
    """A trained backbone with everything needed to use it.

    sizes: the working (height, width) each task was trained at. statistics: those of training for
    the trivial predictors, by task (may be empty). name: digest of the weights. home: the run
    folder it was opened from. chosen: the usual setting of each task, where the run chose one.
    calibration: by task, what was fitted of its uncertainty, with its "scale". metric: by task, the
    "scale" and "shift" that bring its depth to metres (`predicting.calibrating`).
    """

    def __init__(
        self,
        net: nn.Module,
        tasks: Mapping[str, Task],
        config: RunConfig,
        sizes: Mapping[str, tuple[int, int]],
        statistics: Mapping[str, Tensor] | None = None,
        name: str = "",
        codec: Codec | None = None,
        home: Path | None = None,
        chosen: Mapping[str, Mapping[str, Any]] | None = None,
        calibration: Mapping[str, Mapping[str, Any]] | None = None,
        metric: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.net, self.tasks, self.config, self.sizes = net, dict(tasks), config, dict(sizes)
        self.statistics, self.name, self.home = dict(statistics or {}), name, home
        self.chosen, self.fitted = dict(chosen or {}), dict(calibration or {})
        self.metric = dict(metric or {})
        self._explicit: dict[str, Any] = {}  # starts and views that `sampling` was given
        self.memory, self.graphs, self.codec = RowLimits(), Graphs(), codec or Pixels()
        self.drawn: Drawing | None = None  # noise in place of what seeds give
        self.profile = self.published = STEPSIGHT
        self.weights: Weights = "ema"
        self.asked: Precision = config.training.precision
        self.diffusion = self.walk = Diffusion(config.diffusion)  # walk: before any `sampling`
        self.layout = Layout.of(self.tasks, self.codec)

    def profiled(self, which: Which) -> Self:
        """A copy that sees, walks and answers as published or as stepsight does, not as sampled."""
        other, run, own = copy(self), self.config.diffusion, which == OWN
        other.profile, other._explicit = STEPSIGHT if own else self.published, {}
        other.diffusion = other.walk = Diffusion(replace(run, convention=OWN) if own else run)
        tasks, changed = build_tasks(self.config.tasks), other.profile.tasks
        other.tasks = {name: replace(one, **changed.get(name, {})) for name, one in tasks.items()}
        for name, fit in self.metric.items():
            if name in tasks and fit["profile"] == other.profile.name:
                known: Any = {"measured": (fit["scale"], fit["shift"])}
                other.tasks[name] = replace(other.tasks[name], **known)
        return other

    def at(self, resolution: int) -> Self:
        """A copy that sees the longer side at so many pixels, whatever size it was trained at; 0:
        pictures as they are. Raises UserError for what is no whole number, and for 0 where a
        profile keeps an area."""
        least = 1 if self.profile.fit == "area" else 0
        if not isinstance(resolution, int) or resolution < least:
            raise UserError(f"size {resolution}: give the pixels of the longer side, from 1 up.")
        other = copy(self)
        other.profile = replace(self.profile, resolution=resolution)
        return other

    @property
    def calibration(self) -> dict[str, float]:
        """What the members' deviation is multiplied by, for tasks where that was fitted."""
        return {task: fit["scale"] for task, fit in self.fitted.items() if fit.get("scale")}

    def default_setting(self, task: str) -> SamplingSetting:
        """How a task is answered unless something else is asked for. Pictures are generated from
        noise, whatever the number of members."""
        usual = SamplingSetting.of(self.config.evaluation, self.chosen.get(self.task(task).name))
        usual = usual.changed(self.profile.nfe or None, self.profile.members or None)
        generates = self.tasks[task].generative
        return replace(usual, temperature=1.0, views="none", settled=True) if generates else usual

    def setting(
        self,
        task: str,
        nfe: int | None = None,
        members: int | None = None,
        temperature: float | None = None,
        views: str | None = None,
    ) -> SamplingSetting:
        """The default setting of a task but for what is given (`SamplingSetting.changed`); what
        `sampling` was given counts as well."""
        temperature = self._explicit.get("temperature") if temperature is None else temperature
        views = self._explicit.get("views") if views is None else views
        return self.default_setting(task).changed(nfe, members, temperature, views)

    def with_setting(self, setting: SamplingSetting) -> Self:
        """A copy that starts and looks as `setting` says; views where its sampler can have them."""
        used = self.diffusion.settings
        views = setting.views if used.sampler == "ddim" and not used.eta else "none"
        return self.sampling(temperature=setting.temperature, views=views)

    def sampling(
        self, *, merge: Mapping[str, str] | str | None = None, **options: Unpack[SamplingOptions]
    ) -> Self:
        """A copy that samples or merges in another way; what is None stays as it is.

        Weights are shared, and `config` stays that of the run. merge: rules by task, or one rule
        for all tasks that have it (`tasks.merging`); the others: see `diffusion.config.resampled`.
        Raises UserError for names that are unknown.
        """
        other = copy(self)
        other.diffusion = Diffusion(resampled(self.diffusion.settings, **options))
        starts = {name: options.get(name) for name in ("temperature", "views")}
        other._explicit = self._explicit | {name: x for name, x in starts.items() if x is not None}
        other.tasks = merging(self.tasks, merge or {})
        return other

    def plan(self, task: str, budget: str, sweep: str | Path | None = None) -> Plan:
        """The setting for a budget per image (`plan_budget`). Raises UserError without a sweep."""
        return plan_budget(self.task(task).name, budget, self.home, sweep, self.name, self.profile)

    def planned(self, task: str, plan: Plan) -> Self:
        """A copy that samples, merges and sizes its work as the setting of a plan did."""
        run = copy(self)
        run.diffusion = self.walk  # which the sweep set out from
        other = run.sampling(**sampling_options(plan, task, self.walk.settings))
        if plan.size:
            height, width = map(int, plan.size.split("x"))
            if self.profile.fit != "area":
                return other.at(max(height, width))
            other.sizes = self.sizes | {task: (height, width)}
        return other

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device

    @property
    def precision(self) -> str:
        """What the network computes in: "float32", "bf16" or "fp16". Weights that were cast once
        and for all decide, as copies share them."""
        return lowered_to(self.net) or resolved(self.asked, self.device)

    def task(self, name: str) -> Task:
        """The task called `name`. Raises UserError if this model was not trained for it."""
        if name not in self.tasks:
            raise UserError(
                f"the checkpoint has {', '.join(self.tasks)}; asked for {name}."
                f"{suggest(name, self.tasks)}"
            )
        return self.tasks[name]

    @torch.inference_mode()
    def predict_adaptively(
        self, batch: Batch, task: str, tolerance: float, **options: Unpack[MemberOptions]
    ) -> tuple[Prediction, Tensor]:
        """The merged prediction on the batch's own grid by as few members as the tolerance allows,
        and the members spent, int64 "b" (`adaptive`)."""
        seen = self.seen(batch, task, options.get("alike"))
        prediction, spent = self._adaptively(seen, task, tolerance, options)
        return self.finish(prediction, batch), spent

    def _adaptively(
        self, seen: SeenBatch, task: str, tolerance: float, options: MemberOptions
    ) -> tuple[Prediction, Tensor]:
        """The same at working size."""
        chosen = self.task(task)
        enough = within(tolerance, self.calibration.get(chosen.name, 1.0))

        def draw(rows: list[int], first: int, count: int) -> Tensor:
            how: MemberOptions = {**options, "first": first, "members": count}
            return self._drawn(seen.rows(rows), task, **how)

        return members_until(len(seen), options["members"], draw, chosen.merge, enough)

    @torch.inference_mode()
    def predict_each(
        self,
        batches: Sequence[Batch],
        task: str,
        tolerance: float | None = None,
        **options: Unpack[MemberOptions],
    ) -> list[Prediction]:
        """The merged prediction for each of some batches of one picture, on its own grid. Those
        that are seen at the same size pass the network together."""
        chosen, answers = self.task(task), dict[int, Prediction]()
        with fitting():
            seen = [self.seen(batch, task, options.get("alike")) for batch in batches]
        groups: dict[Size, list[int]] = {}
        for place, one in enumerate(seen):
            groups.setdefault(one.size, []).append(place)
        for places in groups.values():
            group = together([seen[place] for place in places])
            if tolerance is None:
                merged = chosen.merge(self._drawn(group, task, **options))
            else:
                merged, _ = self._adaptively(group, task, tolerance, options)
            for row, place in enumerate(places):
                answers[place] = self.finish(picked(merged, [row]), batches[place])
        return [answers[place] for place in range(len(batches))]

    @torch.inference_mode()
    def predict(
        self, batch: Batch, task: str, sampler: str | None = None, **options: Unpack[MemberOptions]
    ) -> Prediction:
        """The merged prediction on the batch's own grid."""
        samples = self.sample(batch, task, sampler, **options)
        return self.finish(self.task(task).merge(samples), batch)

    def finish(self, prediction: Prediction, batch: Batch) -> Prediction:
        """A prediction at working size brought to the grid of `batch`, its uncertainty scaled as
        the run's calibration says."""
        task = self.tasks[prediction.task]
        scale = self.calibration.get(task.name, 1.0)
        profile = self.profile.of_task(task.name)
        return brought_back(prediction, task, grid_of(batch), scale, profile)

    @torch.inference_mode()
    def sample(
        self, batch: Batch, task: str, sampler: str | None = None, **options: Unpack[MemberOptions]
    ) -> Tensor:
        """Samples "e b c h w" of the task's target, at its working size: the members `first` to
        `first + members - 1` (`MemberOptions`).

        Noise depends on (seed, the picture's pixels, member, step) alone: members are nested, and
        a row's result does not depend on what else is in the batch, nor on the picture's name. The
        condition is encoded once per view, for all members and steps. Where memory runs out it is
        done in parts (`memory`). Samples come back to the device that the batch is on.
        """
        pipeline = self if sampler is None else self.sampling(sampler=sampler)
        seen = self.seen(batch.to(self.device), task, options.get("alike"))
        return pipeline._drawn(seen, task, **options).to(batch.image.device)

    def seen(self, batch: Batch, task: str, alike: int | None = None) -> SeenBatch:
        """A batch as the network sees it, with what its noise follows from (`noise_keys`)."""
        pictures = noise_keys(batch, self.task(task), alike)
        return SeenBatch(
            self.working(batch, task), pictures, self.working_size(task, grid_of(batch))
        )

    def _drawn(self, seen: SeenBatch, task: str, **options: Unpack[MemberOptions]) -> Tensor:
        """What `sample` answers."""
        if options["members"] < 1:
            raise UserError(f"{options['members']} members: an ensemble needs at least 1.")
        chosen, members, start = self.task(task), self.sampler(), options.get("start")

        def draw(images: range, rows: int) -> Tensor:
            part, how = seen.rows(images), {**options, "chunk_size": rows}
            if start is not None:
                how["start"] = padded(start[images.start : images.stop], self.profile.pad)
            return members.draw(part.inputs, chosen, part.pictures, **how)  # type: ignore[arg-type]

        size = f"{task} at {' x '.join(map(str, grid_of(seen.inputs)))} pixels"
        parts = self.memory.in_parts(size, len(seen), options.get("chunk_size", 64), draw)
        samples = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        return samples[..., : seen.size[0], : seen.size[1]]

    def check_setting(self, members: int, nfe: int) -> None:
        """Raise UserError for what cannot be sampled (`MemberSampler.check`)."""
        self.sampler().check(members, nfe)

    def sampler(self) -> MemberSampler:
        """What draws members of batches at working size."""
        how = self.precision, self.graphs, self.profile, self.drawn
        return MemberSampler(self.net, self.diffusion, self.codec, self.layout, *how)

    def working(self, batch: Batch, task: str) -> Batch:
        """The batch's inputs at the task's working size; the truth is left behind."""
        size = self.working_size(task, grid_of(batch))
        return inputs_at(batch, size, self.tasks[task].required_inputs, self.profile.of_task(task))

    def working_size(self, task: str, grid: tuple[int, int]) -> tuple[int, int]:
        """The size `grid` is processed at, before padding (`pipeline.working`)."""
        stride = int(self.net.stride) * self.codec.downsample  # type: ignore[arg-type]
        return working_size(self.profile, self.sizes[task], grid, stride)

    def code(self, batch: Batch, task: str, target: bool = False) -> ModelInputs:
        """A batch at working size in the working space; with its target when asked."""
        return code(batch, self.tasks[task], self.layout, self.codec, target)
