"""Two settings on the same images: the change of a metric on its own terms, with its interval.

A metric is a function of sums over images: a mean is the quotient of the values' sum and their
number, and a pooled protocol divides summed pixels or scores a summed confusion matrix. So both
settings are summed over the same resampled images and the function is taken of either sum:

    gain* = s (of(sum of rows*, other) - of(sum of rows*, base)) / |of(sum of rows, base)|

with s = 1 where higher is better, else -1. Images are in the order of their keys, and resample i
draws row i of `np.random.default_rng(0).integers(n, size=(RESAMPLES, n))`. Intervals are the 2.5
and 97.5 percentiles of the draws (Efron & Tibshirani 1993, ch. 13), p the share of draws on the
wrong side, (1 + #) / (RESAMPLES + 1) (Davison & Hinkley 1997, eq. 4.11).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stepsight.measures import measure
from stepsight.scaling.intervals import LEVEL, Statistic, quotient, resamples_of, tails
from stepsight.scaling.sampling.interpolation import Setting
from stepsight.scaling.sampling.sweeps import Family

RESAMPLES = 9999  # so that p can be as small as 1e-4, which a correction for many claims needs
ALPHA = 0.025  # of a one-sided p: 5 % in all
MIN_IMAGES = 8  # fewer decide nothing: eight of one sign have p = 1/256, resampling pretends less
Averaged = Literal["per image", "pooled"]
Numbers = NDArray[np.float64]


class FamilySetting(NamedTuple):
    """A measured setting: where on the grid, and of which family."""

    family: Family
    nfe: int
    members: int

    @property
    def calls(self) -> int:
        """Model calls an image."""
        return self.nfe * self.members

    @property
    def temperature(self) -> float:
        return float(self.family.temperature)


@dataclass(frozen=True, kw_only=True)
class MetricTable:
    """One metric of one task, of one family at all its settings, image by image."""

    task: str
    metric: str
    family: Family
    keys: Sequence[str]  # of the images, each once
    settings: Mapping[Setting, Numbers]  # rows "n k"; nan where an image was not measured
    of: Statistic = quotient  # sums of rows "r k" -> "r"
    averaging: Averaged = "per image"
    main: bool = True  # the metric the task is judged by
    constant: Numbers | None = None  # rows "n k" of the constant predictor

    @property
    def places(self) -> dict[FamilySetting, Numbers]:
        """The rows by place."""
        return {
            FamilySetting(self.family, *setting): rows for setting, rows in self.settings.items()
        }


@dataclass(frozen=True)
class PairedChange:
    """From one setting to another on the same images, relative to the value of the first."""

    value: float  # (other - base) / |base|; nan from 0
    lo: float  # 95 % interval
    hi: float
    better: float  # one-sided p of an improvement beyond the margin allowed, and
    worse: float  # of the contrary
    n: int  # images

    @property
    def p(self) -> float:
        """One-sided, in the direction that the change has; 1 where there are too few images."""
        return min(self.better, self.worse)


@dataclass(frozen=True)
class Paired:
    """Settings of one metric on the images that all of them measured."""

    metric: str
    of: Statistic
    rows: dict[FamilySetting, Numbers]  # "n k" each

    @property
    def n(self) -> int:
        """Images."""
        return len(next(iter(self.rows.values()), ()))

    def best(self, places: Collection[FamilySetting]) -> FamilySetting:
        """The first of the best."""
        return max(places, key=lambda place: _sign(self.metric) * self.values[place])

    def change(
        self, base: FamilySetting, other: FamilySetting, margin: float = 0.0
    ) -> PairedChange:
        """`margin`: so much worse, relative to the base, still counts as no harm."""
        before, after = self.values[base], self.values[other]
        scale = abs(before) or math.nan
        if self.n < 2:
            return PairedChange((after - before) / scale, math.nan, math.nan, 1.0, 1.0, self.n)
        draws = self._draws[other] - self._draws[base]
        draws = draws[np.isfinite(draws)]
        lo, hi = np.quantile(draws, tails(LEVEL)) if len(draws) else (math.nan, math.nan)
        gains = _sign(self.metric) * draws + margin * abs(before)
        return PairedChange(
            value=(after - before) / scale,
            lo=float(lo) / scale,
            hi=float(hi) / scale,
            better=(1 + int((gains <= 0).sum())) / (len(draws) + 1),
            worse=(1 + int((gains >= 0).sum())) / (len(draws) + 1),
            n=self.n,
        )

    @cached_property
    def values(self) -> dict[FamilySetting, float]:
        """The metric of these images; nan where there are none."""
        sums = {place: rows.sum(axis=0, keepdims=True) for place, rows in self.rows.items()}
        return {
            place: float(self.of(total)[0]) if self.n else math.nan for place, total in sums.items()
        }

    @cached_property
    def _draws(self) -> dict[FamilySetting, Numbers]:
        """The metric of every resample, "r"."""
        parts: dict[FamilySetting, list[Numbers]] = {place: [] for place in self.rows}
        for counts in resamples_of(self.n, RESAMPLES, seed=0):
            for place, rows in self.rows.items():
                parts[place].append(self.of(counts @ rows))
        return {place: np.concatenate(part) for place, part in parts.items()}


def paired(
    tables: Sequence[MetricTable],
    places: Collection[FamilySetting] | None = None,
    keep: Callable[[str], bool] = lambda key: True,
) -> Paired:
    """Settings of tables of one task and metric, all or some, on the images to `keep` by key."""
    chosen = [
        (place, table, rows)
        for table in tables
        for place, rows in table.places.items()
        if places is None or place in places
    ]
    shared = set(tables[0].keys).intersection(*(table.keys for _, table, _ in chosen))
    keys = sorted(filter(keep, shared))
    rows = {place: _ordered(measured, table.keys, keys) for place, table, measured in chosen}
    known = np.ones(len(keys), dtype=bool)
    for measured in rows.values():
        known &= np.isfinite(measured).all(axis=1)
    return Paired(
        tables[0].metric, tables[0].of, {place: measured[known] for place, measured in rows.items()}
    )


def _ordered(rows: Numbers, keys: Sequence[str], wanted: Sequence[str]) -> Numbers:
    """`rows` "n k" of the images `keys` in the order of `wanted`."""
    index = {key: i for i, key in enumerate(keys)}
    return np.asarray(rows, dtype=np.float64)[[index[key] for key in wanted]]


def _sign(metric: str) -> int:
    """1 where higher is better."""
    return 1 if measure(metric).higher_is_better else -1
