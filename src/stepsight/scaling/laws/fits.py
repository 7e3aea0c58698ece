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
from numpy.typing import ArrayLike

from stepsight.errors import UserError
from stepsight.scaling.laws.diagnosis import (
    Shape,
    bare_shape,
    bound_warnings,
    enough,
    judge,
    search_warnings,
    shape,
    shape_warnings,
)
from stepsight.scaling.laws.fitted import LEVEL, Fit, Forecast, Range
from stepsight.scaling.laws.forms import Array, Form, find_form
from stepsight.scaling.laws.profile import profile
from stepsight.scaling.laws.resampling import Resample, Resampler, pairs, residuals
from stepsight.scaling.laws.search import Optima, Problem, best_start, minimise, problem

__all__ = ["COMPARED", "HUBER_DELTA", "LEVEL", "ROUNDING", "Fit", "Forecast", "compare", "fit"]

# Where the loss turns from quadratic to linear, in log y: benchmark numbers scatter by a percent.
# Losses known to a part in a thousand take 1e-3, the value of Hoffmann et al.; math.inf is least
# squares.
HUBER_DELTA = 1e-2
DECISIVE = 10.0  # difference of AICc that leaves essentially no support (Burnham & Anderson 2004)
ROUNDING = 1e-6  # residuals below this are arithmetic, not evidence for a form
LEFT_OUT = 0.25  # of the places, those at the top, for the held-out error
PATIENCE = 20  # draws a resample wanted, of which some do not determine a law
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
    u, v = points.u, points.v
    if len(np.unique(u, axis=0)) < len(law.parameters):
        return _unfitted(law, names, points, huber, level)
    data = problem(law, u, v, huber)
    best = best_start(data)
    scatter = v - law.log_curve(best.q, u)[0]
    found = shape(law, best.q[0], u, scatter, names)
    known = enough(law, found)
    resampler = _resampler(resample, v, scatter, groups, len(law.parameters))
    draws = _bootstrap(data, best, resampler, bootstrap if known else 0, seed)
    natural = [law.natural(law.canonical(q), points.centre) for q in (best.q, draws)]
    ends = _ends(data, best, natural[1], points, intervals if known else None, level)
    reported = _by_name(law, ends)
    params = dict(zip(law.parameters, law.reported(natural[0])[0].tolist()))
    r2 = _r2(points.log_y, scatter)
    return Fit(
        form=law.name,
        formula=law.formula,
        params=params,
        intervals=reported,
        level=level,
        method="none" if ends is None else intervals,
        resampling=resampler.kind if len(draws) else "none",
        objective=float(best.objective[0]),
        huber=huber,
        r2=r2,
        aicc=_aicc(float(best.objective[0]), len(v), len(law.parameters)),
        held_out=_held_out(data, best),
        residuals=tuple(scatter.tolist()),
        inputs=names,
        ranges=_ranges(names, points),
        n=len(v),
        warnings=(
            *shape_warnings(law, found, r2),
            *bound_warnings(law, best.q[0], (data.lower, data.upper), points.centre),
            *search_warnings(law, law.jacobian(best.q, u)[0], bool(best.converged[0])),
            *_method_warnings(intervals, groups),
        ),
        verdict=judge(law, found, r2, params, reported),
        natural=tuple(natural[0][0].tolist()),
        draws=tuple(map(tuple, natural[1].tolist())),
    )


def compare(
    x: ArrayLike, y: ArrayLike, *, forms: Sequence[str] | None = None, **options: Any
) -> dict[str, Fit]:
    """Several forms fitted to the same points, by AICc, the best first; `options` are those of
    `fit`. By default a power law without and with a floor, or the forms of Hoffmann and of Kaplan.

    On a draw (as where there are too few points for AICc) the form with fewer parameters leads.
    A form that one with more parameters beats decisively is not called a law. `held_out` of each
    says how well it foretold the points that a fit to the others did not see.
    """
    chosen = forms or COMPARED[1 if np.ndim(x) < 2 else np.shape(x)[1]]
    fits = [fit(name, x, y, **options) for name in chosen]
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


