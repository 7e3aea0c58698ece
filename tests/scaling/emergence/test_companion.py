"""Whether a jump is the metric's: one that is, one that is not, and what cannot be told."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from stepsight.errors import UserError
from stepsight.scaling.emergence.companion import Companion, fit_companion, judge
from stepsight.scaling.emergence.elbow import EmergenceFit, fit_columns

X = ("loss", "images")
LOSS, IMAGES = (
    part.ravel() for part in np.meshgrid(np.linspace(2.25, 1.9, 8), 64 * 4.0 ** np.arange(5))
)
DEPTH = np.maximum(0, 0.06 * np.log(IMAGES) ** 0.9 + 1.8 - LOSS)
SMOOTH = 0.10 * (LOSS / 2) ** 3 * (IMAGES / 1000) ** -0.08


def noise(sigma: float, seed: int) -> np.ndarray:
    return sigma * np.random.default_rng(seed).standard_normal(len(LOSS))


def elbow(y: np.ndarray) -> EmergenceFit:
    return fit_columns({"loss": LOSS, "images": IMAGES, "y": y}, X, "y", bootstrap=0)


def companion(y: np.ndarray) -> Companion:
    return fit_companion({"loss": LOSS, "images": IMAGES, "y": y}, X, "y")


def thresholded(seed: int) -> EmergenceFit:
    """The share of pixels with an error below .1, when errors of one image scatter by 5 %."""
    share = norm.cdf(np.log(0.1 / SMOOTH) / 0.05)
    return elbow(share + noise(0.005, seed))


def test_smooth_fits_are_exact():
    power = companion(SMOOTH)
    assert power.form == "power" and power.r2 == pytest.approx(1) and power.sign == -1
    for images, (a, b) in power.coefficients.items():
        assert b == pytest.approx(3) and a == pytest.approx(0.0125 * (images / 1000) ** -0.08)
    line = companion(2 - 0.5 * LOSS + 0.01 * np.log(IMAGES))
    assert line.form == "linear" and line.sign == 1
    assert line.coefficients[64.0] == pytest.approx((2 + 0.01 * math.log(64), -0.5))
    assert companion(-SMOOTH).form == "linear"  # a power law has no values below zero


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sigma", [0.0, 0.01])
def test_the_jump_is_the_metrics(seed: int, sigma: float):
    """The error falls as one power law throughout; a threshold makes an elbow of it."""
    judged = judge(thresholded(seed), companion(SMOOTH * np.exp(noise(sigma, seed + 9))))
    assert judged.verdict == "the metric's" and "only the thresholded one jumps" in judged.sentence
    assert judged.before == pytest.approx(judged.after, rel=0.5)


@pytest.mark.parametrize("seed", range(5))
def test_the_jump_is_the_models(seed: int):
    """The error itself stays where it is until the elbow, and falls from there."""
    error = 0.3 - 0.4 * DEPTH - 0.01 * (2.25 - LOSS)
    judged = judge(
        elbow(0.45 * DEPTH + 0.25 + noise(0.003, seed)),
        companion(error * np.exp(noise(0.01, seed + 9))),
    )
    assert judged.verdict == "the model's" and judged.interval[0] > 0
    assert judged.after == pytest.approx(0.4, abs=0.1) and abs(judged.before) < 0.15


def test_rates_without_noise():
    """Improvement by 0.1 a unit of loss before the elbow, by 0.3 after: more than twice as fast.
    Values below zero keep the fit to lines."""
    one = elbow(0.45 * DEPTH + 0.25)
    for sign in (1, -1):
        metric = sign * (0.1 * LOSS - 0.2 * DEPTH) - 1
        judged = judge(one, companion(metric))
        assert (judged.before, judged.after) == pytest.approx((0.1, 0.3), rel=1e-4)
        assert judged.verdict == "the model's"
        assert judged.interval == pytest.approx((0.1, 0.1), rel=1e-4)
    gentle = judge(one, companion(0.2 * LOSS - 0.1 * DEPTH - 1))  # half as fast again
    assert gentle.verdict == "the metric's" and gentle.after == pytest.approx(0.3, rel=1e-4)


def test_what_cannot_be_told():
    one = elbow(0.45 * DEPTH + 0.25 + noise(0.003, 0))
    trendless = judge(one, companion(0.2 + noise(0.01, 5)))
    assert trendless.verdict == "undecided" and "no trend" in trendless.sentence
    even = companion(0.5 + 0.1 * LOSS - 0.1 * DEPTH + noise(0.002, 5))
    assert judge(one, even).verdict == "undecided"
    kept = np.isin(LOSS, np.unique(LOSS)[:3])
    beyond = {"loss": LOSS[kept] - 0.3, "images": IMAGES[kept], "y": SMOOTH[kept]}
    sides = judge(one, fit_companion(beyond, X, "y"))
    assert sides.verdict == "undecided" and "one side" in sides.sentence


def test_no_jump_to_explain():
    line = elbow(1.2 - 0.4 * LOSS + noise(0.003, 1))
    judged = judge(line, companion(SMOOTH))
    assert judged.verdict == "no jump" and math.isnan(judged.before)


def test_two_models_make_no_line():
    kept = np.isin(LOSS, np.unique(LOSS)[:2])
    with pytest.raises(UserError, match="2 models at 64 images"):
        fit_companion({"loss": LOSS[kept], "images": IMAGES[kept], "y": SMOOTH[kept]}, X, "y")
