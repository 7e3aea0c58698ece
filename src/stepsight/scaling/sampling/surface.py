"""Error over the two dials of test-time compute, T model calls a member and N members.

    separable     e = E + A T^-a + B N^-b
    interaction   e = E + A T^-a + (B + D (1 - T^-a)) N^-b

The first is the form of Hoffmann et al. 2022 (arXiv:2203.15556, eq. 2) with the two dials in the
place of parameters and tokens. It cannot describe steps that hurt a single sample and help an
ensemble: one call answers the posterior mean, whose members hardly differ, and more calls draw
samples, whose variance only members remove. The second form adds that: as the bias A T^-a goes,
variance comes, and N^-b takes it away. It falls with N at every T, and contains the first (D = 0).

For given exponents both are linear in the other parameters, none of which is negative, so that
only the exponents are searched for (variable projection, Golub & Pereyra 1973) and the others are
non-negative least squares.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares, nnls

from stepsight.scaling.laws.diagnosis import SPARE_POINTS
from stepsight.scaling.laws.fits import LEVEL, ROUNDING
from stepsight.scaling.laws.forms import Array
from stepsight.scaling.laws.resampling import residuals
from stepsight.scaling.sampling.interpolation import Points, Predictor, Setting, leave_one_out

EXPONENTS = (0.05, 5.0)  # the range searched; beyond it a dial is a constant or a single drop
STARTS = 8  # of the search, along each exponent
MAX_EVALUATIONS = 30
MIN_SETTINGS = 3  # distinct values of each dial
BOOTSTRAP = 100


class SurfaceForm(NamedTuple):
    """A family of surfaces. Terms are those of the linear parameters."""

    name: str
    formula: str
    linear: tuple[str, ...]
    terms: Callable[[Array, Array], tuple[Array, ...]]  # T^-a "n", N^-b "n" -> "n" each

    @property
    def parameters(self) -> tuple[str, ...]:
        return (*self.linear, "a", "b")


FORMS = {
    form.name: form
    for form in (
        SurfaceForm(
            "separable",
            "e = E + A T^-a + B N^-b",
            ("E", "A", "B"),
            lambda t, n: (np.ones_like(t), t, n),
        ),
        SurfaceForm(
            "interaction",
            "e = E + A T^-a + (B + D (1 - T^-a)) N^-b",
            ("E", "A", "B", "D"),
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
    intervals: dict[str, tuple[float, float]]  # 95 %, residual bootstrap
    r2: float  # of the errors, weighted as the fit was
    leave_one_out: float  # root mean square error at points left out, in units of the error
    warnings: tuple[str, ...]

    def predict(self, setting: Setting) -> float:
        """The error at (NFE, members)."""
        return _at(FORMS[self.form], _theta(self), setting)


class _Data(NamedTuple):
    """Points as columns "n"; weights are 1 / deviation, of mean square 1."""

    nfe: Array
    members: Array
    error: Array
    weight: Array


def fit_surface(
    points: Points, deviations: Points | None = None, *, bootstrap: int = BOOTSTRAP, seed: int = 0
) -> Surface | None:
    """The surface through measured errors, or None where they do not determine one.

    Of both forms the one whose error at points left out is smaller, the simpler one on a draw.
    `deviations` are standard errors of the points, by which the fit weighs them.
    """
    data = _columns(points, deviations)
    fitted = [(form, _fit(form, data)) for form in FORMS.values() if _determined(form, data)]
    if not fitted:
        return None
    ranked = [(_left_out(form, theta, points, deviations), form, theta) for form, theta in fitted]
    arithmetic = ROUNDING * float(np.mean(np.abs(data.error)))
    loo, form, theta = min(ranked, key=lambda one: max(one[0], arithmetic))
    return Surface(
        form=form.name,
        formula=form.formula,
        params=dict(zip(form.parameters, theta.tolist())),
        intervals=_intervals(form, data, theta, bootstrap, seed),
        r2=_r2(form, data, theta),
        leave_one_out=loo,
        warnings=_at_bound(theta),
    )


def refit(surface: Surface, points: Points, deviations: Points | None = None) -> Predictor:
    """A surface of the same form through other points, searched for from this one."""
    return _refit(FORMS[surface.form], _theta(surface), points, deviations)


def _refit(form: SurfaceForm, theta: Array, points: Points, deviations: Points | None) -> Predictor:
    near = _fit(form, _columns(points, deviations), theta[-2:])
    return lambda setting: _at(form, near, setting)


def _left_out(form: SurfaceForm, theta: Array, points: Points, deviations: Points | None) -> float:
    """Root mean square error at points left out."""
    errors = leave_one_out(points, lambda others: _refit(form, theta, others, deviations))
    return math.sqrt(float(np.mean(np.square(list(errors.values())))))


def _at_bound(theta: Array) -> tuple[str, ...]:
    """Exponents that the range searched stopped."""
    return tuple(
        f"{name} is at its bound {bound:g}"
        for name, value in zip("ab", theta[-2:])
        for bound in EXPONENTS
        if abs(math.log(value / bound)) < 1e-3
    )


def _theta(surface: Surface) -> Array:
    return np.array(list(surface.params.values()))


def _at(form: SurfaceForm, theta: Array, setting: Setting) -> float:
    nfe, members = np.array(setting, dtype=float)
    a, b = theta[-2:]
    return float(np.array(form.terms(nfe**-a, members**-b)) @ theta[:-2])


def _fit(form: SurfaceForm, data: _Data, start: Array | None = None) -> Array:
    """Linear parameters, then a and b; `start` are exponents near by, or none are known."""
    if start is None:
        grid = np.geomspace(*EXPONENTS, STARTS)
        pairs = [np.array([a, b]) for a in grid for b in grid]
        start = min(pairs, key=lambda pair: np.sum(_left_over(form, data, pair) ** 2))
    found = least_squares(
        lambda logs: _left_over(form, data, np.exp(logs)),
        np.clip(np.log(start), *np.log(EXPONENTS)),
        bounds=np.log(EXPONENTS),
        max_nfev=MAX_EVALUATIONS,
    )
    exponents = np.exp(found.x)
    return np.concatenate([_project(form, data, exponents), exponents])


def _project(form: SurfaceForm, data: _Data, exponents: Array) -> Array:
    """The best linear parameters for these exponents."""
    design = _design(form, data, exponents) * data.weight[:, None]
    return nnls(design, data.error * data.weight)[0]


def _left_over(form: SurfaceForm, data: _Data, exponents: Array) -> Array:
    """Weighted residuals "n" of the best surface with these exponents."""
    theta = np.concatenate([_project(form, data, exponents), exponents])
    return data.weight * (_curve(form, data, theta) - data.error)


def _design(form: SurfaceForm, data: _Data, exponents: Array) -> Array:
    a, b = exponents
    return np.stack(form.terms(data.nfe**-a, data.members**-b), axis=1)


def _curve(form: SurfaceForm, data: _Data, theta: Array) -> Array:
    return _design(form, data, theta[-2:]) @ theta[:-2]


def _columns(points: Points, deviations: Points | None) -> _Data:
    nfe, members = np.array(list(points), dtype=float).reshape(-1, 2).T
    spread = np.array([(deviations or {}).get(setting, math.nan) for setting in points])
    usable = np.isfinite(spread).all() and (spread > 0).all()
    weight = 1 / spread if usable else np.ones(len(points))
    weight = weight / math.sqrt(float(np.mean(weight**2)) or 1.0) if len(points) else weight
    return _Data(nfe, members, np.array(list(points.values()), dtype=float), weight)


def _determined(form: SurfaceForm, data: _Data) -> bool:
    varied = min(len(np.unique(data.nfe)), len(np.unique(data.members)))
    return varied >= MIN_SETTINGS and len(data.error) >= len(form.parameters) + SPARE_POINTS


def _r2(form: SurfaceForm, data: _Data, theta: Array) -> float:
    left = np.sum((data.weight * (data.error - _curve(form, data, theta))) ** 2)
    mean = np.average(data.error, weights=data.weight**2)
    spread = np.sum((data.weight * (data.error - mean)) ** 2)
    return float(1 - left / spread) if spread else math.nan


def _intervals(
    form: SurfaceForm, data: _Data, theta: Array, count: int, seed: int
) -> dict[str, tuple[float, float]]:
    """Residual bootstrap in units of the points' deviations; each draw searched from `theta`."""
    if not count:
        return dict.fromkeys(form.parameters, (math.nan, math.nan))
    curve = _curve(form, data, theta) * data.weight
    scatter = data.error * data.weight - curve
    resampler = residuals(curve, scatter, len(theta))
    rng = np.random.default_rng(seed)
    draws = [
        _fit(form, data._replace(error=resampler.draw(rng)[1] / data.weight), theta[-2:])
        for _ in range(count)
    ]
    tail = (1 - LEVEL) / 2
    lo, hi = np.quantile(draws, [tail, 1 - tail], axis=0)
    return dict(zip(form.parameters, zip(lo.tolist(), hi.tolist())))
