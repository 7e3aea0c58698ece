"""Does a file answer as the pipeline does, and how fast? Side by side, in one run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from stepsight.exporting.files import Run
from stepsight.exporting.graph import AnswerGraph
from stepsight.pipeline.working import Size

BAR = 1e-4  # of a difference, to 1 or to what is larger
DECIDED = 1e-3  # share of the pixels where rounding may decide otherwise between classes or votes
PICTURES = (7, 8)  # seeds of what is compared: none that the graph was recorded with
TURNS, SECONDS = 15, 4.0  # of the clock, at most


@dataclass(frozen=True)
class Parity:
    """Of pictures of one size, the worst of several."""

    size: Size
    difference: float  # |file - pipeline| / max(1, |pipeline|) over all outputs
    beyond: float  # share of the numbers that are farther apart than the bar
    allowed: float  # of those

    @property
    def holds(self) -> bool:
        return self.beyond <= self.allowed

    def __str__(self) -> str:
        height, width = self.size
        said = f"{height} x {width}: largest difference {self.difference:.1e}, bar {BAR:.0e}"
        if not self.allowed:
            return said
        return f"{said}, beyond it {self.beyond:.2%} of the pixels, of {self.allowed:.1%}"


@dataclass(frozen=True)
class SideBySide:
    """Median seconds a picture, taken in turns on as many threads."""

    file: float
    pipeline: float
    turns: int


def compare(answer: AnswerGraph, run: Run, size: Size) -> Parity:
    """The answers of a file beside those of the pipeline. A difference counts as in
    `torch.isclose` with the bar for both tolerances, nearly."""
    apart = []
    for seed in PICTURES:
        given = answer.example(size, seed)
        for found, expected in zip(run(given), answer.expected(given), strict=True):
            apart.append(_apart(found, expected))
    every = torch.cat(apart)
    return Parity(size, every.max().item(), (every > BAR).double().mean().item(), _allowed(answer))


def clock(answer: AnswerGraph, run: Run, size: Size) -> SideBySide:
    """Seconds of the file and of the pipeline."""
    given = answer.example(size, PICTURES[0])
    ways: tuple[Callable[[], object], ...] = (lambda: run(given), lambda: answer.expected(given))
    taken: tuple[list[float], ...] = ([], [])
    for way in ways:
        way()
    ends = time.perf_counter() + SECONDS
    while len(taken[0]) < TURNS and (not taken[0] or time.perf_counter() < ends):
        for way, seconds in zip(ways, taken):
            began = time.perf_counter()
            way()
            seconds.append(time.perf_counter() - began)
    return SideBySide(median(taken[0]), median(taken[1]), len(taken[0]))


def _apart(found: Tensor, expected: Tensor) -> Tensor:
    assert found.shape == expected.shape, f"{found.shape} in place of {expected.shape}"
    found, expected = found.double().flatten(), expected.double().flatten()
    apart = (found - expected).abs() / expected.abs().clamp_min(1)
    return apart.nan_to_num(nan=torch.inf)


def _allowed(answer: AnswerGraph) -> float:
    """Where an answer is a choice, numbers that nearly tie are not the graph's fault."""
    rule = getattr(answer.task, "merge_by", "")
    chosen = rule in ("vote", "closest", "medoid") or answer.task.unit == "class ids"
    return DECIDED if chosen else 0.0
