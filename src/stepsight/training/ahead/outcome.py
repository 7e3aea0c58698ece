"""What became of a step, which the host hears when the device is done with it.

Loss, gradient norm and the verdict on them stay on the device, which applies the update or not by
itself. Their copies are read one step later: when the next gradient is under way, and before the
next update. So the device always has work while the host waits, and what follows from an outcome
(the average, the usual norm, going back) is what it would be at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stepsight.data.mixture import Draw
from stepsight.training.health.recovery import Recovery
from stepsight.training.learner import Learner
from stepsight.training.log import Log
from stepsight.training.progress import Progress


class Late:
    """Numbers "n" on their way from the device to the host."""

    def __init__(self, values: Tensor) -> None:
        self._values = values.to("cpu", non_blocking=True)  # into pinned memory
        self._there = torch.cuda.Event() if values.is_cuda else None
        if self._there is not None:
            self._there.record()

    def read(self) -> list[float]:
        """They themselves, waited for if need be."""
        if self._there is not None:
            self._there.synchronize()
        return self._values.tolist()


@dataclass
class Outcomes:
    """The outcomes of the steps of a run: at most one of them has not been heard yet."""

    learner: Learner
    progress: Progress
    recovery: Recovery
    log: Log
    stop: bool = False  # asked for by any process, up to what was heard
    save: bool = False  # due by the clock of any of them since it was last unset
    _pending: tuple[Draw, Late] | None = None

    def launched(self, draw: Draw, told: Tensor, verdict: Tensor) -> None:
        """Note a step whose update is under way. told: what `gradient` gave; verdict: what
        `Learner.descend` gave."""
        assert self._pending is None, "the outcome of a step is heard before the next update"
        self._pending = draw, Late(torch.cat([told, verdict]))

    def settle(self) -> bool:
        """Hear of the latest step, if that is still to come, and do what follows from it: whether
        older weights were gone back to. Raises UserError where the run stops for its faults."""
        if self._pending is None:
            return False
        (draw, late), self._pending = self._pending, None
        *losses, stop, save, loss, norm, ok = late.read()
        self.stop, self.save = self.stop or stop > 0, self.save or save > 0
        before = self.progress.rewinds
        if fault := self.learner.settle(self.progress, loss, norm, ok > 0):
            self.recovery.met(fault, draw)
        else:
            self.log.learnt(dict(zip(draw.stream.tasks, losses)))
        return self.progress.rewinds > before
