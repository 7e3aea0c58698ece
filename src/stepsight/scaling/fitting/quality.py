"""What a fit is worth: the measures and the words that all fits share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from stepsight.scaling.fitting.form import Array

# Of laws, elbows, surfaces and relations alike: what the points do not allow, then what they say.
Verdict = Literal[
    "too few points",
    "not monotone",
    "no elbow",
    "saturated",
    "improves but no law",
    "law",
]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
LAW_R2 = 0.9
SPARE_POINTS = 2  # distinct points beyond the number of parameters
MIN_DECADES = 2.0  # of an input
DECISIVE = 10.0  # difference of AICc that leaves essentially no support (Burnham & Anderson 2004)
MAX_CONDITION = 100.0  # of the Jacobian with unit columns: correlations of .9998
AT_BOUND = 1e-3  # of the range of a parameter


@dataclass(frozen=True)
class Expected:
    """What a measurement at one place is expected to give; nan where that is not known."""

    value: float  # the curve
    lo: float
    hi: float
    level: float
    warnings: tuple[str, ...]
    reach: float = math.nan  # how far beyond the data: its place over the largest one measured
    basis: str = ""  # what the interval rests on, in words


def r_squared(y: Array, left: Array, weights: Array | None = None) -> float:
    """Share of the variance of `y` that is not in the residuals `left`, "n" each; nan where y does
    not vary."""
    spread = (y - np.average(y, weights=weights)) ** 2
    if weights is not None:
        left, spread = left * np.sqrt(weights), spread * weights
    return float(1 - np.sum(left**2) / np.sum(spread)) if np.any(spread) else math.nan


def aicc(rss: float, n: int, parameters: int, quiet: float) -> float:
    """Corrected Akaike criterion n log(RSS / n) + 2k + 2k(k + 1)/(n - k - 1).

    That of Hurvich & Tsai 1989 for normal residuals; the variance counts as a parameter. Residuals
    below `quiet` are arithmetic and no evidence. Infinite where there are too few points to correct
    for.
    """
    k = parameters + 1
    if n - k - 1 <= 0:
        return math.inf
    return n * math.log(max(rss / n, quiet**2)) + 2 * k + 2 * k * (k + 1) / (n - k - 1)


def stopped_at(value: float, lo: float, hi: float, margin: float | None = None) -> float | None:
    """The bound of a search that a parameter ended at; None where it is inside. `margin`: how near
    that is, by default a thousandth of the range."""
    near, distance = (lo, value - lo) if value - lo < hi - value else (hi, hi - value)
    return near if distance <= (AT_BOUND * (hi - lo) if margin is None else margin) else None


def condition(jacobian: Array) -> float:
    """Of a Jacobian "n k" with columns of unit length: how much parameters trade off."""
    lengths = np.maximum(np.linalg.norm(jacobian, axis=0), np.finfo(float).tiny)
    return float(np.linalg.cond(jacobian / lengths))
