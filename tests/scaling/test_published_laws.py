"""Laws and points published for diffusion perception (arXiv:2411.08034), as printed and as read."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stepsight.scaling.fits import compare, fit


def columns(rows: list[dict[str, str]], *names: str) -> list[np.ndarray]:
    return [np.array([float(row[name]) for row in rows]) for name in names]


def test_points_on_a_printed_line_return_its_constants(published):
    for law in published("seed_published_power_laws.csv"):
        x = np.geomspace(float(law["line_x_min"]), float(law["line_x_max"]), 50)
        amplitude, exponent = float(law["coefficient_printed"]), -float(law["exponent_printed"])
        one = fit("power", x, amplitude * x**-exponent, bootstrap=0)
        assert one.params["A"] == pytest.approx(amplitude, rel=1e-6)
        assert one.params["a"] == pytest.approx(exponent, rel=1e-6)
        assert one.verdict == "law"


@pytest.mark.parametrize(
    "error, own, printed", [("absrel", 0.1538, 0.1511), ("delta1_error", 0.1553, 0.1572)]
)
def test_fine_tuning_laws(published, error: str, own: float, printed: float):
    rows = published("seed_finetune_depth_points.csv")
    x, y = columns(rows, "macs_as_plotted", error)
    models = [row["model"] for row in rows]
    squares = fit("power", x, y, huber=math.inf, bootstrap=0)
    assert squares.params["a"] == pytest.approx(own, abs=0.002)
    robust = fit("power", x, y, groups=models)
    lo, hi = robust.intervals["a"]
    assert robust.params["a"] == pytest.approx(printed, abs=0.01)
    assert lo < printed < hi
    assert robust.resampling == "runs" and robust.verdict == "law"


@pytest.mark.parametrize("model", ["a2", "a4", "a6"])
def test_sampling_steps_saturate(published, model: str):
    rows = [row for row in published("seed_test_time_steps.csv") if row["model"] == model]
    steps, error = columns(rows, "denoising_steps", "absrel")
    line = fit("power", steps, error, huber=math.inf, bootstrap=0)
    assert 0.61 < line.r2 < 0.68
    assert line.verdict == "saturated" and any("plateau" in w for w in line.warnings)
    assert {one.verdict for one in compare(steps, error, bootstrap=20).values()} == {"saturated"}
    late = fit("power_floor", steps[2:], error[2:], bootstrap=0)
    assert late.params["E"] == pytest.approx(error[-1], rel=0.02)


@pytest.mark.parametrize("model", ["a2", "a4", "a6"])
def test_ensembles_improve(published, model: str):
    rows = [row for row in published("seed_test_time_ensemble.csv") if row["model"] == model]
    members, error = columns(rows, "ensemble_size", "absrel")
    one = fit("power", members, error)
    assert one.intervals["a"][0] > 0
    assert one.verdict in ("law", "improves but no law")
    assert any("decades" in warning for warning in one.warnings)
