"""`stepsight scaling allocate`: laws, tables of runs, IsoFLOP profiles, and measured costs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from stepsight.cli.scaling import GROUP
from stepsight.errors import UserError
from stepsight.scaling.compute_allocation.allocation import TrainingLaw, allocate
from stepsight.scaling.compute_allocation.serving import SamplingLaw, serve

LAW = TrainingLaw(E=0.05, A=40.0, alpha=0.33, B=60.0, beta=0.29)
TEXT = "E=.05,A=40,alpha=.33,B=60,beta=.29"
SAMPLING = "A=.01,a=1.5,B=.012,b=.9"


def answered(capsys, *args: str) -> dict:
    assert GROUP.run(["allocate", *args, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def printed(capsys, *args: str) -> str:
    assert GROUP.run(["allocate", *args]) == 0
    return capsys.readouterr().out


def test_budgets_under_a_law(capsys):
    found = answered(capsys, "--law", TEXT, "--budget", "1e18,1e20", "--factor", "1536")
    assert found["law"]["a"] == pytest.approx(0.29 / 0.62) and found["law"]["form"] == "chinchilla"
    assert [one["budget"] for one in found["optima"]] == [1e18, 1e20]
    best = allocate(LAW, 1e20, 1536)
    assert found["optima"][1] == pytest.approx(best._asdict()) and "serving" not in found
    text = printed(capsys, "--law", TEXT, "--budget", "1e20", "--factor", "1536")
    assert f"{best.params:.4g} parameters" in text and "constants alone give no intervals" in text


def test_train_or_sample(capsys):
    asked = ("--target", ".3", "--queries", "1e6", "--sampling", SAMPLING, "--most", "20x8")
    found = answered(capsys, "--law", TEXT, *asked)["serving"]
    own = serve(LAW, SamplingLaw(0.01, 1.5, 0.012, 0.9), 0.3, 1e6, most=(20, 8))
    assert found["best"] == pytest.approx(own.best._asdict())
    assert found["break_even"] == pytest.approx(own.break_even)
    assert found["least"]["total"] > found["best"]["total"]
    text = printed(capsys, "--law", TEXT, *asked, "--least", "2x1", "--query-factor", "3")
    assert "steps x" in text and "queries on the least sampling is cheapest" in text


@pytest.fixture
def points(tmp_path: Path) -> str:
    """Two sets of runs on a grid of sizes and budgets, one of them made by the law."""
    path, lines = tmp_path / "points.csv", ["set,n,d,c,loss"]
    for budget in (1e15, 1e16, 1e17, 1e18):
        middle = allocate(LAW, budget).params
        for params in middle * np.geomspace(0.3, 3, 7):
            samples = budget / (6 * params)
            loss = float(LAW.loss(params, samples))
            lines += [f"own,{params},{samples},{budget},{loss}", f"other,{params},{samples},1,1"]
    path.write_text("\n".join(lines))
    return str(path)


COLUMNS = ("--where", "set=own", "--params", "n", "--loss", "loss")


def test_a_law_fitted_to_runs(points, capsys):
    arguments = ("--points", points, *COLUMNS, "--samples", "d", "--budget", "1e18,1e22")
    found = answered(capsys, *arguments)
    for one in found["optima"]:
        best = allocate(LAW, one["budget"])
        assert one["params"] == pytest.approx(best.params, rel=0.05)
        assert one["loss"] == pytest.approx(best.loss, rel=0.02)
    assert found["law"]["a"] == pytest.approx(LAW.a, abs=0.01)
    near, far = found["optima"]
    assert near["params_interval"][0] <= near["params"] * 1.001 and near["level"] == 0.95
    assert len(far["samples_interval"]) == len(far["loss_interval"]) == 2
    assert far["reach"] > 100 > 3 > near["reach"] and found["backtest"]["of"] > 5
    assert found["intervals"].keys() > {"a", "b", "G", "E", "alpha"}
    assert found["verdict"] == near["verdict"]
    assert any("extrapolating: 1e+22 FLOPs" in note for note in found["warnings"])
    assert "fit of 28 runs: law" in found["warnings"][0]
    text = printed(capsys, *arguments[:-1], "1e19", "--bootstrap", "20", "--runs", "n")
    assert "back-test" in text and "budget    1e+19" in text and "parameters [" in text


def test_what_is_wrong_with_a_table_of_runs(tmp_path, capsys):
    """Named as the table's own fault; a law that was denied is said beside its optimum."""
    path = tmp_path / "runs.csv"
    n, d = np.repeat(np.geomspace(1e7, 1e9, 5), 5), np.tile(np.geomspace(1e8, 1e10, 5), 5)
    flags = ("--points", str(path), "--params", "n", "--samples", "d", "--loss", "loss")

    def write(n, d, loss) -> None:
        np.savetxt(path, np.c_[n, d, loss, 1 / n], delimiter=",", header="n,d,loss,lr", comments="")

    write(n, 20 * n, LAW.loss(n, 20 * n))
    with pytest.raises(UserError, match="A, alpha, B, beta cannot be told apart"):
        GROUP.run(["allocate", *flags, "--budget", "1e20"])
    scatter = np.exp(0.3 * np.random.default_rng(0).standard_normal(25))
    write(n, d, (0.5 + n**-0.1 + d**-0.1) * scatter)
    text = printed(capsys, *flags, "--budget", "1e20", "--bootstrap", "20")
    assert "(improves but no law)" in text or "(not monotone)" in text
    assert "lr changes with parameters (rank correlation -1.00)" in text