def _logs(law: Form, names: tuple[str, ...], x: ArrayLike, y: ArrayLike) -> _Points:
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    assert y.ndim == 1 and x.shape[:1] == y.shape and x.ndim <= 2, "x and y are of equal length"
    x = x.reshape(len(y), -1) if len(y) else np.empty((0, len(names)))
    if x.shape[1] != len(law.inputs) or len(names) != len(law.inputs):
        wanted = f"{len(law.inputs)} columns of x ({', '.join(law.inputs)})"
        raise UserError(f"{law.name} is a form of {wanted}; there are {x.shape[1]}.")
    for name, values in zip((*names, "y"), (*x.T, y)):
        if bad := int(np.sum(~(np.isfinite(values) & (values > 0)))):
            raise UserError(
                f"{bad} of {len(values)} values of {name} are not positive numbers. Curves are "
                "fitted in log space: leave these points out, or use an error such as 1 - delta1."
            )
    if not len(y):
        raise UserError("There are no points to fit.")
    logs = np.log(np.column_stack([x, y]))
    return _Points(x, logs[:, :-1], logs[:, -1], logs.mean(axis=0))


def _resampler(
    kind: Resample,
    v: Array,
    scatter: Array,
    groups: Sequence[Hashable] | None,
    parameters: int,
) -> Resampler:
    if kind == "residuals":
        return residuals(v - scatter, scatter, parameters)
    return pairs(v, groups)


def _bootstrap(data: Problem, best: Optima, resampler: Resampler, count: int, seed: int) -> Array:
    """Inner parameters of resampled data, "count k", searched for from the optimum of the data."""
    rng, k = np.random.default_rng(seed), best.q.shape[1]
    draws: list[tuple[Array, Array]] = []
    for _ in range(PATIENCE * count):
        weights, v = resampler.draw(rng)
        if len(np.unique(data.u[weights > 0], axis=0)) >= k:  # fewer do not determine a law
            draws.append((weights, v))
        if len(draws) == count:
            break
    if not draws:
        return np.empty((0, k))
    weights, v = (np.array(part) for part in zip(*draws))
    return minimise(data._replace(weights=weights, v=v), np.repeat(best.q, len(v), axis=0)).q


def _ends(
    data: Problem,
    best: Optima,
    draws: Array,
    points: _Points,
    method: Method | None,
    level: float,
) -> Array | None:
    """Ends of the intervals of the natural parameters, "k 2"; None where there are none."""
    if method == "profile":
        return profile(data, best, points.centre, level, ROUNDING)
    if method is None or not len(draws):
        return None
    return np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0).T


def _by_name(law: Form, ends: Array | None) -> dict[str, Range]:
    """Intervals of the reported parameters."""
    if ends is None:
        return {name: (math.nan, math.nan) for name in law.parameters}
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
    errors = (data.form.log_curve(q, data.u)[0] - data.v)[~kept]
    return float(np.sqrt(np.mean(errors**2)))


def _r2(log_y: Array, scatter: Array) -> float:
    spread = np.sum((log_y - log_y.mean()) ** 2)
    return float(1 - np.sum(scatter**2) / spread) if spread else math.nan


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


def _ranges(names: tuple[str, ...], points: _Points) -> dict[str, Range]:
    return dict(zip(names, zip(points.x.min(axis=0).tolist(), points.x.max(axis=0).tolist())))


def _unfitted(
    law: Form, names: tuple[str, ...], points: _Points, huber: float, level: float
) -> Fit:
    """What can be said when the points do not determine the law."""
    found: Shape = bare_shape(points.u, names)
    return Fit(
        form=law.name,
        formula=law.formula,
        params=dict.fromkeys(law.parameters, math.nan),
        intervals=_by_name(law, None),
        level=level,
        method="none",
        resampling="none",
        objective=math.nan,
        huber=huber,
        r2=math.nan,
        aicc=math.inf,
        held_out=math.nan,
        residuals=(),
        inputs=names,
        ranges=_ranges(names, points),
        n=len(points.log_y),
        warnings=tuple(shape_warnings(law, found, math.nan)),
        verdict="too few points",
        natural=(math.nan,) * len(law.parameters),
    )
