"""A study under way: what ran is not run again, what failed is named, what was stopped goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from stepsight import signals
from stepsight.cli.main import main
from stepsight.config import RunConfig
from stepsight.errors import UserError
from stepsight.report.study import page
from stepsight.study import dry_run, running
from stepsight.study.graph import read_study
from stepsight.study.stages import PROGRAM, jobs_of
from stepsight.training.planning.pricing import Price
from tests.study.conftest import STUDY
from tests.support.stages import stand_ins


@pytest.fixture(autouse=True)
def drawn(monkeypatch) -> list[Path]:
    """The folders of which a page was asked for."""
    asked: list[Path] = []
    monkeypatch.setattr(
        page, "write", lambda folder: asked.append(folder) or folder / "report.html"
    )
    return asked


def statuses() -> dict[str, str]:
    return {row["name"]: row["status"] for row in running.read_status(Path("runs/study"))}


def starts(name: str) -> int:
    path = Path("runs/study", name, "starts")
    return len(path.read_text()) if path.exists() else 0


def test_what_failed_is_named_leaves_out_what_needs_it_and_goes_on(study_file, capsys):
    Path("fail-depth").touch()
    study, jobs = stand_ins()
    running.run(study, jobs, "local")
    left_out = dict.fromkeys(("mixed", "sweep"), "left out")
    done = dict.fromkeys(("cache", "pre-32x1", "pre-64x1", "laws"), "done")
    assert statuses() == done | {"depth": "failed"} | left_out
    rows = {row["name"]: row for row in running.read_status(study.out)}
    assert rows["depth"]["why"] == "error: depth does not fit"
    assert rows["mixed"]["why"] == "depth: failed" and rows["mixed"]["needs"] == ["depth"]
    assert rows["pre-32x1"]["gflop"] == 4.0 and rows["pre-32x1"]["core_seconds"] > 0
    assert "failed depth" in capsys.readouterr().out

    Path("fail-depth").unlink()
    running.run(study, jobs, "local")
    assert set(statuses().values()) == {"done"}
    assert [starts(job.name) for job in jobs] == [1, 1, 1, 2, 1, 1, 1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_study_that_is_asked_to_end_passes_it_on_and_goes_on_later(study_file, number):
    Path("slow-pre-32x1").write_text("60")
    study, jobs = stand_ins()

    def send() -> None:
        while not (study.out / "pre-32x1/began").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    with signals.caught(), pytest.raises(signals.Preempted, match="same command goes on"):
        threading.Thread(target=send).start()
        running.run(study, jobs, "local")
    waiting = {"pre-32x1", "pre-64x1", "depth", "mixed", "sweep", "laws"}
    assert statuses() == {"cache": "done"} | dict.fromkeys(waiting, "waiting")
    assert starts("depth") == 0
    running.run(study, jobs, "local")
    assert set(statuses().values()) == {"done"} and starts("pre-32x1") == 2
    assert starts("cache") == 1


def test_a_study_that_is_killed_waits_for_the_stage_that_outlived_it(study_file):
    Path("slow-cache").write_text("2")
    study, jobs = stand_ins()
    code = "from stepsight.study.running import run; from tests.support.stages import stand_ins; "
    code += "run(*stand_ins(), 'local')"
    root = Path(__file__).parents[2]
    inherited = os.environ | {"PYTHONPATH": f"{root}:{root / 'src'}"}
    first = subprocess.Popen([sys.executable, "-c", code], env=inherited, stderr=subprocess.DEVNULL)
    while not (study.out / "cache/began").exists():
        assert first.poll() is None
        time.sleep(0.02)
    first.kill()
    first.wait()
    assert statuses()["cache"] == "running"
    running.run(study, jobs, "local")
    assert set(statuses().values()) == {"done"} and starts("cache") == 1


def test_a_stage_whose_settings_changed_is_not_taken_for_the_old_one(study_file):
    study, jobs = stand_ins()
    running.run(study, jobs, "local")
    running.StudyProgress(*stand_ins())  # which the same ones are
    told = yaml.safe_load(study_file.read_text())
    told["stages"]["sweep"]["options"]["nfe"] = "1,2,4"
    study_file.write_text(yaml.safe_dump(told))
    with pytest.raises(UserError, match="runs/study/sweep was made with other settings.*--out"):
        running.StudyProgress(*stand_ins())
    study_file.write_text(yaml.safe_dump(STUDY, sort_keys=False))
    changed = yaml.safe_load(Path("depth.yaml").read_text())
    changed["training"]["keep"] = 7  # which decides nothing
    Path("depth.yaml").write_text(yaml.safe_dump(changed))
    running.StudyProgress(*stand_ins())
    changed["training"]["lr"] = 1e-3
    Path("depth.yaml").write_text(yaml.safe_dump(changed))
    with pytest.raises(UserError, match="runs/study/depth was made with other settings"):
        running.StudyProgress(*stand_ins())


def test_a_page_that_cannot_be_drawn_stops_nothing(study_file, monkeypatch, capsys):
    def broken(folder: Path) -> Path:
        raise ValueError("no such figure")

    monkeypatch.setattr(page, "write", broken)
    study, jobs = stand_ins()
    assert running.run(study, jobs, "local").draw() is None
    assert "ValueError('no such figure')" in capsys.readouterr().err


def test_the_command_runs_stages_and_says_what_failed(study_file, monkeypatch, capsys, drawn):
    Path("fail-laws").touch()
    monkeypatch.setattr("stepsight.study.stages.jobs_of", lambda *_: stand_ins()[1])
    assert main(["study", "study.yaml"]) == 1
    told = capsys.readouterr()
    assert "failed: laws: error: laws does not fit" in told.err
    assert "written to runs/study/report.html" in told.out and drawn
    Path("fail-laws").unlink()
    assert main(["study", "study.yaml"]) == 0


@pytest.fixture
def asked(monkeypatch) -> list[dict[str, Any]]:
    """What is priced; a stage costs an exaFLOP for each of its model's 32 columns."""
    calls: list[dict[str, Any]] = []

    def price(config: RunConfig, **kwargs: Any) -> Price:
        calls.append({"config": config, **kwargs})
        columns = 64 if config.model.name == "DiT-64x1/2" else 32
        parts = {kwargs["kind"]: columns / 32 * 1e18}
        return Price(parts, columns / 32, columns * 10**9, "too large", columns < 64, ("a guess",))

    monkeypatch.setattr(dry_run, "price", price)
    return calls


