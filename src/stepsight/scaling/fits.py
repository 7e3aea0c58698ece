"""Fit scaling curves: robust, in log space, from several starts, with bootstrap intervals.

The objective is the sum of Huber losses of log-space residuals (Hoffmann et al. 2022,
arXiv:2203.15556, sec. 3.3). It is a sum and not a mean because with a mean the optimiser's
tolerances stop it early (Besiroglu et al. 2024, arXiv:2404.10102).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stepsight.errors import UserError
from stepsight.scaling.diagnosis import (
    Trend,
    Verdict,
    bound_warnings,
    judge,
    judged_from,
    search_warnings,
    shape_warnings,
    trend,
)
from stepsight.scaling.forms import FORMS, Array, Form, find_form, inner_of, reported
from stepsight.scaling.plain import plain
from stepsight.scaling.resampling import Resample, Resampler, pairs, residuals
from stepsight.scaling.search import minimise

LEVEL = 0.95
# Where the loss turns from quadratic to linear, in log y: benchmark numbers scatter by a percent.
# Losses known to a part in a thousand take 1e-3, the value of Hoffmann et al.; math.inf is least
# squares.
HUBER_DELTA = 1e-2
MAX_EXTRAPOLATION = 30.0
DECISIVE = 10.0  # difference of AICc that leaves essentially no support (Burnham & Anderson 2004)
ROUNDING = 1e-6  # residuals below this are arithmetic, not evidence for a form


@dataclass(frozen=True)
class Fit:
    """A fitted curve and what it is worth. Unknown numbers are nan."""

    form: str
    formula: str
    params: dict[str, float]
    intervals: dict[str, tuple[float, float]]  # 95 %, percentile
    resampling: str  # what the bootstrap drew: points, runs, residuals, or none
    objective: float  # sum of Huber losses
    r2: float  # in log space
    aicc: float  # comparable between forms on the same points
    residuals: tuple[float, ...]  # log y - log of the curve, in the order of the points
    x_range: tuple[float, float]
    n: int
    warnings: tuple[str, ...]
    verdict: Verdict

    def predict(self, x: ArrayLike) -> Array:
        """The curve at `x` (any shape). Warns beyond 30 times the range of the data."""
        x = np.asarray(x, dtype=float)
        lo, hi = self.x_range
        if x.size and (x.max() > MAX_EXTRAPOLATION * hi or x.min() < lo / MAX_EXTRAPOLATION):
            warnings.warn(
                f"extrapolating beyond {MAX_EXTRAPOLATION:g} times the data ({lo:.3g} to {hi:.3g})",
                stacklevel=2,
            )
        inner = inner_of(np.array(list(self.params.values())))
        return np.exp(FORMS[self.form].log_curve(inner, np.log(x)))

    def to_dict(self) -> dict[str, Any]:
        """For JSON: nan and infinity become None."""
        return plain(asdict(self))


def fit(
    form: str,
    x: ArrayLike,
    y: ArrayLike,
    *,
    groups: Sequence[Hashable] | None = None,
    resample: Resample = "pairs",
    bootstrap: int = 200,
    huber: float = HUBER_DELTA,
    seed: int = 0,
) -> Fit:
    """Fit one form to points, `x` and `y` "n", positive.

    Intervals resample (x, y) pairs, or with `groups` (one label a point, e.g. its run) whole
    groups, since checkpoints of one run share its luck; `resample="residuals"` redraws the log
    residuals around the curve instead and keeps x as it was designed. `bootstrap=0` gives none.

    Raises:
        UserError: the form is unknown, or x or y hold something else than positive numbers.
    """
    law = find_form(form)
    log_x, log_y = _logs(x, y)
    centre = log_x.mean()
    u, shape = log_x - centre, trend(log_x, log_y)
    x_range = float(np.min(x)), float(np.max(x))
    if shape.points < len(law.parameters):
        return _unfitted(law, x_range, len(log_x), shape)
    best = minimise(law, u, log_y, law.starts(u, log_y), huber)
    curve = law.log_curve(best.inner, u)
    resampler = (
        residuals(u, curve, log_y - curve, len(law.parameters))
        if resample == "residuals"
        else pairs(u, log_y, groups)
    )
    count = bootstrap if shape.points >= judged_from(law) else 0
    draws = _bootstrap(law, best.theta, resampler, count, huber, np.random.default_rng(seed))
    intervals = _intervals(law, [reported(inner, centre) for inner in draws])
    r2 = _r2(log_y, curve)
    return Fit(
        form=law.name,
        formula=law.formula,
        params=dict(zip(law.parameters, reported(best.inner, centre).tolist())),
        intervals=intervals,
        resampling=resampler.kind if draws else "none",
        objective=best.objective,
        r2=r2,
        aicc=_aicc(best.objective, len(log_y), len(law.parameters)),
        residuals=tuple((log_y - curve).tolist()),
        x_range=x_range,
        n=len(log_x),
        warnings=(
            *shape_warnings(law, shape),
            *bound_warnings(law, best.theta, law.bounds(log_y)),
            *search_warnings(law.jacobian(best.inner, u), best.converged),
        ),
        verdict=judge(law, shape, r2, intervals),
    )


def compare(x: ArrayLike, y: ArrayLike, **options: Any) -> dict[str, Fit]:
    """Every form fitted to one curve, by AICc, the best first; `options` are those of `fit`.

    On a draw (as where there are too few points for AICc) the form with fewer parameters leads.
    A form that one with more parameters beats decisively is not called a law.
    """
    fits = [fit(name, x, y, **options) for name in FORMS]
    fits.sort(key=lambda one: (one.aicc, len(one.params)))
    return {one.form: _demote(one, fits[0]) for one in fits}


def _demote(one: Fit, best: Fit) -> Fit:
    """Only for want of structure: losing to a form with fewer parameters is no lack of fit."""
    simpler = len(one.params) < len(best.params)
    if not (simpler and one.aicc - best.aicc > DECISIVE):
        return one
    note = f"{best.form} fits far better (AICc lower by {one.aicc - best.aicc:.0f})"
    verdict = "improves but no law" if one.verdict == "law" else one.verdict
    return replace(one, warnings=(*one.warnings, note), verdict=verdict)


def _logs(x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    assert x.shape == y.shape and x.ndim == 1, "x and y are two columns of equal length"
    for name, values in (("x", x), ("y", y)):
        if bad := int(np.sum(~(np.isfinite(values) & (values > 0)))):
            raise UserError(
                f"{bad} of {len(values)} values of {name} are not positive numbers. Curves are "
                "fitted in log space: leave these points out, or use an error such as 1 - delta1."
            )
    if not len(x):
        raise UserError("There are no points to fit.")
    return np.log(x), np.log(y)


def _bootstrap(
    law: Form,
    theta: Array,
    resampler: Resampler,
    count: int,
    huber: float,
    rng: np.random.Generator,
) -> list[Array]:
    """Inner parameters of resampled data, searched for from the optimum `theta` of the data."""
    draws = []
    while len(draws) < count:
        u, log_y = resampler.draw(rng)
        if len(np.unique(u)) >= len(law.parameters):  # fewer do not determine a curve
            draws.append(minimise(law, u, log_y, [theta], huber).inner)
    return draws


def _intervals(law: Form, draws: list[Array]) -> dict[str, tuple[float, float]]:
    if not draws:
        return {name: (math.nan, math.nan) for name in law.parameters}
    tail = (1 - LEVEL) / 2
    lo, hi = np.quantile(draws, [tail, 1 - tail], axis=0)
    return dict(zip(law.parameters, zip(lo.tolist(), hi.tolist())))


def _r2(log_y: Array, curve: Array) -> float:
    spread = np.sum((log_y - log_y.mean()) ** 2)
    return float(1 - np.sum((log_y - curve) ** 2) / spread) if spread else math.nan


def _aicc(objective: float, n: int, parameters: int) -> float:
    """Corrected Akaike criterion n log(RSS / n) + 2k + 2k(k + 1)/(n - k - 1).

    That of Hurvich & Tsai 1989 for normal log residuals, with twice the Huber objective for RSS,
    so that a form never loses fit against one it contains. The variance counts as a parameter.
    Infinite where there are too few points to correct for.
    """
    k = parameters + 1
    if n - k - 1 <= 0:
        return math.inf
    variance = max(2 * objective / n, ROUNDING**2)
    return n * math.log(variance) + 2 * k + 2 * k * (k + 1) / (n - k - 1)


def _unfitted(law: Form, x_range: tuple[float, float], n: int, shape: Trend) -> Fit:
    """What can be said when the points do not determine the curve."""
    return Fit(
        form=law.name,
        formula=law.formula,
        params=dict.fromkeys(law.parameters, math.nan),
        intervals=_intervals(law, []),
        resampling="none",
        objective=math.nan,
        r2=math.nan,
        aicc=math.inf,
        residuals=(),
        x_range=x_range,
        n=n,
        warnings=tuple(shape_warnings(law, shape)),
        verdict="too few points",
    )
