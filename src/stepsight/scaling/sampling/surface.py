"""Error over the two axes of test-time compute, T model calls per member and N members.

    separable     e = E + A T^-a + B N^-b
    interaction   e = E + A T^-a + (B + D (1 - T^-a)) N^-b

The first is the form of Hoffmann et al. 2022 (arXiv:2203.15556, eq. 2) with the two axes in the
place of parameters and tokens. It cannot describe steps that hurt a single sample and help an
ensemble: one call answers the posterior mean, whose members hardly differ, and more calls draw
samples, whose variance only members remove. The second form adds that: as the bias A T^-a goes,
variance comes, and N^-b takes it away. It falls with N at every T, and contains the first (D = 0).

Errors are fitted themselves and not their logarithms, each weighed by its own deviation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from stepsight.scaling.fitting.form import Array, Form
from stepsight.scaling.fitting.quality import SPARE_POINTS, r_squared, stopped_at
from stepsight.scaling.fitting.resampling import Ends, percentiles, resampled, residuals
from stepsight.scaling.fitting.search import Problem, best_start, minimise, problem
from stepsight.scaling.intervals import LEVEL
from stepsight.scaling.laws.fits import ROUNDING
from stepsight.scaling.laws.forms import FORMS as LAWS
from stepsight.scaling.laws.forms.projection import combinations, project
from stepsight.scaling.sampling.interpolation import Setting, SettingValues, root_mean_square

EXPONENTS = (0.05, 5.0)  # the range searched; beyond it an axis is a constant or a single drop
STARTS = 8  # of the search, along each exponent
MIN_SETTINGS = 3  # distinct values along each axis
BOOTSTRAP = 100


@dataclass(frozen=True)
class SurfaceForm(Form):
    """Inner parameters are those reported: the linear ones, none of which is negative, a and b.
    Terms are those of the linear parameters, each linear in T^-a and in N^-b."""

    terms: Callable[[Array, Array], tuple[Array, ...]]  # T^-a, N^-b "..." -> "..." each

    def curve(self, q: Array, u: Array) -> Array:
        return _weighed(q, self.terms(*_powers(q, u)))

    def jacobian(self, q: Array, u: Array) -> Array:
        t, n = _powers(q, u)
        none, whole = np.zeros_like(t), np.ones_like(t)
        by_t = _weighed(q, self.terms(whole, n)) - _weighed(q, self.terms(none, n))
        by_n = _weighed(q, self.terms(t, whole)) - _weighed(q, self.terms(t, none))
        by_exponents = -by_t * t * u[:, 0], -by_n * n * u[:, 1]
        return np.stack([*np.broadcast_arrays(*self.terms(t, n)), *by_exponents], axis=2)

    def bounds(self, u: Array, v: Array) -> tuple[Array, Array]:
        linear, exponents = len(self.parameters) - 2, np.tile(EXPONENTS, (2, 1)).T
        lower = np.append(np.zeros(linear), exponents[0])
        return lower, np.append(np.full(linear, np.inf), exponents[1])

    def starts(self, u: Array, v: Array) -> Array:
        """Exponents on a grid, and for each the best linear parameters."""
        grid = combinations(*[np.geomspace(*EXPONENTS, STARTS)] * 2)
        terms = np.stack(np.broadcast_arrays(*self.terms(*_powers(grid, u))), axis=2)
        with np.errstate(divide="ignore"):
            logs = project(np.log(terms), v, np.ones(len(v)))
        return np.hstack([np.exp(logs), grid])


FORMS = {
    form.name: form
    for form in (
        SurfaceForm(
            "separable",
            LAWS["members"].formula,
            ("E", "A", "B", "a", "b"),
            lambda t, n: (np.ones_like(t), t, n),
        ),
        SurfaceForm(
            "interaction",
            "e = E + A T^-a + (B + D (1 - T^-a)) N^-b",
            ("E", "A", "B", "D", "a", "b"),
            lambda t, n: (np.ones_like(t), t, n, (1 - t) * n),
        ),
    )
}


@dataclass(frozen=True)
class Surface:
    """A fitted surface."""

    form: str
    formula: str
    params: dict[str, float]
    intervals: dict[str, Ends]  # 95 %, residual bootstrap
    r2: float  # of the errors, weighted as the fit was
    leave_one_out: float  # root mean square error at points left out, in units of the error
    warnings: tuple[str, ...]

    def predict(self, setting: Setting) -> float:
        """The error at (NFE, members)."""
        theta = np.array([[*self.params.values()]])
        return float(FORMS[self.form].curve(theta, np.log([setting]))[0, 0])


def fit_surface(
    points: SettingValues,
    deviations: SettingValues | None = None,
    *,
    bootstrap: int = BOOTSTRAP,
    seed: int = 0,
) -> Surface | None:
    """The surface through measured errors, or None where they do not determine one.

    Of both forms the one whose error at points left out is smaller, the simpler one on a draw.
    `deviations` are standard errors of the points, by which the fit weighs them.
    """
    problems = [_problem(form, points, deviations) for form in FORMS.values()]
    optima = [(data, best_start(data)) for data in problems if _determined(data)]
    if not optima:
        return None
    fitted = [(data, optimum.q[0]) for data, optimum in optima]
    left = [root_mean_square(_left_out(data, theta)) for data, theta in fitted]
    least = (1 + ROUNDING) * min(left) + ROUNDING * float(np.mean(np.abs(problems[0].v)))
    place = next(i for i, error in enumerate(left) if error <= least)
    (data, theta), form = fitted[place], problems[place].form
    scatter = data.v - form.curve(theta[None], data.u)[0]
    ends = _intervals(data, theta, scatter, bootstrap, seed)
    stopped = () if optima[place][1].converged[0] else ("the search did not converge",)
    return Surface(
        form=form.name,
        formula=form.formula,
        params=dict(zip(form.parameters, theta.tolist())),
        intervals=dict(zip(form.parameters, ends)),
        r2=r_squared(data.v, scatter, data.weights),
        leave_one_out=left[place],
        warnings=(*_at_bound(theta, ends), *stopped),
    )


def left_out(
    surface: Surface, points: SettingValues, deviations: SettingValues | None = None
) -> dict[Setting, float]:
    """Each value minus what a surface of the same form through all other points, searched for from
    this one, says there."""
    data = _problem(FORMS[surface.form], points, deviations)
    errors = _left_out(data, np.array([*surface.params.values()]))
    return dict(zip(points, errors.tolist()))


def influence(
    surface: Surface,
    points: SettingValues,
    deviations: SettingValues | None,
    at: Sequence[Setting],
) -> Array:
    """How much of the noise of each point is in the surface at some settings, "m c": the rows of
    the hat matrix of the linearised fit, of the parameters that no bound holds."""
    data, theta = _problem(FORMS[surface.form], points, deviations), [*surface.params.values()]
    free = (np.array(theta) > data.lower) & (np.array(theta) < data.upper)
    places = data.u, np.log(np.array(at, dtype=float).reshape(-1, 2))
    slopes, wanted = (data.form.jacobian(np.array([theta]), u)[0][:, free] for u in places)
    root = np.sqrt(data.weights)
    return wanted @ np.linalg.pinv(slopes * root[:, None]) * root


def _problem(form: SurfaceForm, points: SettingValues, deviations: SettingValues | None) -> Problem:
    """Logs of (NFE, members) and errors; weights are 1 / deviation^2, of mean 1."""
    errors = np.array([*points.values()], dtype=float)
    spread = np.array([(deviations or {}).get(setting, math.nan) for setting in points])
    usable = len(errors) and np.isfinite(spread).all() and (spread > 0).all()
    weights = spread**-2 if usable else np.ones(len(errors))
    u = np.log(np.array([*points], dtype=float).reshape(-1, 2))
    return problem(form, u, errors)._replace(weights=weights / (weights.mean() if usable else 1))


def _determined(data: Problem) -> bool:
    varied = min(len(np.unique(column)) for column in data.u.T)
    return varied >= MIN_SETTINGS and len(data.v) >= len(data.form.parameters) + SPARE_POINTS


def _left_out(data: Problem, theta: Array) -> Array:
    """Error at each point of the search from `theta` that does not see it, "n"."""
    n = len(data.v)
    others = data._replace(weights=data.weights * (1 - np.eye(n)), v=np.tile(data.v, (n, 1)))
    q = minimise(others, np.tile(theta, (n, 1))).q
    return data.v - np.diagonal(data.form.curve(q, data.u))


def _intervals(data: Problem, theta: Array, scatter: Array, count: int, seed: int) -> list[Ends]:
    """Residual bootstrap in units of the points' deviations; each draw searched from `theta`."""
    root = np.sqrt(data.weights)
    resampler = residuals((data.v - scatter) * root, scatter * root, len(theta))
    redrawn = resampled(data, resampler, count, seed)
    each = redrawn._replace(v=redrawn.v / root, weights=redrawn.weights * data.weights)
    return percentiles(minimise(each, np.tile(theta, (len(each.v), 1))).q, LEVEL)


def _at_bound(theta: Array, intervals: Sequence[Ends]) -> Iterator[str]:
    """Exponents that the range searched stopped, or their intervals: there the points do not say
    where the exponent is."""
    lo, hi = np.log(EXPONENTS)
    for name, value, interval in zip("ab", theta[-2:], intervals[-2:]):
        if (end := stopped_at(np.log(value), lo, hi)) is not None:
            yield f"{name} is at its bound {np.exp(end):g}"
            continue
        known = [edge for edge in interval if math.isfinite(edge)]
        ends = [stopped_at(np.log(edge), lo, hi) for edge in known]
        yield from (
            f"the interval of {name} ends at its bound {np.exp(end):g}"
            for end in dict.fromkeys(ends)
            if end is not None
        )


def _powers(q: Array, u: Array) -> tuple[Array, Array]:
    """T^-a and N^-b, "b n" each."""
    return np.exp(-q[:, -2:-1] * u[:, 0]), np.exp(-q[:, -1:] * u[:, 1])


def _weighed(q: Array, terms: tuple[Array, ...]) -> Array:
    """The sum of terms "b n" times their linear parameters."""
    return sum(q[:, i, None] * term for i, term in enumerate(terms))  # type: ignore[return-value]
