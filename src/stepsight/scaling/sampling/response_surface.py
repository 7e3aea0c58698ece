"""What a sweep says of test-time settings, those that were measured and those between.

A measured setting is drawn towards what all others say of it, by its noise (`shrinkage`). What they
say is interpolation between them or the surface through them, whichever errs less at settings left
out; at the edges only the surface says something. Settings between are predicted by the same, and
not at all where its error cannot be measured.

An expectation is for as many fresh images as the sweep had. The deviation of its 90 % interval adds
the sampling of those images, that of the sweep's own, and the error at settings left out:

    s^2 = 2 se^2 + loo^2
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from stepsight.diffusion.config import SAMPLERS, spendable
from stepsight.measures import measure, number
from stepsight.scaling.fitting.quality import Verdict
from stepsight.scaling.intervals import PREDICTIVE, half_width
from stepsight.scaling.sampling.axes import deviations_of, errors_of, joint_verdict
from stepsight.scaling.sampling.interpolation import (
    Setting,
    interpolate,
    leave_one_out,
    neighbours,
    root_mean_square,
)
from stepsight.scaling.sampling.shrinkage import (
    Array,
    beside_the_others,
    scatter_of_others,
    shrunk,
)
from stepsight.scaling.sampling.surface import Surface, fit_surface, influence, left_out
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
    seen: float  # the value that was measured; nan between settings
    own: float  # share of that value in the expectation, the rest is what the others say; 0 between
    basis: str  # what the expectation rests on, in words

    def __str__(self) -> str:
        run = Family.of(vars(self))
        return (
            f"{run}, NFE {self.nfe} x {self.members} members: {measure(self.metric).label} "
            f"{number(self.expected)} ({self.level:.0%} interval {number(self.lo)} to "
            f"{number(self.hi)}, {self.basis})"
        )


class _Kept(NamedTuple):
    """An error less its luck, and the share that its measurement has in it."""

    error: float
    own: float


class ResponseSurface:
    """One metric over NFE and members, all else the same."""

    def __init__(self, cells: Sequence[Cell], covariance: Array | None = None) -> None:
        """`cells` are those of one family and metric, at least one; `covariance` "c c" that of the
        noise of their errors, where the images are at hand (`shrinkage`)."""
        self.cells = cells
        self.errors = {cell.setting: cell.error for cell in cells}
        self._deviations = deviations_of(cells)
        self._covariance = covariance
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
        """What to expect at (NFE, members), on fresh images or on those of the sweep, where the
        settings measured stand as they are; None where the sweep does not say."""
        seen = self.errors.get(at)
        kept, doubt = self._expected(at, fresh)
        if seen is None and not math.isfinite(interpolate(self.errors, at) + doubt):
            return None
        first, error = self.cells[0], kept.error
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
            measured=seen is not None,
            seen=math.nan if seen is None else self._value(seen),
            own=kept.own,
            basis=self._basis(seen, kept.own),
        )

    def loads(self, at: Sequence[Setting]) -> Array:
        """How much of the noise of each cell is in the expectations at some settings, "m c"."""
        place = {setting: i for i, setting in enumerate(self.errors)}
        kept = np.zeros((len(place), len(place)))
        towards = self._said([*self.errors], left_out=True)
        for setting, i in place.items():
            own = self._kept[setting].own
            kept[i] = (1 - own) * towards[i]
            kept[i, i] += own
        between = self._said(at)
        between = between if self._smooth else between @ kept
        rows = [kept[place[s]] if s in place else row for s, row in zip(at, between)]
        return np.array(rows)

    def _said(self, at: Sequence[Setting], left_out: bool = False) -> Array:
        """How much of each error is in what the better predictor says of some settings, "m c", at
        the edges the surface; left_out: of each from all others."""
        said = np.zeros((len(at), len(self.errors)))
        if self._surface:
            said = influence(self._surface, self.errors, self._deviations, at)
        if self._smooth:
            return said
        order = [*self.errors]
        for i, setting in enumerate(at):
            others = [s for s in order if not (left_out and s == setting)]
            shares = neighbours(others, setting)
            if shares:
                said[i] = [shares.get(other, 0.0) for other in order]
        return said

    @cached_property
    def luck(self) -> Array:
        """The variance "c" of the noise of each cell that is its own, as far as it is known."""
        scatters = [scatter_of_others(left) for left in self._left]
        return np.nan_to_num(np.fmin.reduce([self._noise, *scatters]))

    @cached_property
    def verdict(self) -> Verdict:
        """On both axes together."""
        points = errors_of(self.cells)
        return joint_verdict(points, fit_surface(points, self._deviations))

    def _expected(self, at: Setting, fresh: bool) -> tuple[_Kept, float]:
        """The error at a setting less its luck, and the doubt about it besides its sampling."""
        if at in self.errors:
            return (self._kept[at] if fresh else _Kept(self.errors[at], 1.0)), 0.0
        if self._smooth and self._surface:
            return _Kept(self._surface.predict(at), 0.0), self._doubt
        points = {s: kept.error for s, kept in self._kept.items()} if fresh else self.errors
        return _Kept(interpolate(points, at), 0.0), self._doubt

    def _basis(self, seen: float | None, own: float) -> str:
        """What an expectation rests on."""
        if seen is None:
            return "from the fitted surface" if self._smooth else "interpolated"
        if own > 0.995:
            return "measured"
        return f"measured {number(self._value(seen))}, drawn {1 - own:.0%} towards what others say"

    def _value(self, error: float) -> float:
        """The metric of an error."""
        return measure(self.cells[0].metric).value(error)

    @cached_property
    def _surface(self) -> Surface | None:
        return fit_surface(self.errors, self._deviations, bootstrap=0)

    @cached_property
    def _locally(self) -> dict[Setting, float]:
        """Errors of interpolation at settings left out; nan at the edges."""
        return leave_one_out(self.errors, lambda points: lambda at: interpolate(points, at))

    @cached_property
    def _smoothly(self) -> dict[Setting, float]:
        """Errors of the surface at settings left out; {} without one."""
        surface = self._surface
        return left_out(surface, self.errors, self._deviations) if surface else {}

    @cached_property
    def _doubts(self) -> tuple[float, float]:
        """Root mean square errors of interpolation and surface at settings left out. Those at the
        edges are not judged by: without inner ones nothing between is predicted."""
        inner = [setting for setting, error in self._locally.items() if math.isfinite(error)]
        local = root_mean_square(self._locally[s] for s in inner)
        smooth = root_mean_square(self._smoothly[s] for s in inner) if self._smoothly else math.inf
        return local, smooth

    @property
    def _smooth(self) -> bool:
        """Whether settings between are read off the surface, and not interpolated."""
        local, smooth = self._doubts
        return smooth < local

    @property
    def _doubt(self) -> float:
        return min(self._doubts)

    @cached_property
    def _left(self) -> tuple[Array, Array]:
        """What each error is above what interpolation and the surface say of it from all others,
        "c" each; nan where they say nothing."""
        local, smooth = (
            np.array([left.get(setting, math.nan) for setting in self.errors])
            for left in (self._locally, self._smoothly)
        )
        return local, smooth

    @cached_property
    def _noise(self) -> Array:
        """The variance "c" of the noise of each cell beside the others."""
        if self._covariance is not None:
            return beside_the_others(self._covariance)
        return np.array([self._deviations[setting] ** 2 for setting in self.errors])

    @cached_property
    def _kept(self) -> dict[Setting, _Kept]:
        """Drawn towards the better of interpolation and surface, at the edges the surface."""
        errors = np.array([*self.errors.values()])
        local, smooth = (np.stack(shrunk(errors, left, self._noise)) for left in self._left)
        inner = np.isfinite(self._left[0]) & ~np.bool_(self._smooth)
        values, own = np.where(inner, local, smooth)
        return dict(zip(self.errors, map(_Kept, values.tolist(), own.tolist())))


def _span(values: Iterable[int]) -> range:
    known = set(values)
    return range(min(known), max(known) + 1)
