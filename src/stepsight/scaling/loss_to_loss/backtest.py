"""What a relation's forecasts were worth so far: its best pairs hidden, and forecast from the rest.

A rolling origin along the reducible part of x, in the direction in which models improve: the pairs
of the smallest x are hidden, an eighth, a quarter, three eighths and half of the distinct x; the
relation is fitted to the others with the same floors, and forecasts every hidden pair with the
interval that it would have printed then.

How far outcomes fell from the forecast, in half widths of their intervals, is what later forecasts
beyond the pairs are widened by: the quantile of a split-conformal interval with normalised scores
(Lei et al. 2018, J. Am. Stat. Assoc. 113:1094). Hidden pairs lie beyond the rest and are forecast
together, so they are not exchangeable and the quantile is no guarantee; it never narrows.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np

from stepsight.scaling.fitting.form import Array
from stepsight.scaling.fitting.quality import SPARE_POINTS
from stepsight.scaling.laws.backtest import Backtest
from stepsight.scaling.loss_to_loss.floored import TINY, relation_at
from stepsight.scaling.loss_to_loss.floors import Floors
from stepsight.scaling.loss_to_loss.solving import Solution, parameters_of, solve

AXIS = "reducible x"
KEPT = (0.5, 0.625, 0.75, 0.875)  # of the distinct x, from the largest on
RESAMPLES = 50
ROUNDING = 1e-6  # of log y; a smaller half width is arithmetic


def backtest(
    x: Array,
    y: Array,
    floors: Floors,
    groups: Sequence[Hashable] | None,
    level: float,
    seed: int,
) -> tuple[Backtest | None, float]:
    """The score, and the factor by which intervals of a level beyond the pairs are to be widened;
    None and 1 where pairs are too few to hide any."""
    places = np.unique(x)[::-1]
    counts = {math.ceil(share * len(places)) for share in KEPT}
    needed = parameters_of(floors) + SPARE_POINTS
    told: list[Array] = []
    for count in sorted(count for count in counts if needed <= count < len(places)):
        kept = x >= places[count - 1]
        own = None if groups is None else [group for group, one in zip(groups, kept) if one]
        past = solve(x[kept], y[kept], floors, own, RESAMPLES, seed)
        if len(past.draws):
            told.append(_told(past, x[kept].min(), x[~kept], y[~kept], level))
    if not told:
        return None, 1.0
    off, scores, reach = np.concatenate(told, axis=1)
    score = Backtest(
        axis=AXIS,
        hits=int(np.sum(scores <= 1)),
        of=len(scores),
        reach=float(reach.max()),
        error=float(np.median(np.abs(off))),
        bias=float(np.median(off)),
    )
    rank = min(math.ceil((len(scores) + 1) * level), len(scores))
    return score, max(float(np.sort(scores)[rank - 1]), 1.0)


def _told(past: Solution, nearest: float, x: Array, y: Array, level: float) -> Array:
    """Of each hidden pair log forecast - log outcome, how far it lies from the middle of its
    interval in half widths, and how far beyond the kept pairs, "3 n"."""
    off = np.log(np.maximum(relation_at(past.theta, x), TINY)) - np.log(y)
    lo, hi = np.log([past.ends(at, level) for at in x.tolist()]).T
    half = np.maximum((hi - lo) / 2, ROUNDING)
    return np.stack(
        [off, np.abs(np.log(y) - (lo + hi) / 2) / half, reaches(nearest, x, past.theta[2])]
    )


def reaches(nearest: float, x: Array, floor: float) -> Array:
    """The reducible part of the nearest pair over that of `x` "n": above 1 beyond the pairs;
    infinite at or below the floor."""
    with np.errstate(divide="ignore"):
        return (nearest - floor) / np.maximum(x - floor, 0.0)
