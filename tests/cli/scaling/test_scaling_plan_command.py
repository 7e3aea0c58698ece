"""`stepsight scaling plan` and `frontier`, on a sweep and on a published table."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from stepsight.cli.scaling import GROUP
from stepsight.errors import DataFormatError, UserError
from stepsight.scaling.sampling.sweeps import Cell, write_sweep


def cell(nfe: int, members: int, scale: float = 1.0, **changed) -> Cell:
    calls = nfe * members
    value = scale * (0.1 + 0.2 / nfe + 0.1 / members)
    fields = dict(
        task="depth",
        sampler="ddim",
        spacing="trailing",
        schedule="trained",
        nfe=nfe,
        members=members,
        total_calls=calls,
        gflop_per_image=0.5 * calls,
        ms_per_image=1.5 * calls,
        latency_ms=2.0 * calls,
        peak_gb=0.1,
        metric="abs_rel",
        value=value,
        lo=0.95 * value,
        hi=1.05 * value,
    )
    return Cell(**(fields | changed))


@pytest.fixture
def sweep(tmp_path: Path) -> str:
    grid = [(t, n) for t in (1, 2, 4, 8) for n in (1, 2, 4)]
    cells = [cell(*at) for at in grid] + [cell(*at, scale=2.0, sampler="euler") for at in grid]
    path = tmp_path / "sweep.csv"
    write_sweep(path, [*cells, *(cell(*at, task="flow", metric="epe") for at in grid)])
    return str(path)


def answered(capsys, *args: str):
    assert GROUP.run([*args, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def printed(capsys, *args: str) -> str:
    assert GROUP.run(list(args)) == 0
    return capsys.readouterr().out


def test_plan(sweep, capsys):
    found = answered(capsys, "plan", "--sweep", sweep, "--task", "depth", "--budget", "8nfe")
    assert (found["sampler"], found["nfe"], found["members"]) == ("ddim", 4, 2)
    assert (found["budget"], found["spent"], found["measured"]) == ("8nfe", 8.0, True)
    wide = answered(
        capsys, "plan", "--sweep", sweep, "--task", "depth", "--budget", "8nfe", "--within", "50"
    )
    assert wide["cheapest"]["total_calls"] < found["cheapest"]["total_calls"]


def test_plan_in_words(sweep, capsys):
    text = printed(capsys, "plan", "--sweep", sweep, "--task", "depth", "--budget", "8ms")
    assert "NFE 2 x 2 members: AbsRel 0.250" in text
    assert "4 calls, 2 GFLOP, 6 ms per image of many, 8 ms alone" in text


def test_one_setting(sweep, capsys):
    found = answered(capsys, "plan", "--sweep", sweep, "--task", "depth", "--at", "3x3")
    assert (found["nfe"], found["members"], found["measured"]) == (3, 3, False)
    assert found["lo"] < 0.1 + 0.2 / 3 + 0.1 / 3 < found["hi"]
    assert "NFE 3 x 3" in printed(
        capsys, "plan", "--sweep", sweep, "--task", "depth", "--at", "3x3"
    )
    with pytest.raises(UserError, match="such as 8x4"):
        GROUP.run(["plan", "--sweep", sweep, "--task", "depth", "--at", "3"])


def test_budget_and_setting_exclude_each_other(sweep):
    for asked in ([], ["--budget", "8nfe", "--at", "3x3"]):
        with pytest.raises(UserError, match="exactly one of --budget, --at"):
            GROUP.run(["plan", "--sweep", sweep, "--task", "depth", *asked])


def test_frontier_of_a_sweep(sweep, capsys):
    depth, flow = answered(capsys, "frontier", "--sweep", sweep)
    assert (depth["name"], depth["metric"], flow["name"]) == ("depth", "abs_rel", "flow")
    assert {point["sampler"] for point in depth["points"]} == {"ddim"}
    assert [family["sampler"] for family in depth["families"]] == ["ddim", "euler"]
    (only,) = answered(capsys, "frontier", "--sweep", sweep, "--task", "flow", "--cost", "ms")
    assert only["points"][0]["cost"] == 1.5 and only["points"][-1]["members"] == 4
    text = printed(capsys, "frontier", "--sweep", sweep, "--task", "depth")
    assert "ddim trailing trained T 1: steps at 1 member" in text and "0.150" in text
    with pytest.raises(UserError, match="no task 'normals'"):
        GROUP.run(["frontier", "--sweep", sweep, "--task", "normals"])


@pytest.fixture
def table(tmp_path: Path) -> str:
    """A twin of the published points: steps saturate, the larger model is better."""
    path = tmp_path / "points.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "steps", "ensemble", "macs", "absrel"])
        for model, price, scale in (("small", 1e10, 1.0), ("large", 1e11, 0.6)):
            for t, error in zip((1, 2, 5, 10, 20, 50), (0.72, 0.54, 0.37, 0.35, 0.35, 0.35)):
                writer.writerow([model, t, 5, 5 * price * t, scale * error])
    return str(path)


COLUMNS = ("--x", "macs", "--y", "absrel", "--steps", "steps", "--members", "ensemble")


def test_frontier_of_published_points(table, capsys):
    (found,) = answered(capsys, "frontier", "--csv", table, *COLUMNS, "--by", "model")
    assert (found["cost"], found["metric"]) == ("macs", "absrel")
    assert [(p["checkpoint"], p["nfe"]) for p in found["points"]] == [
        ("small", 1),
        ("small", 2),
        ("small", 5),
        ("small", 10),
        ("large", 2),
        ("large", 5),
        ("large", 10),
    ]
    dials = {family["checkpoint"]: family["dials"] for family in found["families"]}
    assert [(d["dial"], d["at"], d["verdict"]) for d in dials["large"]] == [
        ("steps", 5, "saturated")
    ]
    assert "small: steps at 5 members saturated" in printed(
        capsys, "frontier", "--csv", table, *COLUMNS, "--by", "model"
    )


def test_tables_that_do_not_tell(table, tmp_path):
    with pytest.raises(UserError, match="needs --x"):
        GROUP.run(["frontier", "--csv", table])
    with pytest.raises(UserError, match="Several points of the table have 1 steps and 5 members"):
        GROUP.run(["frontier", "--csv", table, *COLUMNS])
    with pytest.raises(UserError, match="no column 'mac'. Did you mean 'macs'"):
        GROUP.run(["frontier", "--csv", table, "--x", "mac", "--y", "absrel"])
    with pytest.raises(DataFormatError, match="'model' is not numeric"):
        GROUP.run(["frontier", "--csv", table, "--x", "macs", "--y", "model"])
    with pytest.raises(UserError, match="does not exist"):
        GROUP.run(["frontier", "--csv", str(tmp_path / "none.csv"), "--x", "a", "--y", "b"])


@pytest.mark.parametrize(
    "row, told",
    [
        ("m,2.5,1,4,.2", "steps is 2.5, and must be a whole number from 1 on"),
        ("m,2,0,4,.2", "ensemble is 0, and must be a whole number from 1 on"),
        ("m,2,1,-4,.2", "macs is -4, and must be above 0"),
        ("m,2,1,4,0", "absrel is 0, and must be above 0"),
    ],
)
def test_points_that_cannot_be(tmp_path, row, told):
    path = tmp_path / "points.csv"
    path.write_text(f"model,steps,ensemble,macs,absrel\nm,1,1,2,.5\n{row}\n")
    with pytest.raises(DataFormatError, match=f"points.csv:3: {told}"):
        GROUP.run(["frontier", "--csv", str(path), *COLUMNS])
