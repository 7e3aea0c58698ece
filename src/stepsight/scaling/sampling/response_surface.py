"""What a sweep says of test-time settings, those that were measured and those between.

A setting between is predicted by local interpolation or by the fitted surface, whichever errs less
at settings left out; where that error cannot be measured, nothing between is predicted.

An expectation is for as many fresh images as the sweep had. The deviation of its 90 % interval adds
the sampling of those images, that of the sweep's own, and the error at settings left out:

    s^2 = 2 se^2 + loo^2
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from stepsight.diffusion.config import SAMPLERS, spendable
from stepsight.measures import measure, number
from stepsight.scaling.fitting.quality import Verdict
from stepsight.scaling.intervals import PREDICTIVE, half_width
from stepsight.scaling.sampling.axes import deviations_of, errors_of, joint_verdict
from stepsight.scaling.sampling.interpolation import (
    ErrorAt,
    Setting,
    SettingValues,
    interpolate,
    leave_one_out,
    root_mean_square,
)
from stepsight.scaling.sampling.surface import fit_surface, left_out
from stepsight.scaling.sampling.sweeps import Cell, Family


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A setting, what it costs an image, and what it promises."""

    checkpoint: str
    size: str
    sampler: str
    spacing: str
    schedule: str
    merge: str
    temperature: str
    views: str
    nfe: int
    members: int
    total_calls: int
    gflop_per_image: float
    ms_per_image: float
    latency_ms: float
    metric: str
    expected: float
    lo: float  # of the predictive interval; nan where the sweep has no intervals
    hi: float
    level: float
    measured: bool  # or predicted from its neighbours

    def __str__(self) -> str:
        run = Family.of(vars(self))
        source = "measured" if self.measured else "interpolated"
        return (
            f"{run}, NFE {self.nfe} x {self.members} members: {measure(self.metric).label} "
            f"{number(self.expected)} ({self.level:.0%} interval {number(self.lo)} to "
            f"{number(self.hi)}, {source})"
        )


class ResponseSurface:
    """One metric over NFE and members, all else the same."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        """`cells` are those of one family and metric, at least one."""
        self.cells = cells
        self.errors = {cell.setting: cell.error for cell in cells}
        self._deviations = deviations_of(cells)
        self._gflop = {cell.setting: cell.gflop_per_image for cell in cells}
        self._ms = {cell.setting: cell.ms_per_image for cell in cells}
        self._latency = {cell.setting: cell.latency_ms for cell in cells}

    def choices(self) -> list[Choice]:
        """All that can be promised: what was measured, and what lies between and can be spent."""
        sampler = self.cells[0].sampler
        members = _span(count for _, count in self.errors)
        between = [
            (nfe, count)
            for nfe in _span(nfe for nfe, _ in self.errors)
            if sampler in SAMPLERS and spendable(sampler, nfe)
            for count in members
        ]
        settings = dict.fromkeys([*self.errors, *between])
        return [choice for setting in settings if (choice := self.choice(setting))]

    def choice(self, at: Setting, *, fresh: bool = True) -> Choice | None:
        """What to expect at (NFE, members), on fresh images or on those of the sweep; None where
        the sweep does not say."""
        measured = at in self.errors
        predictor, doubt = (self.errors.__getitem__, 0.0) if measured else self._model
        if not (measured or math.isfinite(interpolate(self.errors, at) + doubt)):
            return None
        first, error = self.cells[0], predictor(at)
        sampling = 2 * interpolate(self._deviations, at) ** 2 if fresh else 0.0
        half = half_width(PREDICTIVE) * math.sqrt(sampling + doubt**2)
        least = max(error - half, min(error, 0.0))  # no error is below 0
        value, *ends = (self._value(end) for end in (error, least, error + half))
        return Choice(
            **first.family._asdict(),
            nfe=at[0],
            members=at[1],
            total_calls=at[0] * at[1],
            gflop_per_image=interpolate(self._gflop, at, axis=float),
            ms_per_image=interpolate(self._ms, at, axis=float),
            latency_ms=interpolate(self._latency, at, axis=float),
            metric=first.metric,
            expected=value,
            lo=min(ends),
            hi=max(ends),
            level=PREDICTIVE,
            measured=measured,
        )

    def _value(self, error: float) -> float:
        """The metric of an error."""
        return measure(self.cells[0].metric).value(error)

    @cached_property
    def verdict(self) -> Verdict:
        """On both axes together."""
        points = errors_of(self.cells)
        return joint_verdict(points, fit_surface(points, self._deviations))

    @cached_property
    def _model(self) -> tuple[ErrorAt, float]:
        """The better predictor, and its root mean square error at settings left out. Those at the
        edges are not judged by: without them, nothing is predicted there."""
        locally = leave_one_out(self.errors, _interpolation)
        inner = [setting for setting, error in locally.items() if math.isfinite(error)]
        offers: list[tuple[float, ErrorAt]] = [
            (root_mean_square(locally[s] for s in inner), _interpolation(self.errors))
        ]
        if surface := fit_surface(self.errors, self._deviations, bootstrap=0):
            smooth = left_out(surface, self.errors, self._deviations)
            offers.append((root_mean_square(smooth[s] for s in inner), surface.predict))
        doubt, predictor = min(offers, key=lambda offer: offer[0])
        return predictor, doubt


def _interpolation(points: SettingValues) -> ErrorAt:
    return lambda at: interpolate(points, at)


def _span(values: Iterable[int]) -> range:
    known = set(values)
    return range(min(known), max(known) + 1)