def test_a_dry_run_prices_every_stage_and_starts_nothing(study_file, capsys, asked):
    told = yaml.safe_load(study_file.read_text())
    told["stages"]["pre"]["from"] = "weights/elsewhere"
    study_file.write_text(yaml.safe_dump(told, sort_keys=False))
    flags = ["--devices", "2", "--device-tflops", "100", "--device-memory", "40", "--mfu", "0.25"]
    assert main(["study", "study.yaml", "--dry-run", *flags]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[3].split() == ["pre-32x1", "train", "1", "EFLOP", "1", "32.0", "GB", "fits"]
    assert table[4].split()[-2:] == ["too", "large"]
    assert "together 6 EFLOP, 6 hours of 2 devices, one stage after the other" in table
    assert "of which train 66.7%, latents 16.7%, sweep 16.7%" in table
    assert "at 25.0% of 100 TFLOP/s a device (stated with --mfu, not measured)" in table
    assert not any("not of this machine" in line for line in table), "the device was stated"
    assert "DO NOT FIT 40 GB: pre-64x1" in table and table[-1] == "assumed: a guess"
    assert "not there yet: weights/elsewhere, which pre-64x1 starts from" in table
    assert [call["kind"] for call in asked] == ["latents", "train", "train", "train", "sweep"]
    paid = dict(utilisation=0.25, devices=2, peak=1e14, room=40.0)
    assert all(paid.items() <= call.items() for call in asked)
    coded = [call.get("without") for call in asked]
    assert coded == [(), ("latent coding",), ("latent coding",), (), None]
    assert asked[-1]["config"].evaluation.sweep_nfe == (1, 2)
    assert asked[-1]["config"].evaluation.sweep_members == (1,)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("configs.yaml", "mine", "is not empty and holds no study"),
        ("study.json", "{bad", "study.json: not JSON"),
        ("study.json", '{"a": 1}', "study.json is no study's"),
        ("study.json", '{"name": "others", "stages": []}', "holds the study 'others'"),
    ],
)
def test_a_folder_of_something_else_is_left_as_it_is(study_file, capsys, name, content, message):
    found = Path("runs/study", name)
    found.parent.mkdir(parents=True)
    found.write_text(content)
    assert main(["study", "study.yaml"]) == 2
    assert message in capsys.readouterr().err
    assert [*found.parent.iterdir()] == [found] and found.read_text() == content


def test_flags_of_a_sweep_that_are_no_numbers_are_refused(study_file, capsys, asked):
    told = yaml.safe_load(study_file.read_text())
    told["stages"]["sweep"]["options"] = {"nfe": "one"}
    study_file.write_text(yaml.safe_dump(told, sort_keys=False))
    assert main(["study", "study.yaml", "--dry-run"]) == 2
    assert "options.nfe one: write numbers" in capsys.readouterr().err


def test_a_dry_run_is_one_json_object_too(study_file, capsys, asked):
    assert main(["study", "study.yaml", "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in told["stages"]}
    assert [*rows] == [job.name for job in jobs_of(read_study("study.yaml"))]
    assert rows["depth"]["parts"] == {"train": 1e18} and "parts" not in rows["laws"]
    assert rows["depth"]["needs"] == ["pre-32x1"] and told["utilisation"] == 0.4


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--scale", "2"], "--scale 2: above 0, at most 1"),
        (["--scale", "x"], "--scale x: give a share such as 1/1000"),
        (["--dry-run", "--mfu", "0"], "--mfu 0: must be above 0"),
        (["--dry-run", "--measured", "nowhere"], "--measured"),
        (["--at-once", "0"], "--at-once 0"),
    ],
)
def test_flags_that_cannot_be_are_refused(study_file, capsys, flags, message):
    assert main(["study", "study.yaml", *flags]) == 2
    assert message in capsys.readouterr().err


def test_stages_are_commands_of_this_package(study_file):
    for job in jobs_of(read_study("study.yaml")):
        assert job.command[:3] == (sys.executable, *PROGRAM) and job.command[3:] == job.shown
