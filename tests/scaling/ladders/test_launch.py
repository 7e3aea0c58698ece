"""Rungs as processes: what is done is not done again, what fails is told, and nothing is hidden."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from stepsight import signals
from stepsight.errors import UserError
from stepsight.scaling.ladders import jobs as running
from stepsight.scaling.ladders import launch
from stepsight.scaling.ladders.ladder import Ladder, LadderStage, Rung

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
    (folder / "records.jsonl").touch()
"""


def rung(name: str, fail: bool = False, **training: object) -> Rung:
    parent = "pre/a" if name.startswith("fine") else ""
    config = {"fail": fail, "training": {"images": 64, **training}, "evaluation": {"sweep": False}}
    return Rung(name, config, parent, {"model.name": name})


@pytest.fixture
def ladder(tmp_path) -> Ladder:
    (tmp_path / "program.py").write_text(PROGRAM)
    return Ladder(tmp_path / "out", (LadderStage("train", {}, ()),))


def starts(ladder: Ladder, name: str) -> list[str]:
    return (ladder.out / name / "starts").read_text().split()


def test_rungs_run_once_and_failures_are_told(ladder, tmp_path):
    rungs = [rung("train/a"), rung("train/b", fail=True), rung("fine/c"), rung("tune/d")]
    rungs[3] = rung("tune/d", evaluate=False)
    jobs = launch.prepare(ladder, rungs, tmp_path / "program.py")
    told: list[running.JobOutcome] = []
    found = running.run_local(jobs, 2, told.append)
    assert [one.state for one in found] == ["done", "failed", "done", "done"]
    assert found[1].why == "error: loss is nan at step 3" and len(told) == 4
    assert all(one.seconds > 0 and one.core_seconds > 0 for one in found)
    assert starts(ladder, "fine/c") == [str(ladder.out / "pre/a")]
    for one, came in zip(rungs, found):
        launch.write_status(ladder, one, came)

    (ladder.out / "train/b/mended").touch()
    again = running.run_local(jobs, 1, told.append)
    assert [one.state for one in again] == ["done"] * 4
    assert [one.seconds > 0 for one in again] == [False, True, False, False]
    for one, came in zip(rungs, again):
        launch.write_status(ladder, one, came)
    assert [len(starts(ladder, one.name)) for one in rungs] == [1, 2, 1, 1]
    status = launch.read_status(ladder.out)
    assert [row["state"] for row in status.values()] == ["done"] * 4
    assert status["train/a"]["seconds"] == pytest.approx(found[0].seconds)  # of when it ran
    both = found[1].seconds + again[1].seconds
    assert status["train/b"]["seconds"] == pytest.approx(both)
    assert status["fine/c"]["parent"] == "pre/a"
    assert status["train/b"]["settings"] == {"model.name": "train/b"}


def test_a_run_that_ends_without_its_report_has_failed(ladder, tmp_path):
    (tmp_path / "program.py").write_text("print('nothing to do')")
    (found,) = running.run_local(
        launch.prepare(ladder, [rung("train/a")], tmp_path / "program.py"), 1, lambda one: None
    )
    assert found.state == "failed" and found.why == "nothing to do"


def test_every_rung_continues_where_it_stopped(ladder, tmp_path):
    (job,) = launch.prepare(ladder, [rung("train/a")], tmp_path / "program.py")
    command = list(job.command)
    assert command[command.index("--resume") + 1] == "auto"
    assert command[command.index("--run-dir") + 1] == str(ladder.out / "train/a")
    assert command[0] == sys.executable and Path(command[3]).is_file()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # its logs stay open
def test_a_job_array_does_the_same(ladder, tmp_path):
    """submitit's executor in this process, in place of a cluster."""
    pytest.importorskip("submitit")
    rungs = [rung("train/a"), rung("train/b", fail=True)]
    jobs = launch.prepare(ladder, rungs, tmp_path / "program.py")
    told: list[running.JobOutcome] = []
    options = {"timeout_min": 5}
    found = running.run_slurm(jobs, tmp_path / "slurm", options, told.append, cluster="debug")
    assert [one.state for one in found] == ["done", "failed"] == [one.state for one in told]
    assert "loss is nan" in found[1].why
    found = running.run_slurm(jobs[:1], tmp_path / "slurm", options, told.append, cluster="debug")
    assert found == [running.JobOutcome("train/a", "done")] == told[2:]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [({}, "needs a time limit: slurm: {timeout_min"), ({"timeout_min": 5, "gpus": 1}, "gpus")],
)
def test_what_a_cluster_does_not_take_is_refused(ladder, tmp_path, parameters, message):
    pytest.importorskip("submitit")
    with pytest.raises(UserError, match=message):
        running.run_slurm([], tmp_path, parameters, lambda one: None, cluster="debug")


def test_a_rung_that_another_process_runs_is_waited_for(ladder, tmp_path):
    (job,) = launch.prepare(ladder, [rung("train/a")], tmp_path / "program.py")
    job.log.parent.mkdir(parents=True)
    with job.log.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = ThreadPoolExecutor(1).submit(running.run_job, job)
        time.sleep(0.3)
        assert not waiting.done() and not job.folder.exists()
        subprocess.run(job.command, check=True)
    assert waiting.result() == running.JobOutcome("train/a", "done")
    assert len(starts(ladder, "train/a")) == 1


