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
from stepsight.scaling.fitting.form import Array, LogForm, positive
from stepsight.scaling.fitting.profile import profile
from stepsight.scaling.fitting.quality import aicc, r_squared
from stepsight.scaling.fitting.resampling import (
    UNKNOWN,
    Ends,
    Resample,
    pairs,
    percentiles,
    resampled,
    residuals,
)
from stepsight.scaling.fitting.search import Optima, best_start, minimise, problem
from stepsight.scaling.intervals import LEVEL
from stepsight.scaling.laws import denials
from stepsight.scaling.laws.backtest import HiddenForecasts, Outlook, axes, roll, summary
from stepsight.scaling.laws.curvature import bend
from stepsight.scaling.laws.diagnosis import (
    NOT_CONVERGED,
    bare_shape,
    ends_reached,
    enough,
    judge,
    search_warnings,
    shape,
    shape_warnings,
)
from stepsight.scaling.laws.fitted import Fit
from stepsight.scaling.laws.forms import FORMS, find_form
from stepsight.scaling.laws.rivals import criteria, rivals_of
from stepsight.scaling.laws.spread import ROUNDING, Spread, owners, spread_of

# Where the loss turns from quadratic to linear, in log y: benchmark numbers scatter by a percent.
# Losses known to a part in a thousand take 1e-3, the value of Hoffmann et al.; math.inf is least
# squares.
HUBER_DELTA = 1e-2
EXACT = 1e-9  # of the variance of log y: what is left is arithmetic, not evidence of a bend
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
    beside: Sequence[str] = (),
) -> Fit:
    """Fit one form to points, positive: `x` "n", or "n d" for a form of d inputs, `y` "n".

    `inputs` names the columns of x, by default as the form does. Resamples draw (x, y) pairs, or
    with `groups` (one label a point, e.g. its run) whole groups, since checkpoints of one run share
    its luck; `resample="residuals"` redraws the log residuals around the law instead and keeps x as
    it was designed. `bootstrap=0` draws none. The intervals are percentiles of the resamples, or
    `intervals="profile"`, which takes points as independent. `beside` are forms that this one is
    compared with elsewhere; it is set against its other rivals here.

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
    trials, held_out = roll(data, best, names, owner)
    tested = summary(trials, names, u)
    spread = spread_of(law.jacobian(best.q, u)[0], scatter, owner, huber)
    params = dict(zip(law.parameters, law.reported(natural[0])[0].tolist()))
    r2 = r_squared(points.log_y, scatter)
    objective = float(best.objective[0])
    criterion = aicc(2 * objective, len(v), k, ROUNDING)
    stopped, natural_end = ends_reached(law, best.q[0], (data.lower, data.upper), points.centre)
    unsettled = [] if best.converged[0] else [NOT_CONVERGED]
    notes = [
        *shape_warnings(law, seen, r2),
        *stopped,
        *natural_end,
        *unsettled,
        *search_warnings(law, law.jacobian(best.q, u)[0]),
        *_method_warnings(intervals, groups),
    ]
    verdict, against = judge(law, seen, r2), []
    if verdict == "law":
        others = [name for name in rivals_of(law, seen.points) if name not in beside]
        against = [
            *denials.of_fit(law, r2, reported),
            *denials.of_break(law, params, float(points.x[:, 0].max())),
            *denials.of_rivals(criterion, criteria(others, u, v, huber)),
            *denials.of_forecasts(tested, trials, held_out),
        ]
        bent = bend(data, best, spread, owner) if r2 < 1 - EXACT else None
        against += [str(bent)] if bent and bent.denies else []
        if against or stopped or unsettled:
            verdict = "improves but no law"
    return replace(
        unfitted,
        params=params,
        intervals=reported,
        method=method,
        resampling=resampler.kind if len(draws) else "none",
        objective=objective,
        r2=r2,
        aicc=criterion,
        held_out=held_out,
        residuals=tuple(scatter.tolist()),
        backtest=tested,
        outlook=_outlook(law, best, points, names, spread, trials) if known else None,
        warnings=(*notes, *against),
        verdict=verdict,
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
    fewer parameters leads. A form that another one of no fewer parameters beats decisively is not
    called a law. `held_out` of each says how well it predicted the points that a fit to the others
    did not see.
    """
    inputs = 1 if np.ndim(x) < 2 else np.shape(x)[1]
    if not (chosen := forms or COMPARED.get(inputs)):
        fitting = ", ".join(name for name, one in FORMS.items() if len(one.inputs) == inputs)
        known = f"name one of {fitting}" if fitting else "there is none; leave inputs out"
        raise UserError(f"No forms of {inputs} inputs are compared: {known}.")
    fits = [fit(name, x, y, beside=chosen, **options) for name in chosen]
    fits.sort(key=lambda fitted: (fitted.aicc, len(fitted.params)))
    return {fitted.form: _demote(fitted, fits[0]) for fitted in fits}


def _demote(fitted: Fit, best: Fit) -> Fit:
    rivals = {best.form: best.aicc} if len(fitted.params) <= len(best.params) else {}
    notes = tuple(denials.of_rivals(fitted.aicc, rivals))
    denied = notes and fitted.verdict == "law"
    verdict = "improves but no law" if denied else fitted.verdict
    return replace(fitted, warnings=(*fitted.warnings, *notes), verdict=verdict)


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


def _outlook(
    law: LogForm,
    best: Optima,
    points: _Points,
    names: tuple[str, ...],
    spread: Spread,
    trials: HiddenForecasts,
) -> Outlook:
    ways = np.array([*axes(points.u, names).values()])
    tops = (points.log_x @ ways.T).max(axis=0)
    return Outlook(law, best.q, points.centre, spread, trials, ways, tops)


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
