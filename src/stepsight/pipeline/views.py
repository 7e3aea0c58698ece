"""Views: further calls see the picture mirrored or shifted, and are brought back and averaged.

A view is another picture of the same scene, so that each call brings new information where calls on
the same picture mostly repeat themselves. Call k sees view k of a fixed list; what it answers is
brought back to the picture's own frame and averaged with the answers so far, and the trajectory
goes on from that mean. Pixels that a shifted view does not show keep the mean so far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.diffusion.trajectory import Denoise
from stepsight.models.codec import Codec
from stepsight.tasks.base import Task
from stepsight.types import Batch


@dataclass(frozen=True)
class View:
    """Mirrored or not, then shifted by whole working cells: to the right and down."""

    mirror: bool = False
    right: int = 0
    down: int = 0

    def batch(self, batch: Batch, cell: int) -> Batch:
        """What a condition is made of, seen so; `cell` pixels are a working cell. Edges repeat."""
        return replace(
            batch,
            image=self._moved(batch.image, cell),
            second=None if batch.second is None else self._moved(batch.second, cell),
            modal=None if batch.modal is None else self._moved(batch.modal, cell),
            extra={name: self._moved(x, cell) for name, x in batch.extra.items()},
        )

    def _moved(self, x: Tensor, cell: int) -> Tensor:
        x = x.flip(-1) if self.mirror else x
        return shifted(x, self.right * cell, self.down * cell)


PLAIN, MIRROR = View(), View(mirror=True)
VIEWS: dict[str, tuple[View, ...]] = {  # of successive calls, from the start again at the end
    "none": (PLAIN,),
    "mirror": (PLAIN, MIRROR),
    "mirror+shift": (
        PLAIN,
        MIRROR,
        View(False, 3, 3),
        View(True, 3, -3),
        View(False, -3, 4),
        View(True, -4, -3),
        View(False, 5, -2),
        View(True, -2, 5),
    ),
}


def shifted(x: Tensor, right: int, down: int) -> Tensor:
    """ "... h w" moved by whole pixels; what comes in repeats the edge."""
    if not right and not down:
        return x
    height, width = x.shape[-2:]
    rows = (torch.arange(height, device=x.device) - down).clamp(0, height - 1)
    columns = (torch.arange(width, device=x.device) - right).clamp(0, width - 1)
    return x[..., rows[:, None], columns]


@dataclass(frozen=True)
class Frame:
    """How targets of a task in working space "r c h w" are seen in a view, and brought back.

    runs: which run of the backbone each row is of, "r".
    """

    task: Task
    codec: Codec
    runs: Tensor

    def seen(self, x: Tensor, view: View) -> Tensor:
        x = self._mirrored(x) if view.mirror else x
        return shifted(x, view.right, view.down)

    def back(self, x: Tensor, view: View) -> Tensor:
        x = shifted(x, -view.right, -view.down)
        return self._mirrored(x) if view.mirror else x

    def inside(self, x: Tensor, view: View) -> Tensor:
        """1 where the view shows the pixel, 0 beyond: "1 1 h w"."""
        height, width = x.shape[-2:]
        shown = x.new_ones(1, 1, height, width)
        shown = F.pad(shown, (-view.right, view.right, -view.down, view.down))
        return shown.flip(-1) if view.mirror else shown

    def _mirrored(self, x: Tensor) -> Tensor:
        """Turned left to right; components along x change their sign, which latents cannot do."""
        if not self.task.mirrors:
            return x.flip(-1)
        channels = self.task.channels // self.task.splits
        used = self.codec.channels(channels)
        signs = torch.ones(self.task.channels)
        signs[[*self.task.mirrors]] = -1
        signs = signs.unflatten(0, (self.task.splits, channels))[self.runs].to(x)  # "r c"
        target = self.codec.decode(x[:, :used], channels).flip(-1) * signs[:, :, None, None]
        return torch.cat([self.codec.encode(target), x[:, used:].flip(-1)], dim=1)


def averaging(
    denoisers: Sequence[Denoise],
    views: Sequence[View],
    frame: Frame,
    start: Tensor,
    levels: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
) -> Denoise:
    """`denoise(x, t)` whose k-th call sees view k and answers the mean of all answers so far.

    denoisers: one per view, of the condition seen so. The trajectory is alpha mean + sigma start,
    in any view: DDIM's, with the mean for the answer and the noise that it set out from.
    levels(t, x): alpha and sigma.
    """
    calls = 0
    total, weight = torch.zeros_like(start), start.new_zeros(1, 1, *start.shape[-2:])

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls, total, weight
        which = calls % len(views)
        view = views[which]
        if calls:
            alpha, sigma = levels(t, x)
            x = alpha * frame.seen(total / weight, view) + sigma * frame.seen(start, view)
        answer = frame.back(denoisers[which](x, t), view)
        shown = frame.inside(x, view)
        total, weight, calls = total + answer * shown, weight + shown, calls + 1
        return total / weight

    return denoise
