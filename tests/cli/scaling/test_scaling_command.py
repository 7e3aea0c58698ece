"""`stepsight scaling fit` on ledgers of several runs and on tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from stepsight.cli.scaling import GROUP
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
    assert GROUP.run(["fit", *args, "--bootstrap", "20", "--json"]) == 0
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
    assert [row["form"] for row in rows] == [
        "power_floor",
        "power",
        "average of power_floor, power",
    ]
    assert rows[0]["params"]["E"] == pytest.approx(0.01, rel=1e-3)


def test_selection(runs, capsys):
    rows = fitted(capsys, str(runs), "--y", "value", "--metric", "delta1", "--form", "power")
    assert len(rows) == 1
    with pytest.raises(UserError, match="No records of metric 'absrl'. Did you mean 'absrel'"):
        GROUP.run(["fit", str(runs), "--metric", "absrl"])
    with pytest.raises(UserError, match="No records of task 'flow'"):
        GROUP.run(["fit", str(runs), "--task", "flow"])


def test_points_without_numbers_are_left_out_with_a_note(runs, capsys):
    append(runs / "run-9" / "records.jsonl", [record(7, run="run-9", value=None)])
    flags = ["--metric", "absrel", "--y", "value", "--bootstrap", "0"]
    assert GROUP.run(["fit", str(runs), *flags]) == 0
    assert "left out 1 points that were not measured" in capsys.readouterr().err


def test_table_shows_parameters_and_verdict(runs, capsys):
    arguments = ["--metric", "absrel", "--y", "value", "--bootstrap", "20"]
    assert GROUP.run(["fit", str(runs), *arguments]) == 0
    shown = capsys.readouterr().out
    assert "0.15" in shown and "law" in shown and "intervals resample runs" in shown


def test_a_table_of_numbers(tmp_path, capsys):
    path = tmp_path / "points.csv"
    lines = [f"{x},{4.0 * x**-0.1},name" for x in FLOPS]
    path.write_text("\n".join(["macs,error,model", *lines]))
    rows = fitted(capsys, "--csv", str(path), "--x", "macs", "--y", "error")
    assert rows[0]["form"] == "power" and rows[0]["params"] == pytest.approx(
        {"A": 4.0, "a": 0.1}, rel=1e-5
    )
    with pytest.raises(UserError, match="no column 'mac'. Did you mean 'macs'"):
        GROUP.run(["fit", "--csv", str(path), "--x", "mac", "--y", "error"])
    with pytest.raises(UserError, match="needs --y"):
        GROUP.run(["fit", "--csv", str(path), "--x", "macs"])
    with pytest.raises(DataFormatError, match="'model' is not numeric"):
        GROUP.run(["fit", "--csv", str(path), "--x", "macs", "--y", "model"])
    with pytest.raises(UserError, match="does not exist"):
        GROUP.run(["fit", "--csv", str(tmp_path / "none.csv")])


def test_nothing_to_fit(tmp_path, runs):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="No records found under .*empty"):
        GROUP.run(["fit", str(tmp_path / "empty")])
    with pytest.raises(UserError, match="no numeric column 'training_flop'"):
        GROUP.run(["fit", str(runs), "--x", "training_flop"])
    with pytest.raises(UserError, match="None of 24 records has seconds"):
        GROUP.run(["fit", str(runs), "--x", "seconds"])
    with pytest.raises(UserError, match="--form cubic: no such choice"):
        GROUP.run(["fit", str(runs), "--form", "cubic"])


@pytest.fixture
def table(tmp_path) -> Path:
    """Six sizes on six amounts of data by two recipes, of which the second is worse by a tenth."""
    lines = ["params,tokens,recipe,run,error"]
    for recipe, factor in (("a", 1.0), ("b", 1.1)):
        for i, n in enumerate(np.geomspace(1e7, 1e10, 6)):
            for d in np.geomspace(1e8, 1e12, 6):
                error = factor * (1.69 + 406.4 / n**0.34 + 410.7 / d**0.28)
                lines.append(f"{n},{d},{recipe},{i},{error}")
    path = tmp_path / "runs.csv"
    path.write_text("\n".join(lines))
    return path


def one_object(capsys, *args: str) -> dict:
    assert GROUP.run(["fit", *args, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_one_form_of_a_table_is_one_object(table, capsys):
    flags = ["--form", "chinchilla", "--csv", str(table), "--y", "error", "--where", "recipe=a"]
    found = one_object(capsys, *flags, "--bootstrap", "20")
    wanted = {"E": 1.69, "A": 406.4, "alpha": 0.34, "B": 410.7, "beta": 0.28}
    assert found["params"] == pytest.approx(wanted, rel=1e-4)
    assert {"form", "formula", "intervals", "objective", "r2", "aicc", "n", "x_range"} <= set(found)
    assert found["verdict"] == "law" and found["warnings"] == [] and found["n"] == 36
    assert found["x_range"]["params"] == pytest.approx([1e7, 1e10])
    swapped = one_object(capsys, *flags, "--x", "tokens,params", "--bootstrap", "0")
    assert swapped["params"]["alpha"] == pytest.approx(0.28, rel=1e-4)


def test_rows_are_chosen(table, capsys):
    flags = ["--form", "chinchilla", "--csv", str(table), "--y", "error", "--bootstrap", "0"]

    def left(*conditions: str) -> dict:
        return one_object(capsys, *flags, *(f"--where={text}" for text in conditions))

    assert left("recipe!=a")["params"]["E"] == pytest.approx(1.1 * 1.69, rel=1e-4)
    assert left("recipe=a", "params<5e9", "tokens>2e8")["n"] == 25
    assert left("recipe=a", "run=2.0")["n"] == 6  # numbers are compared as numbers
    with pytest.raises(UserError, match="no row is left where recipe=c"):
        left("recipe=c")
    with pytest.raises(UserError, match="no column 'recip'. Did you mean 'recipe'"):
        left("recip=a")
    with pytest.raises(UserError, match="write COL=VALUE"):
        left("recipe")
    with pytest.raises(UserError, match="'many' is not a number"):
        left("params<many")


def test_intervals_level_and_loss_are_chosen(table, capsys):
    flags = ["--form", "chinchilla", "--csv", str(table), "--y", "error", "--bootstrap", "20"]
    runs = one_object(capsys, *flags, "--groups", "run", "--level", "0.8")
    assert (runs["method"], runs["resampling"], runs["level"]) == ("bootstrap", "runs", 0.8)
    profile = one_object(capsys, *flags, "--intervals", "profile", "--huber", "inf")
    assert profile["method"] == "profile" and profile["huber"] is None
    assert profile["objective"] > runs["objective"]
    assert GROUP.run(["fit", *flags, "--intervals", "profile", "--level", "0.9"]) == 0
    shown = capsys.readouterr().out
    assert "90% intervals by profile" in shown and "params, tokens" in shown and "beta" in shown


def test_records_in_two_inputs(runs, capsys):
    flags = ["--y", "value", "--metric", "absrel", "--form", "members", "--x", "nfe,members"]
    rows = fitted(capsys, str(runs), *flags)
    assert [row["verdict"] for row in rows] == ["too few points"] * 2
    with pytest.raises(UserError, match="needs --x with 2 columns, params, tokens"):
        GROUP.run(["fit", str(runs), "--form", "chinchilla"])


def test_an_elbow_in_a_table(tmp_path, capsys):
    lines = ["loss,images,score"]
    for loss in np.linspace(2.25, 1.9, 8):
        for images in 64.0 * 4.0 ** np.arange(5):
            elbow = 0.06 * np.log(images) ** 0.9 + 1.8
            lines.append(f"{loss},{images},{0.45 * max(0, elbow - loss) + 0.25}")
    path = tmp_path / "elbow.csv"
    path.write_text("\n".join(lines))
    flags = ["--form", "emergence", "--csv", str(path), "--y", "score", "--bootstrap", "10"]
    found = one_object(capsys, *flags, "--base", "0.25")
    assert {"params", "intervals", "objective", "warnings", "verdict"} <= set(found)
    assert found["params"]["B"] == 0.25 and found["params"]["C"] == pytest.approx(1.8, abs=1e-3)
    assert GROUP.run(["fit", *flags]) == 0
    assert "resample models" in capsys.readouterr().out
    with pytest.raises(UserError, match="--intervals is not for --form emergence"):
        GROUP.run(["fit", *flags, "--intervals", "profile"])
    with pytest.raises(UserError, match="name one with --csv"):
        GROUP.run(["fit", str(tmp_path), "--form", "emergence"])


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--base", "0.2"], "--base is the score"),
        (["--where", "a=1"], "--where chooses among the columns"),
        (["--groups", "run"], "--groups chooses among the columns"),
        (["--level", "90"], "--level 90: give a share"),
        (["--bootstrap", "-1"], "--bootstrap -1"),
        (["--huber", "0"], "--huber 0: give a positive number"),
    ],
)
def test_flags_that_make_no_sense_are_refused(runs, flags: list[str], message: str):
    with pytest.raises(UserError, match=message):
        GROUP.run(["fit", str(runs), *flags])
