"""Interpolation on the grid of NFE x members: exact where it must be, silent outside."""

from __future__ import annotations

import math

import pytest

from stepsight.scaling.sampling.interpolation import interpolate, leave_one_out, root_mean_square


def grid(value, nfe=(1, 2, 4, 8), members=(1, 2, 4)):
    return {(t, n): value(t, n) for t in nfe for n in members}


def test_measured_settings_come_back():
    points = grid(lambda t, n: math.sin(t) + math.cos(n))
    assert all(interpolate(points, at) == value for at, value in points.items())


def test_exact_for_what_is_linear_in_the_axes():
    def line(t, n):
        return 3 - 0.4 * math.log(t) - 0.2 * math.log(n) + 0.1 * math.log(t) * math.log(n)

    assert interpolate(grid(line), (3, 3)) == pytest.approx(line(3, 3), rel=1e-12)

    def price(t, n):
        return 7 + 2.5 * t * n

    assert interpolate(grid(price), (5, 3), axis=float) == pytest.approx(price(5, 3), rel=1e-12)


@pytest.mark.parametrize("at", [(16, 1), (1, 8), (16, 8)])
def test_nothing_beyond_the_range(at):
    assert math.isnan(interpolate(grid(lambda t, n: 1.0), at))
    assert math.isnan(interpolate({}, (1, 1)))


def test_columns_that_do_not_reach_are_passed_over():
    points = {(1, 1): 1.0, (1, 4): 3.0, (2, 1): 9.0, (4, 1): 3.0, (4, 4): 5.0}
    assert interpolate(points, (2, 2)) == pytest.approx(
        3.0
    )  # between NFE 1 and 4: 2 has one member
    assert interpolate(points, (2, 1)) == 9.0


def test_leaving_out_predicts_from_the_others_alone():
    points = grid(lambda t, n: -math.log(t * n)) | {(2, 2): 5.0}
    errors = leave_one_out(points, lambda others: lambda at: interpolate(others, at))
    assert errors[2, 2] == pytest.approx(5.0 + math.log(4))
    assert {at for at, error in errors.items() if math.isnan(error)} == {
        (1, 1), (1, 4), (8, 1), (8, 4)
    }  # fmt: skip
    assert root_mean_square([3.0, -4.0]) == pytest.approx(math.sqrt(12.5))
    assert math.isnan(root_mean_square([]))
