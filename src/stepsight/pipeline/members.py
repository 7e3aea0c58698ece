"""How members are drawn: from conditions and seeded noise to samples of a task's target.

Noise depends on (seed, key, member, run, step) alone, so that members are nested, and a sample does
not depend on what else is in the batch. Only the channels that a task has are noised.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import count
from typing import Any, Required, TypedDict, Unpack

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from stepsight.coding import Layout, code, place_of, working_channels
from stepsight.diffusion.noise import begun
from stepsight.diffusion.objective import Diffusion
from stepsight.diffusion.trajectory import Denoise, StepNoise
from stepsight.errors import UserError
from stepsight.execution.graphs import Graphs
from stepsight.execution.noise import Stream, normal
from stepsight.execution.precision import computing
from stepsight.models.codec import Codec
from stepsight.pipeline.config import STEPSIGHT, Profile
from stepsight.pipeline.guidance import with_null
from stepsight.pipeline.shared import Shared
from stepsight.pipeline.views import VIEWS, Frame, View, averaging
from stepsight.tasks.base import Task
from stepsight.types import Batch, ModelInputs

Recall = Callable[[float, Callable[[], Tensor]], Tensor]  # (time, make) -> the answer to the start
Drawing = Callable[[Stream, Tensor, Sequence[int]], Tensor]  # of noise, as `normal` does
RUN = 1 << 32  # what a run of the backbone adds to the last word of an address


class MemberOptions(TypedDict, total=False):
    """What members of a batch are drawn by."""

    nfe: Required[int]  # model calls per member
    members: Required[int]  # how many, of which
    first: int  # is the number of the first (0)
    seed: int  # of the noise (0)
    alike: int | None  # a key of the noise for all pictures; None: each has its pixels' own
    chunk_size: int  # the most rows of a forward pass (64)
    # target "b c h w" at working size from which all members set out, noised to the time
    # `strength` (1, see `Diffusion.sample`); without one they set out from pure noise
    start: Tensor | None
    strength: float
    # with other draws of the same batch, task, seed and rows, without a start
    shared: Shared | None


@dataclass(frozen=True)
class MemberSampler:
    """What samples targets from noise: a network, its process, and the space it works in."""

    net: nn.Module
    diffusion: Diffusion
    codec: Codec
    layout: Layout
    precision: str  # that the network computes in
    graphs: Graphs
    profile: Profile = STEPSIGHT
    drawn: Drawing | None = None  # in place of `normal`

    def draw(
        self, batch: Batch, task: Task, pictures: Tensor, **options: Unpack[MemberOptions]
    ) -> Tensor:
        """Samples "e b c h w" of the target for a batch at working size, whose images have the keys
        `pictures` "b": the members `first` to `first + members - 1`."""
        nfe, members, first = options["nfe"], options["members"], options.get("first", 0)
        seed, strength = options.get("seed", 0), options.get("strength", 1.0)
        chunk_size = options.get("chunk_size", 64)
        self.check(first + members, nfe)
        shared, whose = options.get("shared"), tuple(batch.keys)
        with computing(pictures.device, self.precision):
            seen = self._seen(batch, task, nfe, shared, pictures, seed)
        if (start := options.get("start")) is not None:
            seen[0].x = self._start(start, task, seen[0])
        apart = RUN if self.profile.noise == "independent" else 0
        drawn = range(first, first + members)
        addresses = _addresses(pictures, drawn, task.splits, apart)
        place, channels = place_of(task, self.codec), task.channels // task.splits
        chunks = []
        for at in range(0, len(addresses), chunk_size):
            rows = addresses[at : at + chunk_size]
            picks = torch.arange(at, at + len(rows), device=rows.device) % len(seen[0].label)
            inputs = [view.rows(picks) for view in seen]
            if task.label_count == 1:  # then one row of it holds for all
                inputs = [view.labelled_once() for view in inputs]
            recall = shared and partial(_recall, shared, (whose, first, at, len(rows)))
            walk = partial(self._walk, task, nfe, seed, strength, recall)
            given = [vars(view) for view in inputs], picks // len(batch), rows
            with computing(rows.device, self.precision):
                if recall:
                    z = walk(*given)
                else:
                    how = self.diffusion.settings, self.precision, self.profile.noise
                    key = (self.net, *how, task, nfe, seed, strength)
                    z = self.graphs.run(key, rows, walk, *given)
            chunks.append(self.codec.decode(z[:, place], channels, self.profile.clip))
        rows = torch.cat(chunks)
        return rearrange(rows, "(e p b) c h w -> e b (p c) h w", e=members, p=task.splits)

    def _start(self, start: Tensor, task: Task, coded: ModelInputs) -> Tensor:
        """A target "b c h w" in working space, rows and channels as those of the noisy target."""
        if self.layout.places > 1:
            raise UserError(
                f"{task.name} is denoised together with other tasks here: it has no start alone."
            )
        height, width = (side * self.codec.downsample for side in coded.cond.shape[-2:])
        fitting = (len(coded.cond) // task.splits, task.channels, height, width)
        if start.shape != fitting:
            raise UserError(
                f"a start of shape {tuple(start.shape)}: {task.name} here needs one of {fitting}."
            )
        rows = rearrange(start.to(coded.cond), "b (p c) h w -> (p b) c h w", p=task.splits)
        z = self.codec.encode(rows)
        return F.pad(z, (0, 0, 0, 0, 0, self.layout.target - z.shape[1]))

    def _seeing(self, pictures: Tensor, seed: int) -> Codec:
        """What encodes the conditions of a view. Samples of a posterior are drawn by picture and by
        number of the condition image."""
        if self.profile.posterior == "mean":
            return self.codec
        number = count()

        def noise(shape: Sequence[int]) -> Tensor:
            rows = torch.stack([pictures, torch.full_like(pictures, next(number))], dim=1)
            return (self.drawn or normal)(("posterior", seed), rows, shape)

        return self.codec.drawing(noise)

    def _seen(
        self,
        batch: Batch,
        task: Task,
        nfe: int,
        shared: Shared | None,
        pictures: Tensor,
        seed: int,
    ) -> list[ModelInputs]:
        """The condition of a batch at working size in each view along the trajectory, encoded."""
        views, whose = VIEWS[self.diffusion.settings.views][:nfe], tuple(batch.keys)
        ways = [
            partial(self._encoded, batch, task, view, self._seeing(pictures, seed))
            for view in views
        ]
        if shared is None:
            return [way() for way in ways]
        return [shared.once("view", (whose, number), way) for number, way in enumerate(ways)]

    def _encoded(self, batch: Batch, task: Task, view: View, codec: Codec) -> ModelInputs:
        """The condition as one view has it."""
        settings, seen = self.diffusion.settings, view.batch(batch, self.codec.downsample)
        coded = code(seen, task, self.layout, codec, False)
        if encode := getattr(self.net, "encode", None):
            told = {"picture": seen.image} if getattr(self.net, "sees_picture", False) else {}
            coded.encoded = encode(coded.cond, coded.label, coded.features, **told)
        scale = settings.temperature if settings.deterministic else 1.0  # of the noise in x
        coded.temperature = coded.cond.new_full((len(coded.label),), scale)
        return with_null(coded, self.net, task, self.layout, settings.guidance)

    def _noise(self, stream: Stream, rows: Tensor, used: int, cond: Tensor) -> StepNoise:
        """What a sampler draws for rows of these addresses: in the leading channels, zeros in the
        rest."""
        settings, together = self.diffusion.settings, self.layout.places
        alike = together if self.profile.noise == "shared" else 1  # with the same noise
        shape = (used * together // alike, *cond.shape[-2:])
        surplus = self.layout.target - used * together

        @cache
        def noise(draw: int) -> Tensor:
            picture, member, run = rows.unbind(1)
            begins = not draw
            drawn = begun(settings, start(), cond) if begins else white(picture, member, run, draw)
            return F.pad(drawn, (0, 0, 0, 0, 0, surplus))

        def white(picture: Tensor, member: Tensor, run: Tensor, draw: int) -> Tensor:
            address = torch.stack([picture, member, run + draw], 1)
            drawn = (self.drawn or normal)(stream, address, shape)
            return repeat(drawn, "r c h w -> r (p c) h w", p=alike)

        def start() -> Tensor:
            if not settings.temperature:
                return cond.new_zeros(len(rows), used * together, *shape[1:])
            picture, member, run = rows.unbind(1)
            if settings.starts != "antithetic":
                return settings.temperature * white(picture, member, run, 0)
            sign = settings.temperature * (1 - 2 * (member % 2))
            return sign[:, None, None, None] * white(picture, member // 2, run, 0)

        return noise

    def _walk(
        self,
        task: Task,
        nfe: int,
        seed: int,
        strength: float,
        recall: Recall | None,
        views: Sequence[dict[str, Any]],
        runs: Tensor,
        rows: Tensor,
    ) -> Tensor:
        """Samples in working space for rows "r" of these addresses and runs of the task, seen in
        these views: a function of the tensors in the last three alone, but for what is recalled."""
        seen, used = [ModelInputs(**view) for view in views], working_channels(task, self.codec)
        noise = self._noise(("sample", seed), rows, used, seen[0].cond)
        return self._trajectory(seen, Frame(task, self.codec, runs), noise, nfe, strength, recall)

    def _trajectory(
        self,
        seen: Sequence[ModelInputs],
        frame: Frame,
        noise: StepNoise,
        nfe: int,
        strength: float,
        recall: Recall | None,
    ) -> Tensor:
        views = VIEWS[self.diffusion.settings.views]
        walk = self.diffusion.times(nfe, strength)[:-1].tolist()
        denoisers = [self.diffusion.denoiser(self.net, inputs, walk) for inputs in seen]
        if recall:
            denoisers[0] = _beginning(denoisers[0], noise(0), recall)
        denoise = denoisers[0]
        if len(seen) > 1:
            denoise = averaging(denoisers, views, frame, noise(0), self.diffusion.levels)
        return self.diffusion.sample(denoise, noise, nfe, start=seen[0].x, strength=strength)

    def check(self, members: int, nfe: int) -> None:
        """Raise UserError for calls that cannot be spent, members that would all be equal, and
        views that cannot be."""
        self.diffusion.check_calls(nfe)
        settings = self.diffusion.settings
        if members > 1 and settings.objective == "end_to_end":
            raise UserError(
                f"{members} members of a model that answers at once, from zeros, are all the same. "
                "Ask for one member."
            )
        if members > 1 and not settings.temperature and settings.deterministic:
            raise UserError(
                f"{members} members that start from zeros (temperature 0) are all the same. Ask for"
                f" one member, or give a temperature, such as 1."
            )
        if settings.views != "none" and nfe > 1 and self.layout.places > 1:
            raise UserError(
                f"views {settings.views} bring back one task's answers; here tasks are denoised "
                f"together. Sample with views none."
            )
        if settings.views != "none" and nfe > 1 and (settings.sampler != "ddim" or settings.eta):
            raise UserError(
                f"views {settings.views} average the answers along ddim's trajectory (eta 0), not "
                f"those of {settings.sampler}. Sample with ddim, or with views none."
            )


def _recall(shared: Shared, rows: Hashable, time: float, make: Callable[[], Tensor]) -> Tensor:
    return shared.once("start", (rows, time), make)


def _beginning(denoise: Denoise, start: Tensor, recall: Recall) -> Denoise:
    """`denoise`, whose answer to the start, which every walk asks for first, is recalled."""

    def answer(x: Tensor, t: Tensor) -> Tensor:
        return recall(t.item(), lambda: denoise(x, t)) if x is start else denoise(x, t)

    return answer


def _addresses(pictures: Tensor, members: range, runs: int, apart: int) -> Tensor:
    """Where the noise of rows "(member run picture)" is found: (picture, member, run) "r 3"; runs
    are so far apart."""
    device = pictures.device
    member = torch.arange(members.start, members.stop, device=device)
    run = apart * torch.arange(runs, device=device)
    grid = torch.cartesian_prod(member, run).view(-1, 2)  # "(member run) 2"
    return torch.cat(
        [
            repeat(pictures, "b -> (mr b) 1", mr=len(grid)),
            repeat(grid, "mr two -> (mr b) two", b=len(pictures)),
        ],
        dim=1,
    )
