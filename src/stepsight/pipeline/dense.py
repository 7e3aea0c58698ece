"""DensePipeline: from an image to depth, flow, masks, classes or normals.

Strangers call it on a picture; validation, evaluation and the sweep call `sample` and `predict` on
batches. An image is brought to the working size of its task, members are denoised from noise that
is seeded per image and member, and the merged prediction is brought back to the image's own grid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from stepsight import checkpoint
from stepsight.coding import Layout, code, own_codec, own_network, working_channels
from stepsight.config import RunConfig
from stepsight.diffusion.config import resampled
from stepsight.diffusion.noise import row_noise
from stepsight.diffusion.objective import Diffusion
from stepsight.errors import UserError, suggest
from stepsight.models.codec import Codec, Pixels
from stepsight.pipeline.adaptive import members_until, within
from stepsight.pipeline.budget import check_dials, plan_budget, ways
from stepsight.pipeline.defaults import Usual
from stepsight.pipeline.inputs import content_keys, single
from stepsight.pipeline.views import VIEWS, Frame, averaging
from stepsight.tasks.base import Task, resize
from stepsight.tasks.config import ImageSettings
from stepsight.tasks.merging import merge_rules as merge_rules
from stepsight.tasks.merging import merging
from stepsight.tasks.table import build_tasks
from stepsight.types import Batch, Coded, Prediction

if TYPE_CHECKING:
    from stepsight.scaling.sampling.planner import Plan


class DensePipeline:
    """A trained backbone with everything needed to use it.

    sizes: the working (height, width) each task was trained at.
    statistics: training statistics of the trivial predictors, by task (may be empty).
    name: digest of the weights. home: the run folder it was opened from.
    chosen: the usual setting of each task, where the run chose one. calibration: by task, what was
    fitted of its uncertainty, with its "scale".
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
    ) -> None:
        self.net, self.tasks, self.config, self.sizes = net, dict(tasks), config, dict(sizes)
        self.statistics = dict(statistics or {})
        self.name, self.home = name, home
        self.chosen, self.fitted = dict(chosen or {}), dict(calibration or {})
        self._told: dict[str, Any] = {}  # starts and views that `sampling` was told
        self.diffusion = Diffusion(config.diffusion)
        self.codec = codec or Pixels()
        self.layout = Layout.of(self.tasks, self.codec)

    @classmethod
    def from_pretrained(cls, path: str | Path, device: str | torch.device = "cpu") -> Self:
        """Open a run folder (its best checkpoint, else its last) or a step folder.

        Raises CheckpointError if it is missing, unfinished, damaged or another model's.
        """
        saved = checkpoint.read(path)
        tasks = build_tasks(saved.config.tasks)
        codec = own_codec(saved)
        net = own_network(saved, tasks, codec)
        sizes = {task: (int(h), int(w)) for task, (h, w) in saved.meta["sizes"].items()}
        statistics = saved.tensors(checkpoint.STATISTICS)
        net.to(device).eval().requires_grad_(False)
        name, codec = saved.digest(), codec.to(device)
        home = saved.path.resolve().parent.parent
        tuned = saved.meta.get("sampling"), saved.meta.get("calibration")
        return cls(net, tasks, saved.config, sizes, statistics, name, codec, home, *tuned)

    @property
    def calibration(self) -> dict[str, float]:
        """What the members' deviation is multiplied by, for tasks where that was fitted."""
        return {task: one["scale"] for task, one in self.fitted.items() if one.get("scale")}

    def usual(self, task: str) -> Usual:
        """How a task is answered unless something else is asked for. Pictures are generated from
        noise, whatever the number of members."""
        usual = Usual.of(self.config.evaluation, self.chosen.get(self.task(task).name))
        if isinstance(self.tasks[task], ImageSettings):
            return replace(usual, temperature=1.0, views="none", settled=True)
        return usual

    def setting(
        self,
        task: str,
        nfe: int | None = None,
        members: int | None = None,
        temperature: float | None = None,
        views: str | None = None,
    ) -> Usual:
        """The usual setting of a task but for what is given (`Usual.told`). What `sampling` was
        told counts as given."""
        temperature = self._told.get("temperature") if temperature is None else temperature
        views = self._told.get("views") if views is None else views
        return self.usual(task).told(nfe, members, temperature, views)

    def set_to(self, usual: Usual) -> Self:
        """A copy that starts and looks as `usual` says; views where its sampler can have them."""
        used = self.diffusion.settings
        averaged = usual.views if used.sampler == "ddim" and not used.eta else "none"
        return self.sampling(temperature=usual.temperature, views=averaged)

    def sampling(
        self,
        *,
        sampler: str | None = None,
        spacing: str | None = None,
        schedule: str | None = None,
        times: tuple[float, ...] = (),
        eta: float | None = None,
        temperature: float | None = None,
        starts: str | None = None,
        views: str | None = None,
        merge: Mapping[str, str] | str | None = None,
    ) -> Self:
        """A copy that samples or merges in another way; what is None stays as it is.

        Weights are shared, and `config` stays that of the run. merge: rules by task, or one rule
        for all tasks that have it (`tasks.merging`); the others: see `diffusion.config.resampled`.
        Raises UserError for names that are unknown.
        """
        other = copy(self)
        settings = resampled(
            self.diffusion.settings,
            sampler=sampler,
            spacing=spacing,
            schedule=schedule,
            times=times,
            eta=eta,
            temperature=temperature,
            starts=starts,
            views=views,
        )
        other.diffusion = Diffusion(settings)
        told = {"temperature": temperature, "views": views}
        other._told = self._told | {name: x for name, x in told.items() if x is not None}
        other.tasks = merging(self.tasks, merge or {})
        return other

    def plan(self, task: str, budget: str, sweep: str | Path | None = None) -> Plan:
        """The setting for a budget of "16nfe", "50gflop" or "200ms" an image, by a sweep.csv
        (default: the run's own). Raises UserError where there is none."""
        return plan_budget(self.task(task).name, budget, self.home, sweep, self.name)

    def planned(self, task: str, plan: Plan) -> Self:
        """A copy that samples, merges and sizes its work as the setting of a plan did."""
        run = copy(self)
        run.diffusion = Diffusion(self.config.diffusion)  # which the sweep set out from
        other = run.sampling(**ways(plan, task, self.config.diffusion))
        if plan.size:
            height, width = plan.size.split("x")
            other.sizes = self.sizes | {task: (int(height), int(width))}
        return other

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device

    def task(self, name: str) -> Task:
        """The task called `name`. Raises UserError if this model was not trained for it."""
        if name not in self.tasks:
            raise UserError(
                f"the checkpoint has {', '.join(self.tasks)}; asked for {name}."
                f"{suggest(name, self.tasks)}"
            )
        return self.tasks[name]

    @torch.inference_mode()
    def __call__(
        self,
        image: Any,
        task: str = "depth",
        *,
        second: Any = None,
        mask: Any = None,
        class_id: int | None = None,
        nfe: int | None = None,
        members: int | None = None,
        temperature: float | None = None,
        views: str | None = None,
        sampler: str | None = None,
        seed: int = 0,
        key: str = "image",
        budget: str | None = None,
        sweep: str | Path | None = None,
        tolerance: float | None = None,
    ) -> Prediction:
        """Predict for one image of any size: a path, a PIL image, or an array "h w 3" of uint8.

        second: the next frame (flow). mask: the visible part of the object, bool "h w" or a path
        to a mask image, white on black (amodal). class_id: what to generate (image), where the
        picture given lends its shape alone. nfe, members, temperature, views: default to what the
        run chose for the task (`usual`); other numbers of members start from zeros if it is one,
        from the diffusion's own noise if they are several, whose spread is the uncertainty.
        budget: "16nfe", "50gflop" or "200ms" an image, in place of nfe, members and sampler: what
        the sweep (a sweep.csv; default: the run's own) says is best for it.
        tolerance: stop adding members once the merge's standard error is that small (`adaptive`),
        in the unit of the task's uncertainty; `members` is then the most (default: the sweep's).
        Returns a Prediction on the image's own grid ("1 c h w"), with `picture` filled in.
        Raises UserError for a task the model lacks, an input the task needs, or a budget that no
        sweep can plan.
        """
        chosen = self.task(task)
        batch = single(image, chosen, second=second, mask=mask, class_id=class_id, key=key)
        batch = batch.to(self.device)
        dials = {"nfe": nfe, "members": members, "temperature": temperature, "views": views}
        check_dials(budget, sweep, **dials, sampler=sampler)
        if budget is None:
            if tolerance is not None and members is None:
                members = max(self.config.evaluation.sweep_members)
            usual = self.setting(task, nfe, members, temperature, views)
            own = self if sampler is None else self.sampling(sampler=sampler)
            own, nfe, members = own.set_to(usual), usual.nfe, usual.members
            own = own if views is None else own.sampling(views=views)
        else:
            plan = self.plan(task, budget, sweep)
            own, nfe, members = self.planned(task, plan), plan.nfe, plan.members
        prediction = own._answer(batch, task, nfe, members, seed, tolerance)
        prediction.picture = chosen.picture(prediction.values, batch)
        return prediction

    def _answer(
        self, batch: Batch, task: str, nfe: int, members: int, seed: int, tolerance: float | None
    ) -> Prediction:
        """A prediction by so many members, or by as few as the tolerance allows."""
        if tolerance is None:
            return self.predict(batch, task, nfe=nfe, members=members, seed=seed)
        return self.predict_adaptively(
            batch, task, nfe=nfe, members=members, tolerance=tolerance, seed=seed
        )[0]

    @torch.inference_mode()
    def predict_adaptively(
        self,
        batch: Batch,
        task: str,
        *,
        nfe: int,
        members: int,
        tolerance: float,
        seed: int = 0,
        rows: int = 64,
    ) -> tuple[Prediction, Tensor]:
        """The merged prediction on the batch's own grid by as few members as the tolerance allows,
        and the members spent, int64 "b" (`adaptive`)."""
        chosen = self.task(task)
        enough = within(tolerance, self.calibration.get(chosen.name, 1.0))

        def draw(some: Batch, first: int, count: int) -> Tensor:
            return self.sample(
                some, task, nfe=nfe, members=count, first=first, seed=seed, rows=rows
            )

        prediction, spent = members_until(batch, members, draw, chosen.merge, enough)
        return self.finish(prediction, batch), spent

    @torch.inference_mode()
    def predict(
        self,
        batch: Batch,
        task: str,
        *,
        nfe: int,
        members: int,
        sampler: str | None = None,
        seed: int = 0,
        rows: int = 64,
    ) -> Prediction:
        """The merged prediction on the batch's own grid."""
        samples = self.sample(
            batch, task, nfe=nfe, members=members, sampler=sampler, seed=seed, rows=rows
        )
        return self.finish(self.task(task).merge(samples), batch)

    def finish(self, prediction: Prediction, batch: Batch) -> Prediction:
        """A prediction at working size brought to the grid of `batch`, its uncertainty scaled as
        the run's calibration says."""
        grid = (int(batch.image.shape[-2]), int(batch.image.shape[-1]))
        task = self.tasks[prediction.task]
        spread = prediction.uncertainty
        if spread is not None:
            spread = spread * self.calibration.get(task.name, 1.0)
        if spread is not None and task.name == "flow":  # a length, which grows with the grid
            spread = spread * math.sqrt(grid[0] * grid[1] / math.prod(spread.shape[-2:]))
        return replace(
            prediction,
            values=task.rescale(prediction.values, grid),
            uncertainty=None if spread is None else resize(spread, grid),
        )

    @torch.inference_mode()
    def sample(
        self,
        batch: Batch,
        task: str,
        *,
        nfe: int,
        members: int,
        sampler: str | None = None,
        seed: int = 0,
        rows: int = 64,
        first: int = 0,
        start: Tensor | None = None,
        strength: float = 1.0,
    ) -> Tensor:
        """Samples "e b c h w" of the task's target, at its working size: the members `first` to
        `first + members - 1`.

        Noise depends on (seed, the picture's pixels, member, step) alone: members are nested, and
        a row's result does not depend on what else is in the batch, nor on the picture's name.
        `rows` bounds the forward pass. The condition is encoded once a view, for all members and
        steps.
        start: target "b c h w" at working size from which all members set out, noised to the time
        `strength` (`Diffusion.sample`); without one they set out from pure noise.
        """
        if members < 1:
            raise UserError(f"{members} members: an ensemble needs at least 1.")
        own = self if sampler is None else self.sampling(sampler=sampler)
        chosen = self.task(task)
        own.check_setting(first + members, nfe)
        working = self.working(batch, task)
        seen = own._seen(working, task, nfe)
        if start is not None:
            seen[0].x = self._start(start, chosen, seen[0])
        pictures = content_keys(batch.image) if chosen.images else batch.keys
        keys = [
            (key, member, *([run] if run else []))  # the first run's noise is that of a single run
            for member in range(first, first + members)
            for run in range(chosen.passes)
            for key in pictures
        ]
        used, channels = working_channels(chosen, self.codec), chosen.channels // chosen.passes
        chunks = []
        for at in range(0, len(keys), rows):
            part = keys[at : at + rows]
            picks = torch.tensor([(at + i) % len(seen[0].label) for i in range(len(part))])
            some = [one.rows(picks) for one in seen]
            frame = Frame(chosen, self.codec, picks // len(batch))
            z = own._denoise(some, frame, part, nfe, seed, strength)
            chunks.append(self.codec.decode(z[:, :used], channels))
        return rearrange(
            torch.cat(chunks), "(e p b) c h w -> e b (p c) h w", e=members, p=chosen.passes
        )

    def _start(self, start: Tensor, task: Task, coded: Coded) -> Tensor:
        """A target "b c h w" in working space, rows and channels as those of the noisy target."""
        height, width = (side * self.codec.downsample for side in coded.cond.shape[-2:])
        fitting = (len(coded.cond) // task.passes, task.channels, height, width)
        if start.shape != fitting:
            raise UserError(
                f"a start of shape {tuple(start.shape)}: {task.name} here needs one of {fitting}."
            )
        rows = rearrange(start.to(coded.cond), "b (p c) h w -> (p b) c h w", p=task.passes)
        z = self.codec.encode(rows)
        return F.pad(z, (0, 0, 0, 0, 0, self.layout.target - z.shape[1]))

    def _seen(self, batch: Batch, task: str, nfe: int) -> list[Coded]:
        """The condition of a batch at working size in each view that the walk takes, encoded."""
        views = VIEWS[self.diffusion.settings.views][:nfe]
        coded = [self.code(view.batch(batch, self.codec.downsample), task) for view in views]
        for one in coded:
            if encode := getattr(self.net, "encode", None):
                one.encoded = encode(one.cond, one.label, one.features)
            settings = self.diffusion.settings
            scale = settings.temperature if settings.deterministic else 1.0  # of the noise in x
            one.temperature = one.cond.new_full((len(one.label),), scale)
        return coded

    def _denoise(
        self,
        seen: Sequence[Coded],
        frame: Frame,
        keys: list[tuple[Any, ...]],
        nfe: int,
        seed: int,
        strength: float,
    ) -> Tensor:
        shape = (self.layout.target, *seen[0].cond.shape[-2:])
        settings = self.diffusion.settings

        @cache
        def noise(draw: int) -> Tensor:
            rows = [(seed, "sample", *key, draw) for key in keys]
            if draw:
                return row_noise(shape, rows).to(self.device)
            if not settings.temperature:
                return torch.zeros(len(keys), *shape, device=self.device)
            if settings.starts == "independent":
                return row_noise(shape, rows).to(self.device) * settings.temperature
            pairs = [(seed, "sample", key[0], key[1] // 2, *key[2:], 0) for key in keys]
            signs = torch.tensor([1 - 2 * (key[1] % 2) for key in keys]) * settings.temperature
            return (row_noise(shape, pairs) * signs[:, None, None, None]).to(self.device)

        denoisers = [self.diffusion.denoiser(self.net, one) for one in seen]
        denoise = denoisers[0]
        if len(seen) > 1:
            views = VIEWS[settings.views]
            denoise = averaging(denoisers, views, frame, noise(0), self.diffusion.levels)
        return self.diffusion.sample(denoise, noise, nfe, start=seen[0].x, strength=strength)

    def check_setting(self, members: int, nfe: int) -> None:
        """Raise UserError for calls that cannot be spent, members that would all be equal, and
        views that cannot be."""
        self.diffusion.check_calls(nfe)
        settings = self.diffusion.settings
        if members > 1 and not settings.temperature and settings.deterministic:
            raise UserError(
                f"{members} members that start from zeros (temperature 0) are all the same. Ask for"
                f" one member, or give a temperature, such as 1."
            )
        if settings.views != "none" and nfe > 1 and (settings.sampler != "ddim" or settings.eta):
            raise UserError(
                f"views {settings.views} average the answers of ddim's walk (eta 0), not those of "
                f"{settings.sampler}. Sample with ddim, or with views none."
            )

    def working(self, batch: Batch, task: str) -> Batch:
        """The batch's inputs at the task's working size; the truth is left behind."""
        size = self.working_size(task, (int(batch.image.shape[-2]), int(batch.image.shape[-1])))
        inputs = Batch(resize(batch.image, size), keys=batch.keys, sources=batch.sources)
        inputs.class_id = batch.class_id
        if batch.second is not None:
            inputs.second = resize(batch.second, size)
        if batch.modal is not None:
            inputs.modal = resize(batch.modal.float(), size) > 0.5
        return inputs

    def working_size(self, task: str, grid: tuple[int, int]) -> tuple[int, int]:
        """The size `grid` is processed at: the area of training, the image's own aspect ratio,
        both sides multiples of the stride. An image shaped as in training gets that size."""
        trained = self.sizes[task]
        stride = int(self.net.stride) * self.codec.downsample  # type: ignore[arg-type]
        scale = math.sqrt(trained[0] * trained[1] / (grid[0] * grid[1]))
        height, width = (max(stride, round(side * scale / stride) * stride) for side in grid)
        return height, width

    def code(self, batch: Batch, task: str, target: bool = False) -> Coded:
        """A batch at working size in the working space; with its target when asked."""
        return code(batch, self.tasks[task], self.layout, self.codec, target)
