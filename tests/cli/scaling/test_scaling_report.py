"""`stepsight scaling report`: from ledgers to a page, with forecasts that later records score."""

from __future__ import annotations

import json
from pathlib import Path

import ladders
import pytest

from stepsight.cli.main import main
from stepsight.cli.scaling.report import target_of
from stepsight.errors import UserError
from stepsight.scaling.ladders.forecast import FILE_NAME
from stepsight.scaling.records import ScalingRecord, append

SIZES, AMOUNTS = (10_000, 100_000, 1_000_000), (1_000, 10_000, 100_000)
CHOSEN = "params=4e6,images=300000,name=large"


def loss(n: int, d: int) -> float:
    return 0.05 + 20 * n**-0.4 + 10 * d**-0.4


def record(n: int, d: int, time: str) -> ScalingRecord:
    return ladders.record(n, d, loss(n, d), None, time=time)


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    """Two ledgers, as of two machines."""
    found = [record(n, d, "2026-01-01T00:00:00+00:00") for n in SIZES for d in AMOUNTS]
    append(tmp_path / "here" / "records.jsonl", found[:5])
    append(tmp_path / "there" / "records.jsonl", found[4:])  # one of them was copied
    return [str(tmp_path / name) for name in ("here", "there")]


def report(*arguments: str) -> int:
    return main(["scaling", "report", *arguments, "--bootstrap", "10"])


def test_a_forecast_is_scored_when_the_report_is_made_again(runs, tmp_path, capsys):
    out = tmp_path / "out"
    asked = [*runs, "--out", str(out), "--forecast", CHOSEN]
    assert report(*asked) == 0
    told = capsys.readouterr().out
    assert "large: depth loss forecast 0.1" in told and "1 forecast waiting" in told
    assert "depth loss against training compute: y = " in told and f"written to {out}" in told
    assert json.loads((out / "report.json").read_text())["records"] == 9
    said = (out / FILE_NAME).read_text()

    late = record(4_000_000, 300_000, "2999-01-01T00:00:00+00:00")
    append(tmp_path / "large" / "records.jsonl", [late])
    assert report(str(tmp_path / "large"), *asked) == 0
    told = capsys.readouterr().out
    assert "that forecast stands" in told and "1 of 1 outcomes inside" in told
    assert (out / FILE_NAME).read_text() == said
    (scored,) = json.loads((out / "report.json").read_text())["forecasts"]
    assert scored["run"] == "large" and scored["outcome"] == late.loss
    assert scored["inside"] and abs(scored["error"]) < 0.01


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nowhere", "--out", "o"], "nowhere does not exist"),
        ([".", "--out", "o"], "No records found under ."),
        ([".", "--out", "o", "--forecast", "params=1e6"], "lacks images"),
        ([".", "--out", "file"], "is a file"),
    ],
)
def test_what_cannot_be_is_told_with_status_2(arguments, message, capsys, tmp_path):
    (tmp_path / "file").touch()
    assert report(*arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_a_negative_number_of_resamples_is_refused(runs, capsys):
    assert main(["scaling", "report", *runs, "--out", "o", "--bootstrap", "-1"]) == 2
    assert "--bootstrap -1" in capsys.readouterr().err


def test_a_target_in_words():
    assert target_of(CHOSEN) == ("large", 4_000_000, 300_000)
    assert target_of("images=10,params=2.5e6").name == "params-2500000-images-10"


@pytest.mark.parametrize(
    "text, message",
    [
        ("params=1e6,image=5", "Did you mean 'images'"),
        ("params=1e6", "lacks images"),
        ("params=many,images=5", "'many' is no positive number"),
        ("params=1e6,images=0", "'0' is no positive number"),
        ("params=inf,images=5", "'inf' is no positive number"),
    ],
)
def test_a_target_that_is_none(text, message):
    with pytest.raises(UserError, match=message):
        target_of(text)