@pytest.mark.parametrize("samples", [(), ("--samples", "d")])
def test_profiles(points, capsys, samples):
    arguments = ("--profiles", points, *COLUMNS, *samples, "--compute", "c", "--bootstrap", "10")
    found = answered(capsys, *arguments, "--budget", "1e17,1e20")
    assert found["a"] == pytest.approx(LAW.a, abs=1e-6) and len(found["profiles"]) == 4
    assert found["optima"][0]["params"] == pytest.approx(allocate(LAW, 1e17).params, rel=0.02)
    assert "parabolas are exact only" in found["warnings"][-2]
    assert "beyond the largest budget" in found["warnings"][-1]
    assert found["optima"][1]["reach"] == pytest.approx(100) and "draws" not in found
    for one in found["optima"]:
        for name in ("params", "samples"):
            lo, hi = one[f"{name}_interval"]
            assert lo <= one[name] * 1.001 and one[name] * 0.999 <= hi
    assert found["intervals"].keys() == {"a", "G", "b", "H"}
    lo, hi = found["intervals"]["b"]
    assert lo <= found["b"] <= hi
    text = printed(capsys, *arguments)
    assert "a         0.4677" in text and "parabolas are exact only" in text


@pytest.fixture
def measured(tmp_path: Path) -> str:
    path = tmp_path / "costs.csv"
    path.write_text(
        "model,nfe,trained,call,error\n"
        "s,1,10,1,.5\ns,10,10,10,.3\nm,5,100,5,.29\nl,1,1000,2,.2\nxl,1,9000,1.9,.1\n"
    )
    return str(path)


COSTS = ("--training", "trained", "--query", "call", "--error", "error", "--name", "model,nfe")


def test_measured_configurations(measured, capsys):
    arguments = ("--measured", measured, *COSTS, "--target", ".3")
    found = answered(capsys, *arguments, "--queries", "100")
    assert [(one["name"], one["start"], one["end"]) for one in found["ranges"]] == [
        ("s 10", 0, 18),
        ("m 5", 18, 300),
        ("l 1", 300, pytest.approx(80000)),
        ("xl 1", pytest.approx(80000), None),
    ]
    assert (found["best"]["name"], found["best"]["total"]) == ("m 5", 600)
    text = printed(capsys, *arguments, "--queries", "100")
    assert "18 to 300 queries: m 5, 0.29" in text and "100 queries: m 5, total 600" in text
    rows = answered(capsys, "--measured", measured, *COSTS[:6], "--target", ".1")
    assert rows["ranges"][0]["name"] == "row 5" and "best" not in rows


