"""The forms themselves: derivatives, the two sets of parameters, and how forms contain others."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime, nnls

from stepsight.errors import UserError
from stepsight.scaling.laws.forms import FORMS, LogForm, find_form
from stepsight.scaling.laws.forms.projection import project

RNG = np.random.default_rng(0)
CURVES = [name for name, form in FORMS.items() if len(form.inputs) == 1]


def data(form: LogForm, n: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centred logs of a plausible law, and a centre."""
    u = RNG.uniform(-4, 4, (n, len(form.inputs)))
    v = np.log(0.5 + np.exp(-0.3 * u.sum(axis=1)))
    return u - u.mean(axis=0), v - v.mean(), RNG.normal(size=len(form.inputs) + 1)


def some(form: LogForm, u: np.ndarray, v: np.ndarray, count: int = 6) -> np.ndarray:
    """Starts well inside the bounds."""
    lower, upper = form.bounds(u, v)
    starts = form.starts(u, v)
    drawn = starts[RNG.integers(len(starts), size=count)] + 0.01
    return np.clip(drawn, lower + 0.05, upper - 0.05)


def evaluated(form: LogForm, log_x: np.ndarray, **params: float) -> np.ndarray:
    """log y of a reported law."""
    logs = [np.log(params[k]) if k in form.logs else params[k] for k in form.parameters]
    return form.evaluate(np.array([logs]), log_x)[0]


@pytest.mark.parametrize("name", FORMS)
def test_jacobians(name: str):
    form = FORMS[name]
    u, v, centre = data(form)
    for q in some(form, u, v):
        slopes = form.jacobian(q[None], u)[0]
        numeric = approx_fprime(q, lambda p: form.curve(p[None], u)[0], 1e-7)
        np.testing.assert_allclose(slopes, numeric, rtol=1e-4, atol=1e-5)
        turned = form.natural_jacobian(q[None], centre)[0]
        numeric = approx_fprime(q, lambda p: form.natural(p[None], centre)[0], 1e-7)
        np.testing.assert_allclose(turned, numeric, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FORMS)
def test_natural_parameters_are_the_same_curve_without_a_centre(name: str):
    form = FORMS[name]
    u, v, centre = data(form)
    form = form.centred(centre)
    q = some(form, u, v)
    found = FORMS[name].evaluate(form.natural(q, centre), u + centre[:-1])
    np.testing.assert_allclose(found, form.curve(q, u) + centre[-1], atol=1e-9)


@pytest.mark.parametrize("name", FORMS)
def test_a_natural_parameter_is_linear_in_its_own_inner_one(name: str):
    """Which is what lets a profile pin it."""
    form = FORMS[name]
    u, v, centre = data(form)
    q = some(form, u, v, 1)
    own = np.einsum("bkk->bk", form.natural_jacobian(q, centre))[0]
    for i, step in enumerate(0.3 * np.eye(len(form.parameters))):
        moved = form.natural(q + step, centre)[0, i] - form.natural(q, centre)[0, i]
        assert moved == pytest.approx(0.3 * own[i], rel=1e-9)


@pytest.mark.parametrize("name", FORMS)
def test_searches_begin_within_the_bounds(name: str):
    form = FORMS[name]
    u, v, _ = data(form)
    lower, upper = form.bounds(u, v)
    starts = form.starts(u, v)
    assert np.isfinite(starts).all() and (lower < upper).all()
    inside = (starts >= lower - 1e-9) & (starts <= upper + 1e-9)
    assert inside.mean() > 0.7


def test_formulas_as_printed():
    x, n, d = np.array([1e2, 1e4, 1e7]), np.array([1e7, 1e8, 1e9]), np.array([2e8, 1e10, 5e9])
    one, two = np.log(x)[:, None], np.log(np.stack([n, d], axis=1))
    floor = 0.1 + 4 * x**-0.3
    shifted = 0.1 + 4 * (x + 50.0) ** -0.3
    broken = 0.1 + 4 * x**-0.2 * (1 + (x / 1e4) ** (1 / 0.5)) ** (-0.3 * 0.5)
    hoffmann = 1.69 + 406.4 / n**0.34 + 410.7 / d**0.28
    kaplan = ((6e7 / n) ** (0.41 / 0.46) + 8e8 / d) ** 0.46 + 1.97
    laws = {"A": 406.4, "B": 410.7}
    for name, log_x, params, wanted in (
        ("power", one, {"A": 4.0, "a": 0.3}, 4 * x**-0.3),
        ("power_floor", one, {"E": 0.1, "A": 4.0, "a": 0.3}, floor),
        ("power_shifted", one, {"E": 0.1, "A": 4.0, "a": 0.3, "x0": 50.0}, shifted),
        ("bnsl", one, {"a": 0.1, "b": 4.0, "c0": 0.2, "c1": 0.3, "d": 1e4, "f": 0.5}, broken),
        ("chinchilla", two, laws | {"E": 1.69, "alpha": 0.34, "beta": 0.28}, hoffmann),
        ("members", two, laws | {"E": 1.69, "a": 0.34, "b": 0.28}, hoffmann),
        ("kaplan", two, {"E": 1.97, "A": 6e7, "alpha": 0.41, "B": 8e8, "beta": 0.46}, kaplan),
    ):
        np.testing.assert_allclose(evaluated(FORMS[name], log_x, **params), np.log(wanted), 1e-9)


def test_forms_contain_the_power_law_with_floor():
    log_x = np.log(np.geomspace(1, 1e6, 9))[:, None]
    law = {"E": 0.2, "A": 3.0, "a": 0.4}
    wanted = evaluated(FORMS["power_floor"], log_x, **law)
    shifted = evaluated(FORMS["power_shifted"], log_x, **law, x0=1e-12)
    unbroken = {"a": 0.2, "b": 3.0, "c0": 0.4, "c1": 0.0, "d": 1e3, "f": 0.5}
    np.testing.assert_allclose(shifted, wanted, atol=1e-9)
    np.testing.assert_allclose(evaluated(FORMS["bnsl"], log_x, **unbroken), wanted, atol=1e-9)


def test_a_steep_law_neither_overflows_nor_stops_at_its_floor():
    u = np.linspace(-60, 60, 7)
    steep = FORMS["power_floor"].curve(np.array([[0.5, 0.0, 10.0]]), u[:, None])[0]
    assert steep[0] == pytest.approx(600) and steep[-1] == pytest.approx(np.log(0.5))


def test_projection_is_non_negative_least_squares():
    """Three columns, some of which the solution leaves out."""
    for _ in range(30):
        columns, target = RNG.normal(size=(4, 9, 3)), RNG.uniform(0.5, 2, 9)
        weights = RNG.uniform(0.5, 2, 9)
        found = np.exp(project(columns, target, weights))
        for one, design in zip(found, np.exp(columns)):
            wanted, _ = nnls(design * weights[:, None], target * weights)
            np.testing.assert_allclose(one, wanted, atol=1e-7)


def test_a_power_of_exponent_zero_is_a_floor():
    form, u = FORMS["members"], RNG.normal(size=(9, 2))
    q = np.array([[0.3, -0.5, 0.4, -1.0, 0.0], [0.3, -0.5, 0.4, -1.0, 0.2]])
    found = form.canonical(q)
    np.testing.assert_allclose(form.curve(found, u), form.curve(q, u), atol=1e-12)
    assert found[0, 0] == pytest.approx(0.3 + np.exp(-1.0)) and found[0, 3] < -50
    np.testing.assert_array_equal(found[1], q[1])


def test_unknown_names_suggest():
    with pytest.raises(UserError, match="Did you mean 'chinchilla'"):
        find_form("chinchila")
