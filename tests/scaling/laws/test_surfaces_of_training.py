"""Laws in two inputs: known constants come back, and designs and shapes are judged per input."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stepsight.errors import UserError
from stepsight.scaling.laws.fits import Fit, compare, fit

HOFFMANN = {"E": 1.69, "A": 406.4, "alpha": 0.34, "B": 410.7, "beta": 0.28}
BESIROGLU = {"E": 1.8172, "A": 482.01, "alpha": 0.3478, "B": 2085.43, "beta": 0.3658}
KAPLAN = {"E": 1.967, "A": 6.68e7, "alpha": 0.4129, "B": 8.9e8, "beta": 0.4556}


def grid(a, b) -> np.ndarray:
    return np.array([(x, y) for x in a for y in b], dtype=float)


RUNS = grid(np.geomspace(1e7, 1e10, 8), np.geomspace(1e8, 1e12, 8))
DIALS = grid((1, 2, 4, 8, 16, 32), (1, 2, 4, 8))


def hoffmann(x: np.ndarray, E, A, alpha, B, beta) -> np.ndarray:
    return E + A * x[:, 0] ** -alpha + B * x[:, 1] ** -beta


def kaplan(x: np.ndarray, E, A, alpha, B, beta) -> np.ndarray:
    return ((A / x[:, 0]) ** (alpha / beta) + B / x[:, 1]) ** beta + E


def noisy(y: np.ndarray, seed: int, scale: float = 0.01) -> np.ndarray:
    return y * np.exp(scale * np.random.default_rng(seed).standard_normal(len(y)))


def warned(one: Fit, word: str) -> bool:
    return any(word in warning for warning in one.warnings)


@pytest.mark.parametrize("truth", [HOFFMANN, BESIROGLU])
def test_noise_free_points_give_the_constants_of_hoffmanns_form(truth: dict[str, float]):
    one = fit("chinchilla", RUNS, hoffmann(RUNS, **truth), bootstrap=0)
    assert one.params == pytest.approx(truth, rel=1e-5)
    assert one.verdict == "law" and one.inputs == ("params", "tokens")


def test_noise_free_points_give_the_constants_of_kaplans_form():
    one = fit("kaplan", RUNS, kaplan(RUNS, **KAPLAN), bootstrap=0)
    assert one.params == pytest.approx(KAPLAN, rel=1e-5)


def test_units_do_not_matter():
    units = np.array([1e-6, 1e9])
    y = noisy(hoffmann(RUNS, **HOFFMANN), 0)
    plain, other = fit("chinchilla", RUNS, y), fit("chinchilla", RUNS * units, 7 * y)
    assert other.params["alpha"] == pytest.approx(plain.params["alpha"], rel=1e-6)
    assert other.params["E"] == pytest.approx(7 * plain.params["E"], rel=1e-6)
    scaled = 7 * plain.params["A"] * units[0] ** plain.params["alpha"]
    assert other.params["A"] == pytest.approx(scaled, rel=1e-5)


def test_comparison_tells_the_two_forms_apart():
    for name, law, truth in (("chinchilla", hoffmann, HOFFMANN), ("kaplan", kaplan, KAPLAN)):
        fits = compare(RUNS, noisy(law(RUNS, **truth), 1, 0.003), bootstrap=0)
        assert list(fits)[0] == name
        best, other = fits.values()
        assert best.aicc < other.aicc - 10 and best.held_out < other.held_out


def test_a_term_may_vanish():
    y = noisy(0.1 + 0.3 * DIALS[:, 0] ** -0.5, 0)
    one = fit("members", DIALS, y)
    assert one.params["E"] + one.params["B"] == pytest.approx(0.1, abs=0.01)
    assert one.params["a"] == pytest.approx(0.5, abs=0.05)
    assert warned(one, "plateau in members") and not warned(one, "plateau in steps")
    assert one.verdict == "improves but no law"


def test_verdicts():
    t, n = DIALS.T
    for wanted, y in (
        ("law", 0.05 + 0.3 * t**-0.5 + 0.2 * n**-0.7),
        ("saturated", 0.2 + 0.5 * (t == 1) + 0.3 * (n == 1)),
        ("not monotone", 0.1 + 0.1 * t**0.5 + 0.1 / n),
        ("not monotone", np.exp(0.2 * np.random.default_rng(0).standard_normal(len(t)))),
    ):
        assert fit("members", DIALS, y, bootstrap=30).verdict == wanted


def test_designs_that_determine_nothing():
    y = hoffmann(DIALS, 0.1, 0.3, 0.5, 0.2, 0.7)
    two = DIALS[:, 1] < 3  # members 1 and 2
    found = fit("members", DIALS[two], y[two], bootstrap=10)
    assert found.verdict == "too few points" and warned(found, "2 values of members")
    assert all(math.isnan(lo) for lo, _ in found.intervals.values())
    assert fit("members", DIALS[:6], y[:6]).verdict == "too few points"
    assert math.isnan(fit("members", DIALS[:4], y[:4]).params["E"])
    wide = fit("members", DIALS, y, bootstrap=0)
    assert warned(wide, "steps spans 1.5 decades") and warned(wide, "members spans 0.9 decades")


def test_the_inputs_must_be_as_many_as_the_form_has():
    with pytest.raises(UserError, match=r"form of 2 columns of x \(params, tokens\); there are 1"):
        fit("chinchilla", RUNS[:, 0], RUNS[:, 1])
    with pytest.raises(UserError, match="64 of 64 values of tokens are not positive"):
        fit("chinchilla", RUNS * [1, -1], RUNS[:, 0])


def test_bnsl_finds_its_break_and_demands_ten_points():
    truth = {"a": 0.05, "b": 1.5, "c0": 0.05, "c1": 0.3, "d": 1e5, "f": 0.5}
    x = np.geomspace(1e2, 1e9, 40)
    y = 0.05 + 1.5 * x**-0.05 * (1 + (x / 1e5) ** 2.0) ** -0.15
    assert fit("bnsl", x, y, bootstrap=0).params == pytest.approx(truth, rel=1e-4)
    short = fit("bnsl", x[::5], y[::5])
    assert short.verdict == "too few points" and warned(short, "8 distinct x, bnsl needs 10")


def test_a_shifted_power_law_finds_its_shift():
    x = np.geomspace(1, 1e5, 20)
    one = fit("power_shifted", x, 0.12 + 2.0 * (x + 30.0) ** -0.5, bootstrap=0)
    assert one.params == pytest.approx({"E": 0.12, "A": 2.0, "a": 0.5, "x0": 30.0}, rel=1e-5)
    straight = fit("power_shifted", x, 0.12 + 2.0 * x**-0.5, bootstrap=0)
    assert straight.params["x0"] < 0.01 and warned(straight, "x0 is at its bound")


def test_an_outlier_does_not_carry_the_surface_away():
    y = hoffmann(RUNS, **HOFFMANN)
    y[10] *= 1.5
    robust = fit("chinchilla", RUNS, y, bootstrap=0, huber=1e-3)
    squares = fit("chinchilla", RUNS, y, bootstrap=0, huber=math.inf)
    off = [abs(one.params["E"] - HOFFMANN["E"]) for one in (robust, squares)]
    assert off[0] < 0.01 < off[1]
