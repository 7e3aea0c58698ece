"""How members are drawn: from conditions and seeded noise to samples of a task's target.

Noise depends on (seed, key, member, run, step) alone, so that members are nested, and a sample does
not depend on what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Required, TypedDict, Unpack

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from stepsight.coding import Layout, code, working_channels
from stepsight.diffusion.noise import row_noise
from stepsight.diffusion.objective import Diffusion
from stepsight.errors import UserError
from stepsight.models.codec import Codec
from stepsight.pipeline.views import VIEWS, Frame, averaging
from stepsight.tasks.base import Task
from stepsight.types import Batch, ModelInputs

Key = tuple[Any, ...]  # of a picture, a member, and a run after the first


class MemberOptions(TypedDict, total=False):
    """What members of a batch are drawn by."""

    nfe: Required[int]  # model calls per member
    members: Required[int]  # how many, of which
    first: int  # is the number of the first (0)
    seed: int  # of the noise (0)
    chunk_size: int  # the most rows of a forward pass (64)
    # target "b c h w" at working size from which all members set out, noised to the time
    # `strength` (1, see `Diffusion.sample`); without one they set out from pure noise
    start: Tensor | None
    strength: float


@dataclass(frozen=True)
class MemberSampler:
    """What samples targets from noise: a network, its process, and the space it works in."""

    net: nn.Module
    diffusion: Diffusion
    codec: Codec
    layout: Layout

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device

    def draw(
        self, batch: Batch, task: Task, pictures: Sequence[str], **options: Unpack[MemberOptions]
    ) -> Tensor:
        """Samples "e b c h w" of the target for a batch at working size, whose images have the keys
        `pictures`: the members `first` to `first + members - 1`."""
        nfe, members, first = options["nfe"], options["members"], options.get("first", 0)
        seed, strength = options.get("seed", 0), options.get("strength", 1.0)
        chunk_size = options.get("chunk_size", 64)
        self.check(first + members, nfe)
        seen = self._seen(batch, task, nfe)
        if (start := options.get("start")) is not None:
            seen[0].x = self._start(start, task, seen[0])
        keys = [
            (key, member, *([run] if run else []))  # the first run's noise is that of a single run
            for member in range(first, first + members)
            for run in range(task.splits)
            for key in pictures
        ]
        used, channels = working_channels(task, self.codec), task.channels // task.splits
        chunks = []
        for at in range(0, len(keys), chunk_size):
            part = keys[at : at + chunk_size]
            picks = torch.tensor([(at + i) % len(seen[0].label) for i in range(len(part))])
            frame = Frame(task, self.codec, picks // len(batch))
            z = self._trajectory(
                [view.rows(picks) for view in seen], frame, part, nfe, seed, strength
            )
            chunks.append(self.codec.decode(z[:, :used], channels))
        rows = torch.cat(chunks)
        return rearrange(rows, "(e p b) c h w -> e b (p c) h w", e=members, p=task.splits)

    def _start(self, start: Tensor, task: Task, coded: ModelInputs) -> Tensor:
        """A target "b c h w" in working space, rows and channels as those of the noisy target."""
        height, width = (side * self.codec.downsample for side in coded.cond.shape[-2:])
        fitting = (len(coded.cond) // task.splits, task.channels, height, width)
        if start.shape != fitting:
            raise UserError(
                f"a start of shape {tuple(start.shape)}: {task.name} here needs one of {fitting}."
            )
        rows = rearrange(start.to(coded.cond), "b (p c) h w -> (p b) c h w", p=task.splits)
        z = self.codec.encode(rows)
        return F.pad(z, (0, 0, 0, 0, 0, self.layout.target - z.shape[1]))

    def _seen(self, batch: Batch, task: Task, nfe: int) -> list[ModelInputs]:
        """The condition of a batch at working size in each view along the trajectory, encoded."""
        settings = self.diffusion.settings
        seen = [
            code(view.batch(batch, self.codec.downsample), task, self.layout, self.codec, False)
            for view in VIEWS[settings.views][:nfe]
        ]
        for coded in seen:
            if encode := getattr(self.net, "encode", None):
                coded.encoded = encode(coded.cond, coded.label, coded.features)
            scale = settings.temperature if settings.deterministic else 1.0  # of the noise in x
            coded.temperature = coded.cond.new_full((len(coded.label),), scale)
        return seen

    def _trajectory(
        self,
        seen: Sequence[ModelInputs],
        frame: Frame,
        keys: Sequence[Key],
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

        denoisers = [self.diffusion.denoiser(self.net, inputs) for inputs in seen]
        denoise = denoisers[0]
        if len(seen) > 1:
            views = VIEWS[settings.views]
            denoise = averaging(denoisers, views, frame, noise(0), self.diffusion.levels)
        return self.diffusion.sample(denoise, noise, nfe, start=seen[0].x, strength=strength)

    def check(self, members: int, nfe: int) -> None:
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
                f"views {settings.views} average the answers along ddim's trajectory (eta 0), not "
                f"those of {settings.sampler}. Sample with ddim, or with views none."
            )
