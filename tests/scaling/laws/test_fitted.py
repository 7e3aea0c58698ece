"""What a fit predicts, how wide it forecasts, and where it says that it goes too far."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stepsight.errors import UserError
from stepsight.scaling.laws.fits import fit

X = np.geomspace(1e4, 1e8, 16)
GRID = np.array([(n, d) for n in np.geomspace(1e7, 1e9, 5) for d in np.geomspace(1e8, 1e11, 6)])


def noisy(y: np.ndarray, seed: int, scale: float) -> np.ndarray:
    return y * np.exp(scale * np.random.default_rng(seed).standard_normal(len(y)))


def surface(n, d):
    return 1.69 + 406.4 / n**0.34 + 410.7 / d**0.28


def test_predictions_by_columns_by_rows_and_by_role():
    names = ("width", "images")
    one = fit("chinchilla", GRID, surface(*GRID.T), inputs=names, bootstrap=0)
    wanted = surface(*GRID.T)
    np.testing.assert_allclose(one.predict(GRID), wanted, rtol=1e-6)
    np.testing.assert_allclose(one.predict(GRID.reshape(5, 6, 2)), wanted.reshape(5, 6), rtol=1e-6)
    for keys in (names, ("params", "tokens")):
        np.testing.assert_allclose(one.predict(dict(zip(keys, GRID.T))), wanted, rtol=1e-6)
    broadcast = one.predict({"params": 1e8, "tokens": GRID[:6, 1]})
    np.testing.assert_allclose(broadcast, surface(1e8, GRID[:6, 1]), rtol=1e-6)
    assert one.x_range == {"width": (1e7, 1e9), "images": (1e8, 1e11)}
    with pytest.raises(UserError, match="no value of 'images'"):
        one.predict({"width": 1e8, "image": 1e9})
    with pytest.raises(UserError, match="columns width, images"):
        one.predict(GRID[:, 0])


def test_predictions_of_one_input_have_any_shape():
    one = fit("power", X, 4 * X**-0.1, bootstrap=0)
    assert one.predict(1e6) == pytest.approx(4 * 1e6**-0.1)
    assert one.predict({"x": X.reshape(4, 4)}).shape == (4, 4)
    assert one.x_range == (1e4, 1e8)


def test_a_steep_law_is_predicted_though_its_amplitude_overflows():
    x = np.geomspace(1e150, 1e152, 6)
    one = fit("power", x, (x / 1e151) ** -5.0, bootstrap=0)
    assert one.params["A"] > 1e300
    np.testing.assert_allclose(one.predict(x), (x / 1e151) ** -5.0, rtol=1e-6)


def test_far_places_are_named():
    one = fit("chinchilla", GRID, noisy(surface(*GRID.T), 0, 0.01))
    assert one.forecast({"params": 2.9e10, "tokens": 1e11}).warnings == ()
    far = one.forecast([3.1e10, 1e11])
    assert len(far.warnings) == 1 and "beyond 30 times the data (params" in far.warnings[0]
    with pytest.warns(UserWarning, match="tokens"):
        one.predict([1e8, 1e6])


def test_a_forecast_needs_no_resamples_but_points():
    y = noisy(4 * X**-0.1, 1, 0.01)
    with_draws, without = (fit("power", X, y, bootstrap=n) for n in (50, 0))
    assert without.forecast(1e9) == with_draws.forecast(1e9)
    few = fit("power", X[:3], y[:3]).forecast(1e9)
    assert math.isnan(few.lo) and "too few points" in few.warnings[-1]


def test_a_forecast_is_as_wide_as_the_scatter_and_the_parameters():
    """Beside the data, that of a regression's prediction; farther out it grows."""
    x, noise = np.geomspace(1e4, 1e8, 200), 0.03
    one = fit("power", x, noisy(4 * x**-0.1, 1, noise), huber=math.inf, intervals="profile")
    near, wide, out = (
        one.forecast(at, level) for at, level in ((1e6, 0.5), (1e6, 0.9), (1e9, 0.9))
    )
    assert math.log(wide.hi / wide.lo) == pytest.approx(2 * 1.645 * noise, rel=0.15)
    assert near.hi - near.lo < 0.6 * (wide.hi - wide.lo)
    assert math.log(out.hi / out.lo) > math.log(wide.hi / wide.lo)
    assert wide.lo < wide.value < wide.hi and wide.level == 0.9


def test_forecasts_hold_new_measurements():
    """Twice beyond the data of a law with floor, nine times in ten."""
    held, at, draws = 0, 2e8, 60
    for seed in range(draws):
        one = fit("power_floor", X, noisy(0.12 + 4 * X**-0.25, seed, 0.02), bootstrap=0)
        said = one.forecast(at)
        new = (0.12 + 4 * at**-0.25) * math.exp(0.02 * np.random.default_rng(seed + 999).normal())
        held += said.lo <= new <= said.hi
    assert 0.8 <= held / draws <= 0.98


def test_same_forecast_every_time():
    one = fit("power", X, noisy(4 * X**-0.1, 2, 0.02))
    assert one.forecast(1e9) == one.forecast({"x": 1e9})
