"""Rungs as processes: what is done is not done again, what fails is told, and nothing is hidden."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from stepsight.errors import UserError
from stepsight.scaling.ladders import launch
from stepsight.scaling.ladders.ladder import Ladder, Rung, Stage

# Stands for train.py: fails where it is told to, and counts how often it was started.
PROGRAM = """
import json, sys
from pathlib import Path
import yaml
flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
config, folder = yaml.safe_load(Path(flags["--config"]).read_text()), Path(flags["--run-dir"])
folder.mkdir(parents=True, exist_ok=True)
with (folder / "starts").open("a") as file:
    file.write(flags.get("--init-from", "scratch") + "\\n")
if config["fail"] and not (folder / "mended").exists():
    sys.exit("error: loss is nan at step 3")
row = {"kind": "val", "images_seen": config["training"]["images"], "loss": 0.5}
(folder / "metrics.jsonl").write_text(json.dumps(row) + "\\n")
if config["training"].get("evaluate", True):
    (folder / "report.html").write_text("done")
"""


def rung(name: str, fail: bool = False, **training: object) -> Rung:
    parent = "pre/a" if name.startswith("fine") else ""
    config = {"fail": fail, "training": {"images": 64, **training}}
    return Rung(name, config, parent, {"model.name": name})


@pytest.fixture
def ladder(tmp_path) -> Ladder:
    (tmp_path / "program.py").write_text(PROGRAM)
    return Ladder(tmp_path / "out", (Stage("train", {}, ()),))


def starts(ladder: Ladder, name: str) -> list[str]:
    return (ladder.out / name / "starts").read_text().split()


def test_rungs_run_once_and_failures_are_told(ladder, tmp_path):
    rungs = [rung("train/a"), rung("train/b", fail=True), rung("fine/c"), rung("tune/d")]
    rungs[3] = rung("tune/d", evaluate=False)
    jobs = launch.prepare(ladder, rungs, tmp_path / "program.py")
    told: list[launch.Outcome] = []
    found = launch.run_local(jobs, 2, told.append)
    assert [one.state for one in found] == ["done", "failed", "done", "done"]
    assert found[1].why == "error: loss is nan at step 3" and len(told) == 4
    assert all(one.seconds > 0 and one.core_seconds > 0 for one in found)
    assert starts(ladder, "fine/c") == [str(ladder.out / "pre/a")]
    launch.write_status(ladder, rungs, found)

    (ladder.out / "train/b/mended").touch()
    again = launch.run_local(jobs, 1, told.append)
    assert [one.state for one in again] == ["done"] * 4
    assert [one.seconds > 0 for one in again] == [False, True, False, False]
    launch.write_status(ladder, rungs, again)
    assert [len(starts(ladder, one.name)) for one in rungs] == [1, 2, 1, 1]
    status = launch.read_status(ladder.out)
    assert [row["state"] for row in status.values()] == ["done"] * 4
    assert status["train/a"]["seconds"] == pytest.approx(found[0].seconds)  # of when it ran
    assert status["fine/c"]["parent"] == "pre/a"
    assert status["train/b"]["settings"] == {"model.name": "train/b"}


def test_a_run_that_ends_without_its_report_has_failed(ladder, tmp_path):
    (tmp_path / "program.py").write_text("print('nothing to do')")
    (found,) = launch.run_local(
        launch.prepare(ladder, [rung("train/a")], tmp_path / "program.py"), 1, lambda one: None
    )
    assert found.state == "failed" and found.why == "nothing to do"


def test_every_rung_continues_where_it_stopped(ladder, tmp_path):
    (job,) = launch.prepare(ladder, [rung("train/a")], tmp_path / "program.py")
    command = list(job.command)
    assert command[command.index("--resume") + 1] == "auto"
    assert command[command.index("--run-dir") + 1] == str(ladder.out / "train/a")
    assert command[0] == sys.executable and Path(command[3]).is_file()


def test_a_job_array_does_the_same(ladder, tmp_path):
    """submitit's executor in this process, in place of a cluster."""
    pytest.importorskip("submitit")
    rungs = [rung("train/a"), rung("train/b", fail=True)]
    jobs = launch.prepare(ladder, rungs, tmp_path / "program.py")
    told: list[launch.Outcome] = []
    options = {"timeout_min": 5}
    found = launch.run_slurm(jobs, tmp_path / "slurm", options, told.append, cluster="debug")
    assert [one.state for one in found] == ["done", "failed"] == [one.state for one in told]
    assert "loss is nan" in found[1].why
    found = launch.run_slurm(jobs[:1], tmp_path / "slurm", options, told.append, cluster="debug")
    assert found == [launch.Outcome("train/a", "done")] and len(told) == 2


def test_without_a_cluster_it_is_said(ladder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match="needs submitit.*--extra cluster"):
        launch.run_slurm([], tmp_path, {}, lambda one: None)


def test_a_rung_knows_its_device_and_no_process_group(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert launch._gpus() == ["2", "3"]
    assert launch._environment("3")["CUDA_VISIBLE_DEVICES"] == "3"
    assert "WORLD_SIZE" not in launch._environment("") and "RANK" not in launch._environment("")
    assert launch._environment("")["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert launch._gpus() == []


def test_the_status_of_a_ladder_is_plain_json(ladder, tmp_path):
    assert launch.read_status(tmp_path) == {}
    rungs = [rung("train/a")]
    ladder.out.mkdir()
    launch.write_status(ladder, rungs, [launch.Outcome("train/a", "failed", 1.0, 0.5, "why")])
    (row,) = json.loads((ladder.out / launch.STATUS).read_text())
    assert row["state"] == "failed" and row["why"] == "why" and row["factor"] == 1.0
