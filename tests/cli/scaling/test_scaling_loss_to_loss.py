"""`stepsight scaling loss-to-loss` on tables, joined tables, and the records of runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from stepsight.cli.scaling import GROUP
from stepsight.errors import UserError
from stepsight.scaling.records import ScalingRecord, append

TOKENS = np.geomspace(1e8, 1e10, 10)
WEB = 1.97 + 2000 * TOKENS**-0.4  # one loss of every run; the other follows from it
CODE = 0.85 + 0.6 * (WEB - 1.97) ** 1.1
TEST = 2.1 + 0.9 * (WEB - 1.97) ** 0.8
FLOORS = ("--floor-x", "1.97:law", "--floor-y", "0.85:measured")


@pytest.fixture
def table(tmp_path: Path) -> str:
    """Two corpora in one table; the second lacks a run and writes tokens in another way."""
    path = tmp_path / "runs.csv"
    lines = [
        f"web,{t:.8e},{a!r},{b!r},run-{i // 2}" for i, (t, a, b) in enumerate(_rows(WEB, TEST))
    ]
    lines += [f"code,{float(f'{t:.8e}')!r},{a!r},," for t, a, _ in _rows(CODE, CODE)[1:]]
    path.write_text("\n".join(["data,tokens,val,test,run", *lines]))
    return str(path)


def _rows(first: np.ndarray, second: np.ndarray) -> list[tuple[float, float, float]]:
    return list(zip(TOKENS.tolist(), first.tolist(), second.tolist()))


def answered(capsys, *args: str) -> dict:
    assert GROUP.run(["loss-to-loss", *args, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


JOINED = ("--x", "val", "--by", "data", "--from", "web", "--to", "code", "--on", "tokens")


def test_train_to_train_joins_two_groups(table, capsys):
    found = answered(capsys, "--csv", table, *JOINED, *FLOORS, "--bootstrap", "20", "--at", "2.0")
    assert (found["kappa"], found["K"]) == pytest.approx((1.1, 0.6))
    assert (found["E0"], found["E1"]) == (1.97, 0.85)
    assert found["floors"] == {"E0": "law", "E1": "measured"}
    assert (found["n"], found["verdict"]) == (9, "law")
    assert (found["x"], found["y"]) == ("val of web", "val of code")
    assert {"intervals", "r2", "warnings", "x_range", "resampling"} <= found.keys()
    prediction = found["prediction"]
    assert prediction["value"] == pytest.approx(0.85 + 0.6 * 0.03**1.1)
    assert prediction["lo"] <= prediction["value"] * (1 + 1e-9)
    assert prediction["value"] <= prediction["hi"] * (1 + 1e-9)
    assert "extrapolating" in prediction["warnings"][0]
    assert prediction["reach"] > 1 and "hidden pairs" in prediction["basis"]
    assert found["backtest"]["hits"] == found["backtest"]["of"] > 3
    assert found["deviations"] == {"E0": pytest.approx(0, abs=1e-3), "E1": 0}


def test_train_to_test_reads_both_of_a_row(table, capsys):
    found = answered(
        capsys, "--csv", table, "--x", "val", "--y", "test", "--by", "data", "--from", "web",
        "--floor-x", "1.97", "--floor-y", "2.1+-.01:law", "--bootstrap", "20", "--runs", "run",
    )  # fmt: skip
    assert (found["kappa"], found["K"]) == pytest.approx((0.8, 0.9))
    assert found["floors"] == {"E0": "given", "E1": "law"} and found["resampling"] == "runs"
    assert found["intervals"]["E1"][0] < 2.1 < found["intervals"]["E1"][1]
    assert "prediction" not in found


def test_rows_without_numbers_or_partners_are_said(table, capsys):
    flags = ["--x", "val", "--y", "test", "--bootstrap", "0"]
    assert GROUP.run(["loss-to-loss", "--csv", table, *flags]) == 0
    assert "left out 9 rows without val or test" in capsys.readouterr().err
    assert GROUP.run(["loss-to-loss", "--csv", table, *JOINED, *FLOORS, "--bootstrap", "0"]) == 0
    assert "1 rows have no partner" in capsys.readouterr().err


def test_fitted_floors_in_words(table, capsys):
    arguments = ["--csv", table, *JOINED, "--bootstrap", "8", "--level", ".9", "--at", "2.1"]
    assert GROUP.run(["loss-to-loss", *arguments]) == 0
    shown = capsys.readouterr().out
    assert "val of web -> val of code: y = K (x - E0)^kappa + E1" in shown
    assert "(fitted)" in shown and "90% intervals resample pairs" in shown
    assert "back-test none: too few pairs" in shown or "hidden pairs inside 90%" in shown
    assert "barely identified" in shown and "at 2.1: " in shown


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--x", "val"), "--csv needs --x and --y"),
        (("--x", "vall", "--y", "test"), "no column 'vall'. Did you mean 'val'"),
        (("--x", "val", "--to", "code"), "--to needs --by COL, --from GROUP and --on"),
        (("--x", "val", "--y", "test", "--from", "web"), "go together"),
        (("--x", "val", "--y", "test", "--on", "tokens"), "--on joins two groups"),
        (("--x", "val", "--y", "test", "--hook", "test-time"), "--hook are for records"),
        ((*JOINED[:-1], "data"), "no row of web agrees|Several rows of one group"),
        ((*JOINED[:7], "cod", *JOINED[8:]), "data is never 'cod'. Did you mean 'code'"),
        ((*JOINED, "--floor-x", "1.97:fit"), "'fit' is no origin"),
        ((*JOINED, "--floor-x", "low"), "write a number, such as .026:measured"),
        ((*JOINED, "--floor-x", "3"), "--floor-x 3 .* must lie between 0 and the smallest x"),
        ((*JOINED, "--floor-x", "1.97+--1"), "a deviation of -1 is none"),
        ((*JOINED, "--level", "95"), "between 0 and 1"),
        ((*JOINED, "--bootstrap", "-2"), "--bootstrap -2: must be at least 0"),
        ((*JOINED, "--at", "nan"), "--at nan: write a loss"),
        ((*JOINED, "--at", "-1"), "--at -1: write a loss"),
        ((*JOINED, *FLOORS, "--at", "1.9", "--bootstrap", "0"), "not above the law floor"),
    ],
)
def test_what_is_wrong_with_a_table(table, arguments, message):
    with pytest.raises(UserError, match=message):
        GROUP.run(["loss-to-loss", "--csv", table, *arguments])


def record(number: int, **changed) -> ScalingRecord:
    loss = 0.02 + 0.3 * 2.0**-number
    fields = dict(
        run=f"run-{number // 2}",
        config="c0ffee",
        revision="abc",
        seed=0,
        model="dit-s",
        params_total=1,
        params_active=1,
        training_flops=1e15 * 4.0**number,
        images_seen=1000 * 4**number,
        task="depth",
        dataset="scenes",
        protocol="affine",
        sampler="ddim",
        nfe=8,
        members=1,
        inference_flops=1e9,
        metric="absrel",
        value=0.05 + 2.0 * (loss - 0.02) ** 0.7,
        images=128,
        loss=loss,
    )
    return ScalingRecord(**(fields | changed))


@pytest.fixture
def runs(tmp_path: Path) -> str:
    for number in range(8):
        own = record(number)
        assert own.value is not None
        twins = [
            own,
            record(number, nfe=1, value=1.5 * own.value),
            record(number, dataset="nyu", value=0.1 + 0.8 * (own.value - 0.05)),
            record(number, task="flow", metric="epe", loss=0.01 + 0.5 * (own.loss or 0)),
        ]
        append(tmp_path / own.run / "records.jsonl", twins)
    return str(tmp_path)


CHOSEN = ("--task", "depth", "--where", "dataset=scenes", "--where", "nfe=8")


def test_loss_to_metric_of_records(runs, capsys):
    floors = ("--floor-x", ".02:measured", "--floor-y", ".05:measured")
    found = answered(
        capsys, runs, "--hook", "loss-metric", *CHOSEN, *floors, "--bootstrap", "20", "--at", ".04"
    )
    assert (found["kappa"], found["K"], found["n"]) == pytest.approx((0.7, 2.0, 8))
    assert found["resampling"] == "runs"
    assert found["prediction"]["value"] == pytest.approx(0.05 + 2.0 * 0.02**0.7)
    assert (found["x"], found["y"]) == ("depth loss", "depth scenes affine absrel, ddim 8 x 1")


@pytest.mark.parametrize(
    "arguments, kappa, K",
    [
        (("synthetic-real", "--task", "depth", "--where", "nfe=8", "--x-where", "dataset=scenes",
          "--y-where", "dataset=nyu", "--floor-x", ".05", "--floor-y", ".1"), 1.0, 0.8),
        (("test-time", "--task", "depth", "--where", "dataset=scenes", "--x-where", "nfe=8",
          "--y-where", "nfe=1", "--floor-x", "0", "--floor-y", "0"), 1.0, 1.5),
        (("task-task", "--x-where", "task=depth", "--y-where", "task=flow",
          "--floor-x", ".02", "--floor-y", ".02"), 1.0, 0.5),
    ],
)  # fmt: skip
def test_other_hooks_of_records(runs, capsys, arguments, kappa, K):
    found = answered(capsys, runs, "--hook", *arguments, "--bootstrap", "0")
    assert (found["kappa"], found["K"], found["n"]) == pytest.approx((kappa, K, 8))


def test_pretraining_to_fine_tuning_of_records(tmp_path, capsys):
    """The hook says that x is pretraining; --task is what was fine-tuned."""
    for number in range(6):
        before = record(number, run=f"p{number}", task="image", metric="energy")
        inherited = dict(inherited_flops=before.training_flops, parent=before.run)
        after = record(
            number,
            run=f"f{number}",
            images_seen=500,
            loss=0.01 + 0.2 * (before.loss or 0),
            **inherited,
        )
        append(tmp_path / "records.jsonl", [before, after])
    found = answered(
        capsys, str(tmp_path), "--hook", "pretrain-finetune", "--task", "depth",
        "--floor-x", ".02", "--floor-y", ".014", "--bootstrap", "0",
    )  # fmt: skip
    assert (found["kappa"], found["K"], found["n"]) == pytest.approx((1.0, 0.2, 6))
    assert (found["x"], found["y"]) == ("image loss", "depth loss")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((), "Records need a --hook. Choose from: loss-metric"),
        (("--hook", "loss-metric", "--by", "data"), "--by are for tables"),
        (("--hook", "loss-metric", "--from", "web"), "--from are for tables"),
        (("--hook", "loss-metric", "--where", "depth"), "--where depth: write NAME=VALUE"),
        (("--hook", "loss-metric", "--task", "depth"), "y mixes records of dataset nyu, scenes"),
        (("--csv", "x.csv"), "Give records or --csv, not both"),
    ],
)
def test_what_is_wrong_with_records(runs, arguments, message):
    with pytest.raises(UserError, match=message):
        GROUP.run(["loss-to-loss", runs, *arguments])


def test_nothing_given():
    with pytest.raises(UserError, match="Name run folders"):
        GROUP.run(["loss-to-loss"])
