"""`stepsight scaling fit` on ledgers of several runs and on tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from stepsight.cli.scaling import run
from stepsight.errors import DataFormatError, UserError
from stepsight.scaling.records import ScalingRecord, append

FLOPS = np.geomspace(1e13, 1e16, 8)


def record(number: int, **changed) -> ScalingRecord:
    fields = dict(
        run=f"run-{number // 2}",
        config="c0ffee",
        revision="abc",
        seed=0,
        model="dit-s",
        params_total=1,
        params_active=1,
        training_flops=float(FLOPS[number]),
        images_seen=1000 * number,
        task="depth",
        dataset="scenes",
        protocol="affine",
        sampler="ddim",
        nfe=8,
        members=1,
        inference_flops=1e9,
        metric="absrel",
        value=85.0 * FLOPS[number] ** -0.15,
        images=128,
        loss=0.01 + 10.0 * FLOPS[number] ** -0.2,
    )
    return ScalingRecord(**(fields | changed))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for number in range(8):
        delta1 = dict(metric="delta1", lower_is_better=False, value=1 - 9 * FLOPS[number] ** -0.1)
        records = [record(number), record(number, nfe=1), record(number, **delta1)]
        append(tmp_path / f"run-{number // 2}" / "records.jsonl", records)
    return tmp_path


def fitted(capsys, *args: str) -> list[dict]:
    assert run(["fit", *args, "--bootstrap", "20", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_losses_and_metrics_group_by_group(runs, capsys):
    rows = fitted(capsys, str(runs), "--form", "power")
    assert [row["curve"] for row in rows] == [
        "depth loss",
        "depth scenes affine absrel, ddim 8 x 1",
        "depth scenes affine absrel, ddim 1 x 1",
        "depth scenes affine delta1, ddim 8 x 1, as 1 - value",
    ]
    assert [row["n"] for row in rows] == [8, 8, 8, 8]
    assert rows[1]["params"] == pytest.approx({"A": 85.0, "a": 0.15}, rel=1e-5)
    assert rows[3]["params"] == pytest.approx({"A": 9.0, "a": 0.1}, rel=1e-5)
    assert {"params", "intervals", "objective", "warnings", "verdict"} <= rows[0].keys()
    assert all(row["resampling"] == "runs" for row in rows)


def test_both_forms_best_first(runs, capsys):
    rows = fitted(capsys, str(runs), "--y", "loss")
    assert [row["form"] for row in rows] == ["power_floor", "power"]
    assert rows[0]["params"]["E"] == pytest.approx(0.01, rel=1e-3)


def test_selection(runs, capsys):
    rows = fitted(capsys, str(runs), "--y", "value", "--metric", "delta1", "--form", "power")
    assert len(rows) == 1
    with pytest.raises(UserError, match="No records of metric 'absrl'. Did you mean 'absrel'"):
        run(["fit", str(runs), "--metric", "absrl"])
    with pytest.raises(UserError, match="No records of task 'flow'"):
        run(["fit", str(runs), "--task", "flow"])


def test_points_without_numbers_are_left_out_with_a_note(runs, capsys):
    append(runs / "run-9" / "records.jsonl", [record(7, run="run-9", value=None)])
    assert run(["fit", str(runs), "--metric", "absrel", "--y", "value", "--bootstrap", "0"]) == 0
    assert "left out 1 points" in capsys.readouterr().err


def test_table_shows_parameters_and_verdict(runs, capsys):
    arguments = ["--metric", "absrel", "--y", "value", "--bootstrap", "20"]
    assert run(["fit", str(runs), *arguments]) == 0
    shown = capsys.readouterr().out
    assert "0.15" in shown and "law" in shown and "intervals resample runs" in shown


def test_a_table_of_numbers(tmp_path, capsys):
    path = tmp_path / "points.csv"
    lines = [f"{x},{4.0 * x**-0.1},name" for x in FLOPS]
    path.write_text("\n".join(["macs,error,model", *lines]))
    rows = fitted(capsys, "--csv", str(path), "--x", "macs", "--y", "error", "--form", "power")
    assert rows[0]["params"] == pytest.approx({"A": 4.0, "a": 0.1}, rel=1e-5)
    with pytest.raises(UserError, match="no column 'mac'. Did you mean 'macs'"):
        run(["fit", "--csv", str(path), "--x", "mac", "--y", "error"])
    with pytest.raises(UserError, match="needs --y"):
        run(["fit", "--csv", str(path), "--x", "macs"])
    with pytest.raises(DataFormatError, match="'model' is not numeric"):
        run(["fit", "--csv", str(path), "--x", "macs", "--y", "model"])
    with pytest.raises(UserError, match="does not exist"):
        run(["fit", "--csv", str(tmp_path / "none.csv")])


def test_nothing_to_fit(tmp_path, runs):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="No records found under .*empty"):
        run(["fit", str(tmp_path / "empty")])
    with pytest.raises(UserError, match="no numeric column 'training_flop'"):
        run(["fit", str(runs), "--x", "training_flop"])
    with pytest.raises(UserError, match="None of 24 records has seconds"):
        run(["fit", str(runs), "--x", "seconds"])
    with pytest.raises(SystemExit, match="2"):
        run(["fit", str(runs), "--form", "cubic"])
