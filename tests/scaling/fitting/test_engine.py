"""One engine for every form: slopes against differences, optima against scipy's."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
from scipy.optimize import approx_fprime, least_squares

from stepsight.scaling.compute_allocation.isoflop import Polynomial
from stepsight.scaling.emergence.model import Elbow
from stepsight.scaling.fitting.form import Form
from stepsight.scaling.fitting.quality import aicc, condition, r_squared, stopped_at
from stepsight.scaling.fitting.search import best_of, best_start, minimise, problem
from stepsight.scaling.loss_to_loss.floored import Floored
from stepsight.scaling.sampling.surface import FORMS

RNG = np.random.default_rng(0)
GRID = np.log([(t, n) for t in (1, 2, 4, 8, 16, 32) for n in (1, 2, 4, 8)])
MODELS = np.array([(loss, np.log(d)) for loss in np.linspace(2.3, 1.9, 8) for d in (64, 512, 4096)])
X = np.linspace(1.2, 3.0, 24)[:, None]


class Case(NamedTuple):
    form: Form
    u: np.ndarray
    q: tuple[float, ...]  # that make the points
    noise: float = 0.01


CASES = {
    "separable": Case(FORMS["separable"], GRID, (0.15, 0.3, 0.08, 1.2, 0.7), 0.004),
    "interaction": Case(FORMS["interaction"], GRID, (0.12, 0.1, 0.01, 0.14, 0.6, 1.0), 0.002),
    "elbow": Case(Elbow(), MODELS, (-0.1, 1.99, 0.2, 0.45, 0.25), 0.003),
    "elbow on a base": Case(Elbow(base=0.25), MODELS, (-0.1, 1.99, 0.2, 0.45, 0.25), 0.003),
    "relation": Case(Floored(), X, (1.5, 1.1, 0.9, 0.4)),
    "relation above a floor": Case(Floored(known=(0.9, None)), X, (1.5, 1.1, 0.9, 0.4)),
    "parabola": Case(Polynomial("polynomial", "", ("a", "b", "c")), X - 2, (2.0, 0.1, 0.3)),
}


def points(case: Case) -> np.ndarray:
    exact = case.form.curve(np.array([case.q]), case.u)[0]
    return exact + case.noise * np.random.default_rng(1).standard_normal(len(exact))


@pytest.mark.parametrize("name", CASES)
def test_jacobians(name: str):
    form, u, q, _ = CASES[name]
    near = np.array(q) * (1 + 0.05 * RNG.random(len(q)))
    numeric = approx_fprime(near, lambda p: form.curve(p[None], u)[0], 1e-7)
    np.testing.assert_allclose(form.jacobian(near[None], u)[0], numeric, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_no_search_of_scipys_ends_lower(name: str):
    """From the truth, which the engine does not know."""
    case = CASES[name]
    data = problem(case.form, case.u, points(case))
    best = best_start(data)
    free = data.lower < data.upper

    def left(part: np.ndarray) -> np.ndarray:
        q = np.array(case.q)
        q[free] = part
        return case.form.curve(q[None], case.u)[0] - data.v

    bounds = data.lower[free], data.upper[free]
    theirs = least_squares(left, np.array(case.q)[free], bounds=bounds, xtol=1e-12, ftol=1e-12)
    assert best.objective[0] <= theirs.cost * (1 + 1e-9)
    assert best.converged[0] and (best.q[0, ~free] == data.lower[~free]).all()


def test_rows_are_searched_each_with_its_own_points_weights_and_bounds():
    case = CASES["relation"]
    data = problem(case.form, case.u, points(case))
    halves = np.tile(np.arange(len(X)) % 2, (2, 1)) == [[0], [1]]
    upper = np.tile(data.upper, (2, 1))
    upper[1, 3] = 0.3
    rows = data._replace(weights=halves.astype(float), upper=upper)
    starts = np.clip(case.form.starts(data.u, data.v)[::997], data.lower, 2.0)
    together = best_of(rows, np.tile(starts, (2, 1, 1)))
    for i, half in enumerate(halves):
        alone = problem(case.form, case.u, data.v)._replace(
            weights=half.astype(float), upper=upper[i]
        )
        best = minimise(alone, starts)
        assert together.objective[i] == pytest.approx(best.objective.min(), rel=1e-9)
    assert together.q[1, 3] <= 0.3


def test_measures_of_worth():
    y = np.array([1.0, 2.0, 4.0])
    assert r_squared(y, y - y.mean()) == 0 and r_squared(y, 0 * y) == 1
    assert math.isnan(r_squared(np.ones(3), y))
    doubled = r_squared(np.repeat(y, 2), np.repeat(y - 2, 2))
    assert r_squared(y, y - 2, 2 * np.ones(3)) == pytest.approx(doubled)
    assert aicc(1.0, 4, 2, 0.0) == math.inf
    assert aicc(2.0, 10, 1, 0.0) == pytest.approx(10 * math.log(0.2) + 4 + 12 / 7)
    assert stopped_at(0.0005, 0, 1) == 0 and stopped_at(0.9995, 0, 1) == 1
    assert stopped_at(0.5, 0, 1) is None and stopped_at(0.3, 0, 1, 0.3) == 0
    assert condition(np.diag([1.0, 1e6])) == pytest.approx(1)
