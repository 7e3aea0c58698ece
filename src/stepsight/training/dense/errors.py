"""Errors of the rows of a micro-batch, of all its tasks in one forward pass.

Which rows there are is said in `training.dense.rows`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stepsight.coding import working_channels
from stepsight.diffusion.objective import Diffusion
from stepsight.models.codec import Codec
from stepsight.models.moe import expert_usage, routing
from stepsight.rowwise import picked_rows
from stepsight.tasks.base import Task
from stepsight.training.dense.rows import Rows
from stepsight.types import Batch, ModelInputs

KINDS = 2  # of errors that are averaged apart: of the first call, of later ones


@dataclass
class Coding:
    """A task's pictures of a micro-batch as the loss needs them."""

    task: Task
    coded: ModelInputs
    t: Tensor  # "b", level of the row below t = 1
    noise: Tensor  # "b c h w"
    importance: Tensor | None = None  # "b ...", of the task's own error; None: squared errors
    batch: Batch | None = None  # the truth, for errors in physical space

    @property
    def used(self) -> int:
        """Channels of its target."""
        return self.task.channels // self.task.splits

    def noised(self, diffusion: Diffusion) -> tuple[Tensor, Tensor, Tensor]:
        """The truth at the levels drawn, the levels, and the noise."""
        assert self.coded.x is not None
        return diffusion.corrupt(self.coded.x, self.noise, self.t), self.t, self.noise

    def own_errors(self, answers: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """The task's own error of answers "r c h w" to some of its rows, "r"."""
        x, valid, importance, used = self.coded.x, self.coded.valid, self.importance, self.used
        assert x is not None and valid is not None and importance is not None
        weight = (valid * importance)[rows, :used]
        return self.task.errors(answers[:, :used].float(), x[rows, :used], weight)

    def counts(self, rows: Rows) -> Tensor:
        """Valid entries "2" of the pictures with a first call, and of those with a later one."""
        assert self.coded.valid is not None
        each = self.coded.valid.flatten(1).sum(dim=1).unflatten(0, (self.task.splits, -1)).sum(0)
        return torch.stack([each[rows.start].sum(), each[rows.later].sum()])


class RowErrors(nn.Module):
    """Errors of a micro-batch of all tasks, in one forward pass of one module: what DDP wraps.

    The condition of a picture is encoded once for all its rows. After a forward pass `balance` is
    the load-balance loss of the experts, and `usage` whom they served, by task "layers experts".
    """

    def __init__(self, net: nn.Module, diffusion: Diffusion, codec: Codec) -> None:
        super().__init__()
        self.net, self.diffusion = net, diffusion
        self._codec = [codec]  # in a list, so that its weights are none of this module's
        self.usage, self.routing = dict[str, Tensor](), None

    def counts(self, parts: Sequence[Coding], rows: Rows) -> Tensor:
        """What the errors are divided by once both are summed over the batch, "tasks 2"."""
        if self.diffusion.settings.objective == "denoising":
            return torch.stack([part.counts(rows) for part in parts])
        images = [part.t.new_full((1,), len(part.t) / part.task.splits) for part in parts]
        return F.pad(torch.stack(images), (0, 1))

    def forward(self, parts: Sequence[Coding], rows: Rows) -> Tensor:
        """Summed errors "tasks 2" of first and of later calls."""
        self.usage, self.routing = {}, None
        if self.diffusion.settings.objective == "end_to_end":
            return torch.stack([self._one_call(part) for part in parts])
        whole = joined(self.net, parts)
        t, noise = (torch.cat([getattr(part, name) for part in parts]) for name in ("t", "noise"))
        errors = noise.new_zeros(len(parts), KINDS)
        begun = places(parts, rows.start)
        start = noise[begun] * rows.noisy.repeat(blocks(parts))[:, None, None, None]
        answers = start
        if len(begun):
            first = picked(whole, parts, begun, rows.noisy.repeat(blocks(parts)))
            answers, squared = self._answered(parts, first, start, torch.ones_like(t[begun]))
            self._note(0, parts, rows.start)
            errors[:, 0] = _by_task(parts, rows.start, answers, squared)
        if len(rows.later):
            errors[:, 1] = self._later(parts, rows, whole, t, noise, start, answers.detach())
        return errors

    def _own(self, parts: Sequence[Coding]) -> bool:
        """Whether the tasks' own errors are asked for, by all of them."""
        return parts[0].importance is not None

    def _answered(
        self,
        parts: Sequence[Coding],
        coded: ModelInputs,
        x: Tensor,
        t: Tensor,
        noise: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Answers, and their squared errors where these are asked for."""
        if self._own(parts):
            return self.diffusion.answer(self.net, coded, x, t), None
        return self.diffusion.errors(self.net, coded, x, t, noise)[:2]

    def _note(self, kind: int, parts: Sequence[Coding], pictures: Tensor) -> None:
        """Keep what the experts did in a call."""
        if (usage := expert_usage(self.net)) is None:
            return
        if (routed := routing(self.net)) is not None:
            kinds = torch.arange(KINDS, device=pictures.device)[:, None, None] == kind
            mass, slots = (torch.where(kinds, value, 0) for value in routed)
            before = self.routing or (0, 0)
            self.routing = before[0] + mass, before[1] + slots
        served = usage.split([part.task.splits * len(pictures) for part in parts], dim=1)
        for name, tokens in zip((part.task.name for part in parts), served):
            before = self.usage.get(name, torch.zeros_like(tokens[:, 0]))
            self.usage[name] = before + tokens.sum(dim=1)

    def _one_call(self, part: Coding) -> Tensor:
        assert part.batch is not None, "the cache is refused for this objective"
        codec, task = self._codec[0], part.task
        errors = one_call_errors(self.diffusion, codec, self.net, task, part.coded, part.batch)
        self._note(0, [part], part.t[: len(part.t) // task.splits])
        return F.pad(errors.sum()[None], (0, 1))

    def _later(
        self,
        parts: Sequence[Coding],
        rows: Rows,
        whole: ModelInputs,
        t: Tensor,
        noise: Tensor,
        start: Tensor,
        answers: Tensor,
    ) -> Tensor:
        """Errors "tasks" of the rows below t = 1: rollouts, and noised truth."""
        at = places(parts, rows.later)
        temperature = torch.ones_like(t[at])
        assert whole.x is not None
        x, eps = self.diffusion.corrupt(whole.x[at], noise[at], t[at]), noise[at]
        if len(rows.rollouts):
            count, width = blocks(parts), len(rows.later)
            inside = torch.arange(len(rows.rollouts), device=t.device)
            rolling = _in_blocks(inside, count, width)
            begun = _in_blocks(rows.rollouts, count, len(rows.start))
            temperature[rolling] = rows.noisy[rows.rollouts].repeat(count)
            inputs = picked(whole, parts, at[rolling], temperature[rolling])
            x0, start = answers[begun], start[begun]
            x_t = self._rolled_out(inputs, x0, start, t[at][rolling], rows, count)
            x = x.index_copy(0, rolling, x_t)
            if not self._own(parts):
                alpha, sigma = self.diffusion.levels(t[at][rolling], x_t)
                implied = (x_t - alpha * whole.x[at][rolling]) / sigma
                eps = eps.index_copy(0, rolling, implied)
        coded = picked(whole, parts, at, temperature)
        answers, squared = self._answered(parts, coded, x, t[at], eps)
        self._note(1, parts, rows.later)
        return _by_task(parts, rows.later, answers, squared)

    @torch.no_grad()
    def _rolled_out(
        self, coded: ModelInputs, x0: Tensor, start: Tensor, t: Tensor, rows: Rows, count: int
    ) -> Tensor:
        """Where DDIM's trajectory from `start` with the answer x0 is at `t`; for deep rollouts by
        way of a call in between."""
        diffusion = self.diffusion
        if rows.deep is None:
            return diffusion.corrupt(x0, start, t)
        before = t + (1 - t) * rows.deep.repeat(count)
        x = diffusion.corrupt(x0, start, before)
        x0 = diffusion.answer(self.net, coded, x, before)
        alpha, sigma = diffusion.levels(before, x)
        return diffusion.corrupt(x0, (x - alpha * x0) / sigma, t)


def one_call_errors(
    diffusion: Diffusion, codec: Codec, net: nn.Module, task: Task, coded: ModelInputs, batch: Batch
) -> Tensor:
    """The error "b" of end-to-end fine-tuning (Garcia et al. 2025): one step from the noisiest
    level, decoded, against the truth in physical space. The decoder's activations are recomputed
    rather than kept."""
    z = diffusion.one_step(net, coded)[:, : working_channels(task, codec)].float()
    x = checkpoint(codec.decode, z, task.channels // task.splits, use_reentrant=False)
    return task.loss(rearrange(x, "(p b) c h w -> b (p c) h w", p=task.splits), batch)


def joined(net: nn.Module, parts: Sequence[Coding]) -> ModelInputs:
    """Rows of several tasks below one another, with what the network makes of their conditions."""
    coded = [part.coded for part in parts]
    x, valid = (_cat([getattr(one, name) for one in coded]) for name in ("x", "valid"))
    cond, label = (torch.cat([getattr(one, name) for one in coded]) for name in ("cond", "label"))
    features = _cat([one.features for one in coded])
    look = next((one.look for one in coded if one.look is not None), None)
    rows = featured(parts, len(label) // blocks(parts))
    encoded = net.encode(cond, label, features, rows, pictures(parts))  # type: ignore[operator]
    return ModelInputs(x, cond, features, valid, label, rows, look=look, encoded=encoded)


def featured(parts: Sequence[Coding], width: int) -> Tensor | None:
    """Which rows bring features, or look anew, where a pass of a task has `width` of them."""
    ends = [*accumulate(part.task.splits * width for part in parts)]
    some = [
        torch.arange(start, end, device=part.t.device)
        for part, start, end in zip(parts, [0, *ends], ends)
        if part.coded.features is not None or part.coded.look is not None
    ]
    return torch.cat(some) if some else None


def pictures(parts: Sequence[Coding]) -> tuple[Tensor, Tensor]:
    """A row for each different picture, and the place of every row's own among these: all tasks
    have the same ones, or a blank where they show none."""
    width = len(parts[0].t) // parts[0].task.splits
    inside = torch.arange(width, device=parts[0].t.device)
    starts = [blocks(parts[:at]) * width for at in range(len(parts))]
    shown = [part.task.images > 0 for part in parts]
    blank = int(not all(shown))
    first = [starts[shown.index(False)] + inside[:1]] if blank else []
    first += [starts[shown.index(True)] + inside] if any(shown) else []
    own = [inside + blank if one else torch.zeros_like(inside) for one in shown]
    return torch.cat(first), torch.cat([x.repeat(part.task.splits) for x, part in zip(own, parts)])


def picked(
    whole: ModelInputs, parts: Sequence[Coding], rows: Tensor, temperature: Tensor | None = None
) -> ModelInputs:
    """Some rows of joined ones, equally many of each pass, in their order."""
    assert whole.x is not None and whole.valid is not None and whole.encoded is not None
    return ModelInputs(
        whole.x[rows],
        whole.cond[rows],
        None,  # encoded already
        whole.valid[rows],
        whole.label[rows],
        featured(parts, len(rows) // blocks(parts)),
        look=whole.look,
        temperature=temperature,
        encoded=tuple(picked_rows(maps, rows) for maps in whole.encoded),
    )


def blocks(parts: Sequence[Coding]) -> int:
    """Runs of the backbone over the pictures: the passes of all tasks."""
    return sum(part.task.splits for part in parts)


def places(parts: Sequence[Coding], pictures: Tensor) -> Tensor:
    """The rows that some pictures have among those of all tasks and passes."""
    each = len(parts[0].t) // parts[0].task.splits
    return _in_blocks(pictures, blocks(parts), each)


def _in_blocks(inside: Tensor, count: int, width: int) -> Tensor:
    """The places `inside` of `count` blocks that are `width` long."""
    starts = torch.arange(count, device=inside.device) * width
    return (starts[:, None] + inside).flatten()


def _by_task(
    parts: Sequence[Coding], pictures: Tensor, answers: Tensor, squared: Tensor | None
) -> Tensor:
    """Sums "tasks" of the rows' errors: the tasks' own of the answers, or the squared ones."""
    sums, at = [], 0
    for part in parts:
        passes = part.task.splits
        rows = slice(at, at := at + passes * len(pictures))
        if squared is not None:
            sums.append(squared[rows].sum())
            continue
        mine = _in_blocks(pictures, passes, len(part.t) // passes)
        sums.append(part.own_errors(answers[rows], mine).sum())
    return torch.stack(sums)


def _cat(values: Sequence[Tensor | None]) -> Tensor | None:
    present = [value for value in values if value is not None]
    return torch.cat(present) if present else None
