"""Outliers are named and said to be what they are; the bend of a curve is none."""

from __future__ import annotations

import numpy as np
import pytest

from stepsight.scaling.laws.fits import fit
from stepsight.scaling.rows.curve import CurveRows
from stepsight.scaling.rows.outliers import Outliers, outliers

X = np.geomspace(1e12, 1e16, 12)


def found(form: str, x: np.ndarray, y: np.ndarray) -> Outliers | None:
    table = x.reshape(len(y), -1)
    columns = {f"x{k}": column for k, column in enumerate(table.T)}
    names = tuple(f"line {number}" for number in range(2, len(y) + 2))
    return outliers(
        fit(form, table, y, bootstrap=0),
        CurveRows(columns, y, "y", names),
        lambda kept: fit(form, table[kept], y[kept], bootstrap=0),
    )


def power(seed: int, sigma: float = 0.02) -> np.ndarray:
    return 4 * X**-0.1 * np.exp(sigma * np.random.default_rng(seed).standard_normal(len(X)))


@pytest.mark.parametrize("place", [0, 5, 11])
@pytest.mark.parametrize("form", ["power", "power_floor"])
def test_one_outlier_is_named_wherever_it_lies(place, form):
    for seed in range(2):
        y = power(seed)
        y[place] *= 1.65
        odd = found(form, X, y)
        assert odd and f"line {place + 2}" in odd.names, seed
        assert odd.off[odd.places.index(place)] == pytest.approx(0.65, abs=0.25)
        assert odd.without.n == 12 - len(odd.places)
        assert (
            odd.without.params
            == fit(form, np.delete(X, odd.places), np.delete(y, odd.places), bootstrap=0).params
        )
        assert "far from the law of all other rows" in str(odd)


def test_two_outliers_do_not_hide_each_other():
    y = power(0)
    y[3] *= 1.65
    y[8] /= 1.5
    odd = found("power", X, y)
    assert odd and odd.names == ("line 5", "line 10")


def test_clean_rows_have_none():
    named = [found(form, X, power(seed)) for form in ("power", "power_floor") for seed in range(6)]
    assert sum(odd is not None for odd in named) <= 1


def test_the_ends_of_a_bending_curve_are_none():
    u = np.log(X / X[0])
    for seed in range(6):
        noise = np.exp(0.01 * np.random.default_rng(seed).standard_normal(12))
        for curve in (np.exp(-0.1 * u - 0.02 * u**2), 0.3 + np.exp(-0.3 * u)):
            assert found("power", X, curve * noise) is None


def test_too_few_rows_name_none():
    y = power(1)[:4]
    y[2] *= 1.65
    assert found("power", X[:4], y) is None


@pytest.mark.slow
def test_those_that_besiroglu_et_al_leave_out(published):
    """arXiv:2404.10102 drops the five highest of Hoffmann's losses."""
    table = published("chinchilla_epoch_svg_points.csv")
    n, d, loss = (
        np.array([float(row[name]) for row in table]) for name in ("params", "tokens", "loss")
    )
    odd = found("chinchilla", np.stack([n, d], axis=1), loss)
    highest = [f"line {place + 2}" for place in np.argsort(-loss)[:5]]
    assert odd and set(odd.names) <= set(highest) and len(odd.names) >= 2
    whole = fit("chinchilla", np.stack([n, d], axis=1), loss, bootstrap=0)
    assert odd.without.params["beta"] < whole.params["beta"]  # .41 to .45 instead of .48