def test_a_rung_that_outlives_its_ladder_is_not_started_beside_itself(ladder, tmp_path):
    """Only the ladder is killed: its rung still has the lock."""
    (tmp_path / "program.py").write_text("import time; time.sleep(1)\n" + PROGRAM)
    (job,) = launch.prepare(ladder, [rung("train/a")], tmp_path / "program.py")
    job.log.parent.mkdir(parents=True)
    with job.log.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        orphan = subprocess.Popen(job.command, pass_fds=(lock.fileno(),))
    assert running.run_job(job) == running.JobOutcome("train/a", "done")
    assert orphan.wait() == 0 and len(starts(ladder, "train/a")) == 1


def test_jobs_wait_for_what_they_need_and_are_left_out_without_it(ladder, tmp_path):
    rungs = [rung("fine/c"), rung("pre/a"), rung("fine/d"), rung("pre/b", fail=True)]
    jobs = launch.prepare(ladder, rungs, tmp_path / "program.py")
    needs = {"fine/c": ("pre/a",), "fine/d": ("fine/c", "pre/b")}
    jobs = [replace(job, needs=needs.get(job.name, ())) for job in jobs]
    order: list[str] = []
    found = running.run_local(jobs, 2, lambda one: None, lambda job: order.append(job.name))
    assert [one.state for one in found] == ["done", "done", "left out", "failed"]
    assert found[2].why == "pre/b: failed" and order[-1] == "fine/c" and len(order) == 3


def test_an_interrupted_ladder_ends_its_rungs(ladder, tmp_path):
    (tmp_path / "program.py").write_text("import time; time.sleep(60)")
    jobs = launch.prepare(ladder, [rung("train/a"), rung("train/b")], tmp_path / "program.py")
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        running.run_local(jobs, 1, lambda one: None)
    assert time.monotonic() - began < 20 and not running.RUNNING
    assert not (ladder.out / "logs/train--b.log").exists()  # which was not begun


# Saves when it is asked to end, and goes on where it stopped.
SAVING = """
import json, signal, sys, time
from pathlib import Path
flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
folder = Path(flags["--run-dir"])
folder.mkdir(parents=True, exist_ok=True)
def save(*_):
    (folder / "saved").touch()
    print("preempted: step 7 is saved")
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
(folder / "began").touch()
if not (folder / "saved").exists():
    time.sleep(60)
row = {"kind": "val", "images_seen": 64, "loss": 0.5}
(folder / "metrics.jsonl").write_text(json.dumps(row) + "\\n")
(folder / "records.jsonl").touch()
"""


@pytest.mark.parametrize("number", signals.ASKING)
def test_a_signal_to_a_ladder_is_passed_on_and_its_rungs_go_on_later(ladder, tmp_path, number):
    (tmp_path / "program.py").write_text(SAVING)
    jobs = launch.prepare(ladder, [rung("train/a"), rung("train/b")], tmp_path / "program.py")
    told: list[running.JobOutcome] = []

    def send() -> None:
        while not (ladder.out / "train/a/began").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    with signals.caught(), pytest.raises(signals.Preempted, match="same command goes on"):
        threading.Thread(target=send).start()
        running.run_local(jobs, 1, told.append)
    assert [(one.name, one.state, one.why) for one in told] == [
        ("train/a", "preempted", "preempted: step 7 is saved")
    ]
    assert not (ladder.out / "train/b").exists() and not running.RUNNING
    assert running.run_job(jobs[0]).state == "done"


def test_a_rung_that_was_preempted_by_itself_is_no_failure(ladder, tmp_path):
    (tmp_path / "program.py").write_text("raise SystemExit(75)")
    jobs = launch.prepare(ladder, [rung("train/a")], tmp_path / "program.py")
    (found,) = running.run_local(jobs, 1, lambda one: None)
    assert found.state == "preempted"


def test_without_a_cluster_it_is_said(ladder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match="needs submitit.*--extra cluster"):
        running.run_slurm([], tmp_path, {"timeout_min": 5}, lambda one: None)


def test_a_rung_knows_its_device_and_no_process_group(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert running.gpus() == ["2", "3"]
    assert running.environment("3")["CUDA_VISIBLE_DEVICES"] == "3"
    assert "WORLD_SIZE" not in running.environment("") and "RANK" not in running.environment("")
    assert running.environment("")["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert running.gpus() == []


def test_the_status_of_a_ladder_is_plain_json(ladder, tmp_path):
    assert launch.read_status(tmp_path) == {}
    rungs = [rung("train/a")]
    launch.write_status(ladder, rungs[0], running.JobOutcome("train/a", "failed", 1.0, 0.5, "why"))
    (row,) = json.loads((ladder.out / launch.STATUS).read_text())
    assert row["state"] == "failed" and row["why"] == "why" and row["factor"] == 1.0


def test_a_loss_counts_once_the_run_has_seen_its_images(tmp_path):
    assert launch.last_loss(tmp_path, 64) is None
    rows = [
        {"kind": "train", "images_seen": 64, "loss": 0.9},
        {"kind": "val", "images_seen": 32, "loss": 0.5, "task": "depth"},
        {"kind": "val", "images_seen": 64, "loss": 0.2, "task": "depth"},
        {"kind": "val", "images_seen": 64, "loss": 0.4, "task": "flow"},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "metrics.jsonl").write_text(text + '{"kind": "val", "images_se')
    assert launch.last_loss(tmp_path, 64) == pytest.approx(0.3)
    assert launch.last_loss(tmp_path, 65) is None
