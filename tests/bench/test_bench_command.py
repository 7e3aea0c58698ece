"""`stepsight bench`: what is printed and written, and when it fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stepsight.cli.main import main

QUICK = ["bench", "scenes", "--tiny", "--device", "cpu"]


@pytest.fixture(scope="module")
def ratios(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "ratios.json"
    assert main([*QUICK, "--out", str(path)]) == 0
    return path


def test_a_table_says_what_was_measured(capsys: pytest.CaptureFixture[str]):
    assert main(QUICK) == 0
    page = capsys.readouterr().out
    assert "worlds that are rendered twice are equal" in " ".join(page.split())
    assert "times as fast as unit" in page and "ours, pairs" in page


def test_json_is_one_document(ratios: Path, capsys: pytest.CaptureFixture[str]):
    assert main([*QUICK, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == json.loads(ratios.read_text()).keys()
    assert found["setup"] == {"device": "cpu", "size": "tiny", "rounds": 0}
    assert found["machine"]["cpu"] and found["machine"]["cores"] >= 1
    assert {"python", "torch", "diffusers", "timm", "stepsight"} <= found["versions"].keys()
    assert [row["side"] for row in found["rows"]] == ["unit", "ours, single", "ours, pairs"]


@pytest.mark.parametrize("before, answer, status", [(1e-3, "faster", 0), (1e3, "slower", 1)])
def test_a_slower_ratio_is_a_failure(
    before: float, answer: str, status: int, ratios: Path, tmp_path: Path, capsys
):
    stored = json.loads(ratios.read_text())
    for row in stored["rows"]:
        row["ratio"] *= before
    path = tmp_path / "before.json"
    path.write_text(json.dumps(stored))
    assert main(["bench", "--compare", str(path), "--device", "cpu"]) == status
    page = capsys.readouterr().out
    assert page.count(answer) == 3 and f"2 {answer}" in page
    assert main(["bench", "--compare", str(path), "--device", "cpu", "--json"]) == status
    found = json.loads(capsys.readouterr().out)
    assert [one["answer"] for one in found["changes"]] == [answer, answer]


@pytest.mark.parametrize(
    "words, said",
    [
        (["steps"], "bench 'steps' is unknown. Did you mean 'step'?"),
        (["--rounds", "0"], "--rounds 0: must be at least 1"),
        (["--device", "gpu"], "--device gpu: no such choice"),
        (["--compare", "nowhere.json"], "nowhere.json cannot be read"),
    ],
)
def test_what_cannot_be_measured_is_refused(words: list[str], said: str, capsys):
    assert main(["bench", *words]) == 2
    assert said in capsys.readouterr().err


def test_sizes_of_another_device_are_refused(ratios: Path, tmp_path: Path, capsys):
    stored = json.loads(ratios.read_text())
    stored["setup"]["size"] = "gpu"
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps(stored))
    assert main(["bench", "--compare", str(path), "--device", "cpu"]) == 2
    assert "measured at gpu sizes, here they would be those of cpu" in capsys.readouterr().err


def test_help_names_the_benches(capsys: pytest.CaptureFixture[str]):
    assert main(["bench", "--help"]) == 0
    page = capsys.readouterr().out
    assert "step         a training step beside DiT's" in page and "growth" in page
