"""`stepsight steps`: the table of a trajectory in the terminal, and every flag in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stepsight.cli.main import GROUP, main
from stepsight.errors import UserError


def run(arguments: list[str]) -> int:
    return GROUP.run(["steps", *arguments])


def table(capsys, *arguments: str) -> list[dict]:
    assert run([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["steps"]


def test_the_default_walk_is_told(capsys):
    assert run(["--nfe", "2"]) == 0
    head, names, first, second, foot = capsys.readouterr().out.splitlines()
    assert head == "ddim, trailing, rectified_flow, shift 4, eta 0"
    assert names.split()[:2] == ["step", "time"]
    assert first.split() == ["0", "1.0000", "1000.0000", "0.0000", "1.0000", "-inf", "1"]
    assert second.split()[:3] == ["1", "0.8000", "800.0000"]
    assert foot == "ends at time 0 after 2 calls"


def test_pure_noise_is_null_in_json(capsys):
    first, second = table(capsys, "--nfe", "2")
    assert first["log_snr"] is None and second["log_snr"] < 0


def test_every_flag_changes_the_table(capsys):
    usual = table(capsys, "--nfe", "4")
    for flags in (
        ["--sampler", "midpoint"],
        ["--spacing", "karras"],
        ["--schedule", "cosine"],
        ["--times", "1,0.9,0.2,0.1"],
        ["--strength", "0.5"],
    ):
        assert table(capsys, "--nfe", "4", *flags) != usual, flags
    assert run(["--nfe", "2", "--eta", "0.5"]) == 0
    assert "eta 0.5" in capsys.readouterr().out


def test_settings_come_from_files(capsys, tmp_path: Path):
    file = tmp_path / "walk.yaml"
    file.write_text("diffusion: {schedule: linear, sampling_shift: 1.0, sampler: heun}\n")
    steps = table(capsys, "--config", str(file), "--nfe", "7")
    assert [step["condition"] for step in steps] == [999, 749, 499, 249]
    assert [step["calls"] for step in steps] == [2, 2, 2, 1]


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--nfe", "4", "--sampler", "heun"], "heun cannot spend exactly 4 model calls"),
        (["--nfe", "4", "--spacing", "karas"], "Did you mean 'karras'"),
        (["--nfe", "4", "--spacing", "leading"], "rectified_flow does not have"),
        (["--nfe", "2", "--times", "0.9,0.5"], "Give falling times"),
        (["--nfe", "2", "--config", "nowhere.yaml"], "not found"),
    ],
)
def test_mistakes_are_one_line(capsys, flags, message: str):
    assert main(["steps", *flags]) == 2
    assert message in capsys.readouterr().err


def test_wrong_flags_are_refused():
    with pytest.raises(UserError, match="missing: --nfe"):
        run([])
    with pytest.raises(UserError, match="--times a,b: give falling times"):
        run(["--nfe", "2", "--times", "a,b"])
