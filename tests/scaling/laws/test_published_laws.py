"""Published laws and points: diffusion perception (arXiv:2411.08034), as printed and as read; the
training runs behind Hoffmann's law, and those of loss-to-loss prediction (arXiv:2411.12925).
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from stepsight.report.study.contents import StudyPoint, figures_of
from stepsight.scaling.laws.fits import compare, fit


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
    "figure, file", [("finetuning", "finetune_depth_points"), ("members", "test_time_ensemble")]
)
@pytest.mark.parametrize("error, metric", [("absrel", "abs_rel"), ("delta1_error", "delta1")])
def test_the_page_of_a_study_finds_the_printed_exponents(published, figure, file, error, metric):
    rows = published(f"seed_{file}.csv")
    cells = zip((row["model"] for row in rows), *columns(rows, "macs_as_plotted", error))
    points = [StudyPoint(figure, line, x, y, metric=metric) for line, x, y in cells]
    (found,) = figures_of(points)
    assert found.law is not None
    assert -found.law.params["a"] == pytest.approx(found.printed, abs=0.012)


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


def test_the_pretraining_law_is_that_of_the_last_losses_of_five_models(published):
    """Printed: 0.23 C^-0.0098, from 5e17 on. The smallest model ends above that line, and with it
    the exponent is half as large again."""
    curves: dict[str, tuple[float, float]] = {}
    for row in published("seed_pretrain_loss_curves.csv"):
        point = float(row["macs_as_plotted"]), float(row["loss"])
        curves[row["model"]] = max(point, curves.get(row["model"], point))
    x, y = np.array([curves[f"a{i}"] for i in range(1, 7)]).T
    own = fit("power", x[1:], y[1:], huber=math.inf, bootstrap=0)
    assert own.params["a"] == pytest.approx(0.0098, abs=0.002)
    assert own.params["A"] == pytest.approx(0.23, abs=0.01)
    every = fit("power", x, y, huber=math.inf, bootstrap=0)
    assert every.params["a"] == pytest.approx(0.0140, abs=0.001)


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


@pytest.fixture
def chinchilla(published) -> tuple[np.ndarray, np.ndarray]:
    """Parameters and tokens, "n 2", and losses of the runs of Hoffmann et al. as Besiroglu et al.
    read them (arXiv:2404.10102), without the five highest losses, as they left them out."""
    n, d, loss = columns(published("chinchilla_epoch_svg_points.csv"), "params", "tokens", "loss")
    kept = np.sort(np.argsort(loss)[:-5])
    return np.stack([n, d], axis=1)[kept], loss[kept]


def test_hoffmanns_runs_give_the_constants_of_the_replication(chinchilla):
    one = fit("chinchilla", *chinchilla, huber=1e-3, bootstrap=200)
    assert one.objective <= 0.0010184 and one.n == 240
    assert one.params["E"] == pytest.approx(1.817, abs=0.01)
    assert one.params["alpha"] == pytest.approx(0.348, abs=0.005)
    assert one.params["beta"] == pytest.approx(0.366, abs=0.005)
    assert one.params["A"] == pytest.approx(482, rel=0.05)
    assert one.params["B"] == pytest.approx(2085, rel=0.10)
    assert one.verdict == "law" and one.warnings == ()
    e, _, alpha, _, beta = np.array(one.draws).T
    assert e.std() == pytest.approx(0.026, rel=0.25)
    assert alpha.std() == pytest.approx(0.015, rel=0.25)
    assert beta.std() == pytest.approx(0.021, rel=0.25)
    assert np.mean(beta / (alpha + beta)) == pytest.approx(0.513, abs=0.02)


def test_profile_intervals_of_hoffmanns_runs(chinchilla):
    """At 95 % they hold the replication's estimates, and not the constants first published."""
    one = fit("chinchilla", *chinchilla, huber=1e-3, bootstrap=0, intervals="profile")
    replication = {"E": 1.8169, "A": 482.01, "alpha": 0.3478, "B": 2085.43, "beta": 0.3659}
    for name, value in replication.items():
        lo, hi = one.intervals[name]
        assert lo < value < hi
    assert one.intervals["E"][0] > 1.69 and one.intervals["beta"][0] > 0.28


@pytest.mark.parametrize(
    "form, r2, floor", [("chinchilla", 0.997, 2.002), ("kaplan", 0.987, 1.967)]
)
def test_own_losses_of_six_corpora(published, form: str, r2: float, floor: float):
    """Known floors come back, and most are no laws for all their R2: residuals bend downwards, and
    the run at twenty times the compute lands 3 to 5 % below what either form says."""
    rows, laws = published("l2l_sweep.csv"), published("l2l_published_scaling_fits.csv")
    floors = {
        law["data"]: float(law["E"])
        for law in laws
        if law["loss_name"] == "val_loss" and (law["kaplan_form"] == "True") == (form == "kaplan")
    }
    ahead_of, denied = published("l2l_extrapolation_1e21.csv"), 0
    assert len(floors) == 6 and floors["fineweb-edu-100b"] == pytest.approx(floor, abs=1e-3)
    for data, wanted in floors.items():
        own = [row for row in rows if row["data"] == data]
        n, d, loss = columns(own, "params", "tokens", "val_loss")
        one = fit(form, np.stack([n, d], axis=1), loss, huber=1e-3, bootstrap=0)
        assert one.params["E"] == pytest.approx(wanted, abs=0.02)
        assert one.r2 >= r2
        (ahead,) = [row for row in ahead_of if row["data"] == data]
        at, outcome = (float(ahead["params"]), float(ahead["tokens"])), float(ahead["val_loss"])
        assert -0.06 < math.log(outcome / float(one.predict(at))) < -0.02
        denied += one.verdict != "law"
    assert denied >= 5
