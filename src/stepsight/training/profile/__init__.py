"""Where the time of a training step goes: what `train.py --profile N` measures.

The loop marks its parts, `with profile.part("forward"):`, which is nothing unless `StepProfile` is
at work. A mark is a look at the clocks and, on a GPU, an event recorded on the stream of the step.
Nobody waits for it: times are read when all steps are done, so that the host runs ahead of the
device as it always does. On a GPU a part therefore lasts as long as the device works or idles in it
(waiting for data that come before they are needed lasts nothing), on a CPU as long as the wall
clock says; the processor time of the process is noted beside either.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, record_function

from stepsight.training.progress import Progress

WARM_UP, TRACED = 5, 3  # steps before those that are measured, and after them
CHECKPOINT = "checkpoint"
PARTS = ("data wait", "forward", "backward", "clip, optimizer", "average", CHECKPOINT)


@dataclass(frozen=True)
class Moment:
    """A moment of a run."""

    wall: float  # seconds
    processor: float  # seconds, of all threads of the process
    event: torch.cuda.Event | None

    @classmethod
    def now(cls, device: torch.device) -> Moment:
        event = None
        if device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
        return cls(time.perf_counter(), time.process_time(), event)

    def seconds(self, since: Moment) -> tuple[float, float]:
        """On the device (on a CPU by the wall clock) and of the processor."""
        if self.event is not None and since.event is not None:
            wall = since.event.elapsed_time(self.event) / 1e3
        else:
            wall = self.wall - since.wall
        return wall, self.processor - since.processor


Span = tuple[Moment, Moment]


@dataclass
class StepProfile:
    """Some steps of a run: first they warm up, then they are measured, then a few are traced."""

    steps: int  # that are measured
    device: torch.device
    progress: Progress
    trace: Path  # file of the chrome trace
    warm_up: int = WARM_UP
    traced: int = TRACED
    taken: int = 0
    spans: dict[str, list[Span]] = field(default_factory=lambda: {name: [] for name in PARTS})
    whole: list[Moment] = field(default_factory=list)  # beginning and end of what is measured
    flops: list[float] = field(default_factory=list)  # spent by then
    peak: int = 0  # bytes at most allocated on a GPU meanwhile

    def __post_init__(self) -> None:
        kinds = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
        kinds = kinds if self.device.type == "cuda" else kinds[:1]
        self._tracer = torch.profiler.profile(activities=kinds, profile_memory=True)

    @property
    def measures(self) -> bool:
        return self.warm_up <= self.taken < self.warm_up + self.steps

    @property
    def traces(self) -> bool:
        return self.warm_up + self.steps <= self.taken and not self.over

    @property
    def over(self) -> bool:
        return self.taken >= self.warm_up + self.steps + self.traced

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        with record_function(name) if self.traces else nullcontext():
            began = Moment.now(self.device)
            yield
            if self.measures or name == CHECKPOINT:
                self.spans[name].append((began, Moment.now(self.device)))

    def stepped(self) -> None:
        """Count a step."""
        self.taken += 1
        if self.taken in (self.warm_up, self.warm_up + self.steps):
            self._note()
        if self.traced and self.taken == self.warm_up + self.steps:
            self._tracer.start()
        if self.traced and self.over:
            self._tracer.stop()
            self.trace.parent.mkdir(exist_ok=True)
            self._tracer.export_chrome_trace(str(self.trace))

    def _note(self) -> None:
        self.whole.append(Moment.now(self.device))
        self.flops.append(self.progress.training_flops)
        if self.device.type == "cuda":
            self.peak = torch.cuda.max_memory_allocated()
            torch.cuda.reset_peak_memory_stats()


_at_work: StepProfile | None = None


@contextmanager
def working(profile: StepProfile) -> Iterator[None]:
    """The loop's marks are this profile's while the block lasts."""
    global _at_work
    _at_work = profile
    try:
        yield
    finally:
        _at_work = None


def part(name: str) -> AbstractContextManager[None]:
    """A part of the step, one of PARTS, while a block lasts."""
    return nullcontext() if _at_work is None else _at_work.part(name)


def stepped() -> bool:
    """Count a step, if a profile is at work: whether one is."""
    if _at_work is not None:
        _at_work.stepped()
    return _at_work is not None


def over() -> bool:
    """Whether the run ends here, because what was to be measured is."""
    return _at_work is not None and _at_work.over