@pytest.mark.parametrize(
    "row, told",
    [
        ("m,5,-1,5,.2", "trained is -1, and must be 0 or more"),
        ("m,5,9,0,.2", "call is 0, and must be above 0"),
        ("m,5,9,5,-.2", "error is -0.2, and must be above 0"),
    ],
)
def test_costs_and_errors_that_cannot_be(tmp_path, row, told):
    path = tmp_path / "costs.csv"
    path.write_text(f"model,nfe,trained,call,error\ns,1,0,1,.5\n{row}\n")
    with pytest.raises(UserError, match=f"costs.csv:3: {told}"):
        GROUP.run(["allocate", "--measured", str(path), *COSTS, "--target", ".3"])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--law", TEXT), "Ask for something"),
        (("--law", "E=1,A=2"), "alpha, B, beta is missing"),
        (("--law", "E=1,A=big"), "write NAME=NUMBER"),
        (("--law", TEXT, "--budget", "lots"), "write FLOPs, such as"),
        (("--law", TEXT, "--budget", "1e18,0"), "--budget 1e18,0: FLOPs are above 0"),
        (("--law", TEXT, "--budget", "-1"), "--budget -1: FLOPs are above 0"),
        (("--law", TEXT, "--budget", "nan"), "--budget nan: FLOPs are above 0"),
        (("--points", "POINTS", "--bootstrap", "-3"), "--bootstrap -3: must be at least 0"),
        (("--profiles", "POINTS", "--bootstrap", "-3"), "--bootstrap -3: must be at least 0"),
        (("--law", TEXT, "--budget", "1e9", "--factor", "0"), "--factor 0"),
        (("--law", TEXT, "--params", "n", "--bootstrap", "3"), "no use for --bootstrap, --params"),
        (("--law", TEXT, "--budget", "1e9", "--queries", "3"), "say --target"),
        (("--law", TEXT, "--target", ".3"), "missing: --queries and --sampling"),
        (("--law", TEXT, "--target", ".3", "--queries", "1", "--sampling", "A=1"), "a, B, b is"),
        (
            ("--law", TEXT, "--target", ".3", "--queries", "1", "--sampling", SAMPLING)
            + ("--most", "4"),
            "--most 4: write two numbers",
        ),
        (("--points", "POINTS", "--budget", "1e9"), "missing: --params and --samples and --loss"),
        (("--profiles", "POINTS", *COLUMNS), "missing: --compute"),
        (
            ("--profiles", "POINTS", *COLUMNS, "--compute", "c", "--samples", "d", "--factor", "6"),
            "--factor replaces --samples",
        ),
        (
            ("--profiles", "POINTS", "--where", "set=owm", *COLUMNS[2:], "--compute", "c"),
            "no row is left where set=owm",
        ),
        (("--measured", "COSTS", *COSTS), "missing: --target"),
        (("--measured", "COSTS", *COSTS, "--target", ".01"), "No configuration reaches"),
        (("--measured", "COSTS", *COSTS, "--target", "1", "--queries", "-1"), "--queries -1"),
    ],
)
def test_what_is_missing_or_does_not_belong(points, measured, arguments, message):
    files = {"POINTS": points, "COSTS": measured}
    with pytest.raises(UserError, match=message):
        GROUP.run(["allocate", *(files.get(one, one) for one in arguments)])


def test_one_source():
    for sources in ((), ("--law", TEXT, "--points", "x.csv")):
        with pytest.raises(UserError, match="exactly one of --law, --points"):
            GROUP.run(["allocate", *sources, "--budget", "1e9"])
