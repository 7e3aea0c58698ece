"""Surfaces over both dials: known parameters come back, and the right form is chosen."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stepsight.scaling.sampling.axes import joint_verdict
from stepsight.scaling.sampling.surface import FORMS, fit_surface, left_out

NFE, MEMBERS = (1, 2, 4, 8, 16, 32), (1, 2, 4, 8)


def points(value, noise=0.0, nfe=NFE, members=MEMBERS):
    rng = np.random.default_rng(0)
    return {(t, n): value(t, n) * (1 + noise * rng.normal()) for t in nfe for n in members}


def separable(t, n):
    return 0.15 + 0.3 * t**-1.2 + 0.08 * n**-0.7


def interaction(t, n):
    return 0.12 + 0.1 * t**-0.6 + (0.01 + 0.14 * (1 - t**-0.6)) * n**-1.0


def test_separable_parameters_come_back():
    surface = fit_surface(points(separable), bootstrap=5)
    assert surface is not None and surface.form == "separable"
    wanted = {"E": 0.15, "A": 0.3, "B": 0.08, "a": 1.2, "b": 0.7}
    assert surface.params == pytest.approx(wanted, rel=1e-3)
    assert surface.r2 > 1 - 1e-6 and surface.warnings == ()
    assert surface.predict((64, 16)) == pytest.approx(separable(64, 16), rel=1e-3)


def test_steps_that_hurt_alone_need_the_interaction():
    measured = points(interaction)
    assert measured[32, 1] > measured[1, 1] and measured[32, 8] < measured[1, 8]
    surface = fit_surface(measured, bootstrap=5)
    assert surface is not None and surface.form == "interaction"
    wanted = {"E": 0.12, "A": 0.1, "B": 0.01, "D": 0.14, "a": 0.6, "b": 1.0}
    assert surface.params == pytest.approx(wanted, rel=0.02)
    worst = max(abs(surface.predict(at) / value - 1) for at, value in measured.items())
    assert worst < 1e-4


def test_the_interaction_falls_with_members_at_every_step():
    surface = fit_surface(points(interaction, noise=0.02), bootstrap=0)
    assert surface is not None
    for t in range(1, 33):
        along = [surface.predict((t, n)) for n in range(1, 17)]
        assert np.all(np.diff(along) <= 0)


def test_intervals_cover_the_truth_and_widen_with_noise():
    wanted = {"E": 0.15, "A": 0.3, "B": 0.08, "a": 1.2, "b": 0.7}
    widths = []
    for noise in (0.002, 0.01):
        surface = fit_surface(points(separable, noise), bootstrap=60)
        assert surface is not None and surface.form == "separable"
        lo, hi = np.array([surface.intervals[name] for name in wanted]).T
        slack = 0.5 * (hi - lo)
        truth = np.array(list(wanted.values()))
        assert np.all((lo - slack <= truth) & (truth <= hi + slack))
        widths.append(hi - lo)
    assert np.all(widths[1] > widths[0])


def test_deviations_weigh_the_points():
    measured = points(separable) | {(4, 4): 0.9}
    trusted = fit_surface(measured, dict.fromkeys(measured, 0.01), bootstrap=0)
    doubted = fit_surface(measured, dict.fromkeys(measured, 0.01) | {(4, 4): 10.0}, bootstrap=0)
    assert trusted is not None and doubted is not None
    off = [abs(one.predict((8, 2)) - separable(8, 2)) for one in (trusted, doubted)]
    assert off[1] < 1e-3 < off[0]


def test_scale_and_form_of_a_refit():
    whole = fit_surface(points(separable), bootstrap=0)
    assert whole is not None
    off = points(separable) | {(4, 4): 0.5}  # what is left out may be anything
    said = 0.5 - left_out(whole, off)[4, 4]
    assert said == pytest.approx(separable(4, 4), rel=1e-4)


@pytest.mark.parametrize("nfe, members", [(NFE, (1, 2)), ((4,), MEMBERS), ((1, 2), (1, 2, 4, 8))])
def test_too_few_values_of_a_dial_determine_nothing(nfe, members):
    assert fit_surface(points(separable, nfe=nfe, members=members)) is None
    assert fit_surface({}) is None


def test_a_flat_dial_is_at_its_bound():
    surface = fit_surface(points(lambda t, n: 0.2 + 0.5 * (t == 1) + 0.1 / n), bootstrap=0)
    assert surface is not None and surface.warnings == ("a is at its bound 5",)


def test_forms_nest():
    t, n = np.array([0.3, 0.7]), np.array([0.2, 0.9])
    plain, crossed = FORMS["separable"].terms(t, n), FORMS["interaction"].terms(t, n)
    assert all(np.array_equal(a, b) for a, b in zip(plain, crossed))
    assert FORMS["interaction"].parameters == ("E", "A", "B", "D", "a", "b")
    assert math.isclose(crossed[3][0], 0.7 * 0.2)


def test_an_exponent_that_the_points_do_not_tell_is_no_law():
    """Its interval reaches the end of the range searched, though its value does not."""
    rng = np.random.default_rng(3)
    exact = points(lambda t, n: 0.2 + 0.05 * t**-2.4 + 0.08 * n**-0.7, nfe=(1, 2, 4))
    measured = {at: value * (1 + 0.01 * rng.normal()) for at, value in exact.items()}
    surface = fit_surface(measured, bootstrap=60)
    assert surface is not None and surface.r2 > 0.9 and 0.05 < surface.params["a"] < 5.0
    assert surface.warnings == ("the interval of a ends at its bound 5",)
    assert joint_verdict(measured, surface) == "improves but no law"
