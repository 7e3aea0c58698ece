"""The measurement of forecasts measures: its cases are what they say, and its score counts."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import forecasts
from benchmarks.forecasting import denied, ladder, synthetic
from benchmarks.forecasting.asking import AVERAGE, Points, Score, hidden
from stepsight.scaling.fitting.quality import Expected


def test_a_score_counts_intervals_of_all_and_of_laws():
    score = Score(reach=2.0)
    score.add("law", Expected(1.1, 0.9, 1.2, 0.9, ()), 1.0)
    score.add("law", Expected(1.1, 1.05, 1.2, 0.9, ()), 1.0)
    score.add("saturated", Expected(1.0, np.nan, np.nan, 0.9, ()), 1.0)
    row = score.row()
    assert (row["hits"], row["of"], row["law_hits"], row["laws"]) == (1, 3, 1, 2)
    assert row["bias"] == pytest.approx(0.1) and row["reach"] == 2
    assert row["verdicts"] == {"law": 2, "saturated": 1}
    assert row["half_width"] == pytest.approx(
        ((1.2 / 0.9) ** 0.5 + (1.2 / 1.05) ** 0.5) / 2 - 1, abs=0.001
    )


def test_what_is_beyond_the_origin_is_hidden():
    x = np.geomspace(1, 100, 9)
    score = hidden(Points(x[:, None], 2 * x**-0.3), x, 20.0, "power")
    assert len(score.held) == np.sum(x > 20) and score.reach == pytest.approx(100 / x[x <= 20][-1])
    assert np.abs(score.error).max() < 1e-6


def test_truths_are_those_of_their_names():
    """The local exponent at both ends of two decades, and the noise of what is drawn."""
    cases = {case.name: case for case in synthetic.CASES}
    ends = {"bending, 1 % noise": (0.1, 0.34), "broken": (0.1, 0.4), "power, 2 % noise": (0.3, 0.3)}
    for name, wanted in ends.items():
        places = np.array([[1.0], [1.01], [99.0], [100.0]])
        slopes = -np.diff(cases[name].truth(places)) / np.diff(np.log(places[:, 0]))
        assert slopes[[0, 2]] == pytest.approx(wanted, abs=0.01)
    case = cases["checkpoints of 4 runs"]
    drawn = [case.drawn(np.random.default_rng(seed)) for seed in range(200)]
    luck = np.array([np.log(one.y) - case.truth(one.x) for one in drawn])
    assert luck.std() == pytest.approx(np.hypot(0.02, 0.005), rel=0.1)
    assert (
        np.corrcoef(luck[:, 0], luck[:, 1])[0, 1] > 0.85 > np.corrcoef(luck[:, 0], luck[:, 6])[0, 1]
    )
    assert drawn[0].groups is not None
    assert cases["the same, runs not told"].drawn(np.random.default_rng(0)).groups is None


def test_sixteen_runs_of_the_ladder_are_hidden():
    points = ladder.points_of("delta1")
    hold_outs = ladder.hold_outs(points.x)
    assert points.x.shape == (21, 2) and points.y.max() < 0.5
    assert [int(mask.sum()) for mask in hold_outs.values()] == [5, 4, 7]
    for name, column in (("size", points.x[:, 0]), ("images", points.x[:, 1])):
        assert column[hold_outs[name]].min() > column[~hold_outs[name]].max()


def test_quick_run_writes_what_pages_read(monkeypatch, tmp_path, capsys):
    cases = [case for case in synthetic.CASES if case.name.startswith("power, 6 points")]
    monkeypatch.setattr(synthetic, "CASES", cases)
    told = tuple(
        case for case in denied.CASES if case.name in ("log-convex", "sweep: negative cost")
    )
    monkeypatch.setattr(denied, "CASES", told)
    out = tmp_path / "forecasts.json"
    arguments = ["--draws", "2", "--only", "synthetic", "published", "denied", "--out", str(out)]
    assert forecasts.main([*arguments, "--write"]) == 0
    kept = json.loads(out.read_text())
    assert [row["way"] for row in kept["synthetic"]] == ["power", AVERAGE]
    assert all(row["at_16"]["of"] == row["draws"] == 2 for row in kept["synthetic"])
    assert [row["status"] for row in kept["denied"]] == [0, 2] and "published" not in kept
    said = capsys.readouterr()
    assert "left out" in said.err and "log-convex" in said.out


@pytest.mark.slow
def test_our_own_ladder_is_forecast_within_its_intervals():
    """Of 16 hidden outcomes of a quantity 90 % intervals hold at least 13."""
    rows = [row for row in ladder.measured(ways=(AVERAGE,)) if row["hidden"] == "all"]
    assert [row["of"] for row in rows] == [16, 16, 16]
    assert {row["quantity"]: row["hits"] for row in rows if row["hits"] < 13} == {}


@pytest.mark.slow
def test_what_bends_is_no_law_or_is_covered():
    cases = [case for case in synthetic.CASES if case.name.startswith(("bending", "floor"))]
    for row in synthetic.measured(12, cases):
        for far in synthetic.FAR:
            found = row[f"at_{far}"]
            assert found["laws"] <= 2 or found["law_hits"] >= 0.75 * found["laws"], row


def test_sweeps_are_refused_for_what_is_wrong_with_them(tmp_path):
    """The grid alone passes, and its cells without a number are named as such."""
    clean = denied.Case("clean", denied.clean_sweep, denied.FRONTIER, "8 x 4")
    holes = [case for case in denied.CASES if case.name in ("sweep: NaN", "sweep: an empty cell")]
    assert all("value is no number" in case.named for case in holes) and len(holes) == 2
    rows = list(denied.measured(tmp_path, [clean, *holes]))
    assert [(row["status"], row["caught"]) for row in rows] == [(0, True)] * 3
