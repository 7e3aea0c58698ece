"""Adversarial tables through `stepsight scaling fit`: each is caught, with its row named, and the
forecasts that are printed are those of the fit."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepsight.cli.scaling import GROUP
from stepsight.errors import DataFormatError, UserError
from stepsight.scaling.fitting.quality import VERDICTS

X = np.geomspace(1e12, 1e16, 12)
Y = 4 * X**-0.1 * np.exp(0.02 * np.random.default_rng(0).standard_normal(12))
Fitted = Callable[..., tuple[Any, str]]


@pytest.fixture
def fitted(tmp_path: Path, capsys) -> Fitted:
    """Writes a table, fits it, and returns what was printed as JSON and as notes."""

    def run(columns: dict[str, Any], *flags: str, bootstrap: int = 20) -> tuple[Any, str]:
        path = tmp_path / "table.csv"
        lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values()))]
        path.write_text("\n".join(lines) + "\n")
        names = list(columns)
        chosen = ["--csv", str(path), "--x", names[-2], "--y", names[-1], *flags]
        assert GROUP.run(["fit", *chosen, "--bootstrap", str(bootstrap), "--json"]) == 0
        told = capsys.readouterr()
        return json.loads(told.out), told.err

    return run


def test_an_outlier_is_named_with_what_is_left_without_it(fitted):
    y = Y.copy()
    y[5] *= 1.65
    row, _ = fitted({"flops": X, "error": y}, "--form", "power")
    (odd,) = row["outliers"]
    assert odd["row"] == "line 7" and odd["off"] == pytest.approx(0.65, abs=0.05)
    without = row["without_outliers"]
    assert (row["verdict"], without["verdict"]) == ("improves but no law", "law")
    assert without["params"]["a"] == pytest.approx(0.1, abs=0.005)
    for whole, rest in zip(row["interval_at"], without["interval_at"]):
        assert whole["at"] == rest["at"]
        assert rest["hi"] / rest["lo"] < whole["hi"] / whole["lo"]
    clean, _ = fitted({"flops": X, "error": Y}, "--form", "power")
    assert clean["outliers"] == [] and "without_outliers" not in clean


def test_an_outlier_is_told_in_words(tmp_path, capsys):
    y = Y.copy()
    y[5] *= 1.65
    path = tmp_path / "table.csv"
    path.write_text("flops,error\n" + "".join(f"{a},{b}\n" for a, b in zip(X, y)))
    flags = ["--csv", str(path), "--x", "flops", "--y", "error", "--form", "power"]
    assert GROUP.run(["fit", *flags, "--bootstrap", "20", "--at", "flops=5e17"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "line 7 (+66%) lies far from the law of all other rows. Without: a 0.101" in shown
    assert "verdict 'law' instead of 'improves but no law'" in shown
    assert "back-test" in shown and "earlier forecasts inside" in shown
    assert all(place in shown for place in ("2x", "4x", "16x", "flops=5e+17"))


def test_tripled_rows_change_nothing(fitted):
    once, _ = fitted({"flops": X, "error": Y}, "--form", "power")
    table = {"flops": np.tile(X, 3), "error": np.tile(Y, 3)}
    thrice, notes = fitted(table, "--form", "power")
    assert "lines 2, 14 and 26 are the same measurement" in notes
    assert thrice["notes"] and thrice["intervals"] == once["intervals"] and thrice["n"] == 12


def checkpoints(seed: int = 0) -> dict[str, Any]:
    """Four models of six checkpoints each; what a model is off by, all of its checkpoints are."""
    rng = np.random.default_rng(seed)
    x = np.concatenate([10.0 ** (12 + k) * 2.0 ** np.arange(6) for k in range(4)])
    luck = np.repeat(np.exp(0.05 * rng.standard_normal(4)), 6)
    y = 4 * x**-0.1 * luck * np.exp(0.005 * rng.standard_normal(24))
    return {"model": [f"m{k // 6}" for k in range(24)], "flops": x, "error": y}


def test_checkpoints_of_a_run_are_grouped(fitted):
    table = checkpoints()
    found, notes = fitted(table, "--form", "power")
    assert "4 groups of 6 rows that share model look like checkpoints" in notes
    named, notes = fitted(table, "--form", "power", "--groups", "model")
    assert "look like" not in notes and "grouped by model" in notes
    own, notes = fitted({"run": table["model"], **table}, "--form", "power")
    assert "grouped by run" in notes
    assert found["interval_at"] == named["interval_at"] == own["interval_at"]
    none, notes = fitted(table, "--form", "power", "--groups", "none")
    assert notes == "" and (none["resampling"], found["resampling"]) == ("points", "runs")
    ends = (one["interval_at"][1] for one in (none, named))
    narrow, wide = (math.log(one["hi"] / one["lo"]) for one in ends)
    assert wide > 1.5 * narrow


def test_rising_scores_are_turned(fitted):
    row, notes = fitted({"flops": X, "accuracy": 1 - Y}, "--form", "power")
    assert row["params"]["a"] == pytest.approx(0.1, abs=0.01) and row["verdict"] == "law"
    assert "fitted as 1 - accuracy" in notes and row["curve"].endswith("1 - accuracy")
    percent, _ = fitted({"flops": X, "delta1": 100 * (1 - Y)}, "--form", "power")
    assert percent["params"]["A"] == pytest.approx(100 * row["params"]["A"], rel=1e-3)
    psnr, notes = fitted({"flops": X, "psnr": 20 - 5 * np.log10(Y)}, "--form", "power")
    assert psnr["verdict"] == "not monotone" and "1 - value for a share" in notes


def test_a_score_of_one_has_no_error(fitted):
    y = 1 - Y
    y[8] = 1.0
    with pytest.raises(DataFormatError, match=r"table\.csv:10: 1 - accuracy is 0\. Laws are"):
        fitted({"flops": X, "accuracy": y})


@pytest.mark.parametrize("value", [0.0, -5.0])
@pytest.mark.parametrize("name", ["flops", "error"])
def test_what_has_no_logarithm_is_named(fitted, name, value):
    table = {"flops": X.copy(), "error": Y.copy()}
    table[name][[3, 6]] = value
    with pytest.raises(DataFormatError, match=rf":5: {name} is {value:g} \(and line 8\)"):
        fitted(table)


def test_other_units_are_named(fitted):
    x = X.copy()
    x[[2, 7]] /= 1e6
    _, notes = fitted({"flops": x, "error": Y})
    assert "flops of lines 4 and 9 is 1e+06 times below" in notes


def test_two_decades_are_two_or_more(fitted):
    x = np.geomspace(1, 100, 8)
    row, _ = fitted({"n": x, "error": Y[:8]}, "--form", "power")
    assert not any("decades" in warning for warning in row["warnings"])
    narrow, _ = fitted({"n": np.geomspace(1, 50, 8), "error": Y[:8]}, "--form", "power")
    (warning,) = (text for text in narrow["warnings"] if "decades" in text)
    assert "spans 1.7 decades" in warning


# ------------------------------------------------------------------------------------ forecasts


def test_forecasts_of_every_form_and_their_average(fitted):
    rows, _ = fitted({"flops": X, "error": Y}, "--at", "flops=5e17", "--at", "flops=1e15")
    assert [row["form"] for row in rows][-1].startswith("average of power")
    for row in rows:
        assert row["verdict"] in VERDICTS
        assert {"hits", "of", "reach"} <= row["backtest"].keys()
        places = [one["at"]["flops"] for one in row["interval_at"]]
        assert places == pytest.approx([2e16, 4e16, 16e16, 5e17, 1e15])
        reaches = [one["reach"] for one in row["interval_at"]]
        assert reaches == pytest.approx([2, 4, 16, 50, 0.1])
        for one in row["interval_at"]:
            assert one["lo"] < one["value"] < one["hi"] and one["level"] == 0.9 and one["basis"]
    mean, fits = rows[-1], rows[:-1]
    assert sum(mean["weights"].values()) == pytest.approx(1)
    ends = [row["interval_at"][2]["value"] for row in fits]
    assert min(ends) <= mean["interval_at"][2]["value"] <= max(ends)


def test_several_inputs_grow_alike(fitted):
    n, d = (
        part.ravel() for part in np.meshgrid(np.geomspace(1e6, 1e9, 5), 10.0 ** np.arange(8, 13))
    )
    loss = 1.7 + 400 / n**0.34 + 400 / d**0.28
    flags = ["--form", "chinchilla", "--x", "params,tokens", "--at", "tokens=1e14,params=1e10"]
    row, _ = fitted({"params": n, "tokens": d, "loss": loss}, *flags)
    places = [one["at"] for one in row["interval_at"]]
    assert places[0] == pytest.approx({"params": 2**0.5 * 1e9, "tokens": 2**0.5 * 1e12})
    assert places[-1] == {"params": 1e10, "tokens": 1e14}
    assert row["interval_at"][1]["reach"] == pytest.approx(4)
    assert row["interval_at"][-1]["value"] == pytest.approx(
        1.7 + 400 / 1e10**0.34 + 400 / 1e14**0.28, rel=1e-4
    )


def test_the_level_is_that_of_both_intervals(fitted):
    wide, _ = fitted({"flops": X, "error": Y}, "--form", "power", "--level", "0.99")
    usual, _ = fitted({"flops": X, "error": Y}, "--form", "power")
    assert wide["level"] == 0.99 and usual["level"] == 0.95
    for one, other in zip(wide["interval_at"], usual["interval_at"]):
        assert one["level"] == 0.99 and one["lo"] < other["lo"] < other["hi"] < one["hi"]


@pytest.mark.parametrize(
    "at, message",
    [
        ("flop=1e17", "'flop' is no input. Did you mean 'flops'"),
        ("flops=-1", "say flops as well, a number above 0"),
        ("flops", "write NAME=VALUE"),
        ("flops=big", "write NAME=NUMBER"),
    ],
)
def test_places_that_are_none_are_refused(fitted, at, message):
    with pytest.raises(UserError, match=message):
        fitted({"flops": X, "error": Y}, "--at", at)


def test_an_elbow_has_no_forecasts(fitted):
    table = {"loss": X, "images": X, "score": Y}
    with pytest.raises(UserError, match="--at is not for --form emergence"):
        fitted(table, "--form", "emergence", "--x", "loss,images", "--at", "loss=1")
