"""Fit scaling laws: robust, in log space, from several starts, with intervals.

The objective is the sum of Huber losses of log-space residuals (Hoffmann et al. 2022,
arXiv:2203.15556, sec. 3.3). It is a sum and not a mean because with a mean the optimiser's
tolerances stop it early (Besiroglu et al. 2024, arXiv:2404.10102).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stepsight.errors import UserError
from stepsight.scaling.fitting.form import Array, LogForm, positive
from stepsight.scaling.fitting.profile import profile
from stepsight.scaling.fitting.quality import DECISIVE, aicc, r_squared
from stepsight.scaling.fitting.resampling import (
    UNKNOWN,
    Ends,
    Resample,
    pairs,
    percentiles,
    resampled,
    residuals,
)
from stepsight.scaling.fitting.search import Optima, Problem, best_start, minimise, problem
from stepsight.scaling.intervals import LEVEL
from stepsight.scaling.laws.backtest import HiddenForecasts, Outlook, axes, roll, summary
from stepsight.scaling.laws.diagnosis import (
    bare_shape,
    bound_warnings,
    enough,
    judge,
    search_warnings,
    shape,
    shape_warnings,
)
from stepsight.scaling.laws.fitted import Fit
from stepsight.scaling.laws.forms import find_form
from stepsight.scaling.laws.spread import owners, spread_of

# Where the loss turns from quadratic to linear, in log y: benchmark numbers scatter by a percent.
# Losses known to a part in a thousand take 1e-3, the value of Hoffmann et al.; math.inf is least
# squares.
HUBER_DELTA = 1e-2
ROUNDING = 1e-6  # residuals below this are arithmetic, not evidence for a form
LEFT_OUT = 0.25  # of the places, those at the top, for the held-out error
ADVICE = (
    " Curves are fitted in log space: leave these points out, or use an error such as 1 - delta1."
)
COMPARED = {1: ("power", "power_floor"), 2: ("chinchilla", "kaplan")}  # by number of inputs
Method = Literal["bootstrap", "profile"]


class _Points(NamedTuple):
    """Positive data, their logs, and the middle of these."""

    x: Array  # "n d"
    log_x: Array  # "n d"
    log_y: Array  # "n"
    centre: Array  # "d+1"

    @property
    def u(self) -> Array:
        return self.log_x - self.centre[:-1]

    @property
    def v(self) -> Array:
        return self.log_y - self.centre[-1]


def fit(
    form: str,
    x: ArrayLike,
    y: ArrayLike,
    *,
    inputs: Sequence[str] | None = None,
    groups: Sequence[Hashable] | None = None,
    resample: Resample = "pairs",
    bootstrap: int = 200,
    intervals: Method = "bootstrap",
    level: float = LEVEL,
    huber: float = HUBER_DELTA,
    seed: int = 0,
) -> Fit:
    """Fit one form to points, positive: `x` "n", or "n d" for a form of d inputs, `y` "n".

    `inputs` names the columns of x, by default as the form does. Resamples draw (x, y) pairs, or
    with `groups` (one label a point, e.g. its run) whole groups, since checkpoints of one run share
    its luck; `resample="residuals"` redraws the log residuals around the law instead and keeps x as
    it was designed. `bootstrap=0` draws none. The intervals are percentiles of the resamples, or
    `intervals="profile"`, which takes points as independent.

    Raises:
        UserError: the form is unknown, or x or y hold something else than positive numbers.
    """
    assert intervals in get_args(Method) and 0 < level < 1 and huber > 0 and bootstrap >= 0
    law = find_form(form)
    names = tuple(inputs or law.inputs)
    points = _logs(law, names, x, y)
    law = law.centred(points.centre)
    u, v, k = points.u, points.v, len(law.parameters)
    unfitted = _unfitted(law, names, points, huber, level)
    if len(np.unique(u, axis=0)) < k:
        return unfitted
    data = problem(law, u, v, huber)
    best = best_start(data)
    scatter = v - law.curve(best.q, u)[0]
    seen = shape(law, best.q[0], u, scatter, names)
    known = enough(law, seen)
    by_pairs = resample == "pairs"
    resampler = pairs(v, groups) if by_pairs else residuals(v - scatter, scatter, k)
    redrawn = resampled(data, resampler, bootstrap if known else 0, seed)
    draws = minimise(redrawn, np.repeat(best.q, len(redrawn.v), axis=0)).q
    natural = [law.natural(law.canonical(q), points.centre) for q in (best.q, draws)]
    method = intervals if known and (intervals == "profile" or len(draws)) else "none"
    reported = unfitted.intervals
    if method == "profile":
        reported = _by_name(law, profile(data, best, points.centre, level, ROUNDING))
    elif method == "bootstrap":
        reported = _by_name(law, np.array(percentiles(natural[1], level)))
    owner = owners(groups, len(v))
    trials = roll(data, best, names, owner)
    params = dict(zip(law.parameters, law.reported(natural[0])[0].tolist()))
    r2 = r_squared(points.log_y, scatter)
    objective = float(best.objective[0])
    return replace(
        unfitted,
        params=params,
        intervals=reported,
        method=method,
        resampling=resampler.kind if len(draws) else "none",
        objective=objective,
        r2=r2,
        aicc=aicc(2 * objective, len(v), k, ROUNDING),
        held_out=_held_out(data, best),
        residuals=tuple(scatter.tolist()),
        backtest=summary(trials, names, u),
        outlook=_outlook(data, best, points, names, owner, trials) if known else None,
        warnings=(
            *shape_warnings(law, seen, r2),
            *bound_warnings(law, best.q[0], (data.lower, data.upper), points.centre),
            *search_warnings(law, law.jacobian(best.q, u)[0], bool(best.converged[0])),
            *_method_warnings(intervals, groups),
        ),
        verdict=judge(law, seen, r2, params, reported),
        natural=tuple(natural[0][0].tolist()),
        draws=tuple(map(tuple, natural[1].tolist())),
    )


def compare(
    x: ArrayLike, y: ArrayLike, *, forms: Sequence[str] | None = None, **options: Any
) -> dict[str, Fit]:
    """Several forms fitted to the same points, by AICc, the best first; `options` are those of
    `fit`. By default a power law without and with a floor, or the forms of Hoffmann and of Kaplan.

    AICc takes twice the Huber objective for the sum of squares, so that a form never loses fit
    against one it contains. On a draw (as where there are too few points for AICc) the form with
    fewer parameters leads. A form that one with more parameters beats decisively is not called a
    law. `held_out` of each says how well it predicted the points that a fit to the others did not
    see.
    """
    chosen = forms or COMPARED[1 if np.ndim(x) < 2 else np.shape(x)[1]]
    fits = [fit(name, x, y, **options) for name in chosen]
    fits.sort(key=lambda fitted: (fitted.aicc, len(fitted.params)))
    return {fitted.form: _demote(fitted, fits[0]) for fitted in fits}


def _demote(fitted: Fit, best: Fit) -> Fit:
    """Only for want of structure: losing to a form with fewer parameters is no lack of fit."""
    lost = fitted.aicc - best.aicc
    if not (len(fitted.params) < len(best.params) and lost > DECISIVE):
        return fitted
    note = f"{best.form} fits far better (AICc lower by {lost:.0f})"
    verdict = "improves but no law" if fitted.verdict == "law" else fitted.verdict
    return replace(fitted, warnings=(*fitted.warnings, note), verdict=verdict)


def _logs(law: LogForm, names: tuple[str, ...], x: ArrayLike, y: ArrayLike) -> _Points:
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    assert y.ndim == 1 and x.shape[:1] == y.shape and x.ndim <= 2, "x and y are of equal length"
    x = x.reshape(len(y), -1) if len(y) else np.empty((0, len(names)))
    if x.shape[1] != len(law.inputs) or len(names) != len(law.inputs):
        wanted = f"{len(law.inputs)} columns of x ({', '.join(law.inputs)})"
        raise UserError(f"{law.name} is a form of {wanted}; there are {x.shape[1]}.")
    for name, values in zip((*names, "y"), (*x.T, y)):
        positive(name, values, ADVICE)
    if not len(y):
        raise UserError("There are no points to fit.")
    logs = np.log(np.column_stack([x, y]))
    return _Points(x, logs[:, :-1], logs[:, -1], logs.mean(axis=0))


def _by_name(law: LogForm, ends: Array) -> dict[str, Ends]:
    """Intervals of the reported parameters, from those of the natural ones, "k 2"."""
    with np.errstate(over="ignore"):
        reported = np.where(law.moved_as_logs[:, None], np.exp(ends), ends)
    return {name: (lo, hi) for name, (lo, hi) in zip(law.parameters, reported.tolist())}


def _method_warnings(method: Method, groups: Sequence[Hashable] | None) -> list[str]:
    if method == "profile" and groups is not None:
        return ["profile intervals take points as independent; a bootstrap draws whole runs"]
    return []


def _held_out(data: Problem, best: Optima) -> float:
    """Error at the places of the largest product of inputs, of a fit that does not see them."""
    size = data.u.sum(axis=1).round(9)
    places = np.unique(size)
    kept = size < places[-math.ceil(LEFT_OUT * len(places))]
    if len(np.unique(data.u[kept], axis=0)) < len(data.form.parameters):
        return math.nan
    q = minimise(data._replace(weights=kept.astype(float)), best.q).q
    errors = (data.form.curve(q, data.u)[0] - data.v)[~kept]
    return float(np.sqrt(np.mean(errors**2)))


def _outlook(
    data: Problem,
    best: Optima,
    points: _Points,
    names: tuple[str, ...],
    owner: NDArray[np.intp],
    trials: HiddenForecasts,
) -> Outlook:
    assert isinstance(data.form, LogForm)
    left = data.v - data.form.curve(best.q, data.u)[0]
    spread = spread_of(data.form.jacobian(best.q, data.u)[0], left, owner, data.huber)
    ways = np.array([*axes(data.u, names).values()])
    tops = (points.log_x @ ways.T).max(axis=0)
    return Outlook(data.form, best.q, points.centre, spread, trials, ways, tops)


def _unfitted(
    law: LogForm, names: tuple[str, ...], points: _Points, huber: float, level: float
) -> Fit:
    """What can be said when the points do not determine the law."""
    ends = zip(points.x.min(axis=0).tolist(), points.x.max(axis=0).tolist())
    return Fit(
        form=law.name,
        formula=law.formula,
        params=dict.fromkeys(law.parameters, math.nan),
        intervals=dict.fromkeys(law.parameters, UNKNOWN),
        level=level,
        huber=huber,
        inputs=names,
        ranges=dict(zip(names, ends)),
        n=len(points.log_y),
        warnings=tuple(shape_warnings(law, bare_shape(points.u, names), math.nan)),
        natural=(math.nan,) * len(law.parameters),
    )
