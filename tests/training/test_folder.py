"""The run folder: which one a run gets, what is written, what a resumed run forgets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from stepsight import checkpoint
from stepsight import config as configuration
from stepsight.errors import UserError
from stepsight.training.folder import RunLock, RunWriter, choose, latest, revision


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def made(name: str) -> Path:
    """A run folder with something in it."""
    path = Path(name)
    path.mkdir(parents=True)
    (path / "config.yaml").write_text("model: {}\n")
    return path


def test_runs_are_numbered_by_name():
    assert choose(None, "depth", None, False) == Path("runs/depth-0001")
    made("runs/depth-0001")
    made("runs/depth-0009")
    made("runs/depth-quick-0500")
    assert choose(None, "depth", None, False) == Path("runs/depth-0010")
    assert choose(None, "depth", None, overwrite=True) == Path("runs/depth-0010")
    assert choose(None, "flow", None, False) == Path("runs/flow-0001")


def test_resuming_without_a_folder_takes_the_newest_run_of_the_name():
    assert choose(None, "depth", "auto", False) == Path("runs/depth-0001")
    made("runs/depth-0001")
    made("runs/depth-0003")
    assert choose(None, "depth", "auto", False) == Path("runs/depth-0003")


def test_a_run_is_touched_only_when_asked():
    path = made("mine")
    with pytest.raises(UserError, match="--run-dir mine exists.*--resume auto.*--overwrite"):
        choose("mine", "depth", None, False)
    assert (path / "config.yaml").exists()
    assert choose("mine", "depth", "auto", False) == path
    assert (path / "config.yaml").exists()
    assert choose("mine", "depth", None, overwrite=True) == path
    assert (path / "config.yaml").exists()  # until the run is known to start


def test_an_empty_folder_is_free():
    Path("empty").mkdir()
    assert choose("empty", "depth", None, False) == Path("empty")


def test_only_run_folders_are_replaced():
    Path("thesis").mkdir()
    (Path("thesis") / "chapter.tex").write_text("precious")
    with pytest.raises(UserError, match="not a run folder"):
        choose("thesis", "depth", None, overwrite=True)
    Path("file").write_text("x")
    with pytest.raises(UserError, match="file is a file"):
        choose("file", "depth", None, overwrite=True)
    assert (Path("thesis") / "chapter.tex").read_text() == "precious"


def test_a_new_run_describes_itself(lab):
    config = lab.config()
    run = RunWriter(Path("mine"))
    run.create(config)
    again = configuration.load(["mine/config.yaml"])
    assert again == config and again.fingerprint() == config.fingerprint()
    told = json.loads(Path("mine/env.json").read_text())
    assert told["fingerprint"] == config.fingerprint() and told["seed"] == 0
    assert told["revision"] == revision() and set(told["packages"]) >= {"torch", "numpy"}
    assert Path("mine/command.txt").read_text().strip()


def test_a_run_made_anew_keeps_nothing_of_the_old_one(lab):
    run = RunWriter(made("mine"))
    run.log({"kind": "train", "step": 1})
    run.create(lab.config())
    assert Path("mine/metrics.jsonl").exists()
    run.create(lab.config(), anew=True)
    assert not Path("mine/metrics.jsonl").exists() and Path("mine/config.yaml").exists()


def test_rewinding_drops_later_and_half_written_lines():
    run = RunWriter(Path("."))
    for step in (1, 2, 3, 4):
        run.log({"kind": "train", "step": step, "images_seen": 8 * step})
    with Path("metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')
    run.rewind(2)
    run.log({"kind": "train", "step": 3, "images_seen": 24})
    lines = Path("metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]


GOOD = ['{"step": 1}', '{"step": 2, "loss": NaN}', '{"step": 3}']
BAD = [
    b"\0" * 40,
    b'{"step": 2, "lo',
    b'\xff{"step": 2}',
    b"[2]",
    b"{}",
    b'{"step": "2"}',
    b"[" * 10**5,
]


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("bad", BAD)
def test_lines_that_cannot_be_read_stop_nothing_and_are_counted(bad, place):
    lines = [line.encode() for line in GOOD]
    lines[place:place] = [bad, b"", bad]
    Path("metrics.jsonl").write_bytes(b"\n".join(lines))
    told: list[str] = []
    RunWriter(Path(".")).rewind(2, told.append)
    assert Path("metrics.jsonl").read_text().splitlines() == GOOD[:2]
    assert told == ["metrics.jsonl: 2 lines that cannot be read are dropped"]


def test_a_disk_that_is_full_is_said(monkeypatch):
    run = RunWriter(Path("."))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(UserError, match="metrics.jsonl: writing failed: No space.*MiB are free"):
        run.log({"kind": "train", "step": 1})


def test_a_folder_that_is_replaced_keeps_its_lock(lab):
    path = made("mine")
    (path / "eval" / "old").mkdir(parents=True)
    with RunLock(path) as lock:
        RunWriter(path).create(lab.config(), anew=True)
        assert lock.held and not (path / "eval").exists()
    assert choose("mine", "depth", "auto", False) == path


def test_a_run_whose_folder_was_taken_over_writes_no_more():
    run = RunWriter(made("mine"))
    run.lock.acquire()
    run.log({"kind": "train", "step": 1})
    (run.path / "run.lock").write_text('{"token": "theirs", "pid": 1, "host": "elsewhere"}')
    with pytest.raises(UserError, match="mine was taken over by process 1 on elsewhere"):
        run.log({"kind": "train", "step": 2})
    run.lock.release()
    assert len((run.path / "metrics.jsonl").read_text().splitlines()) == 1


def test_a_lock_alone_is_no_run():
    Path("mine").mkdir()
    (Path("mine") / "run.lock").write_text("{}")
    assert choose("mine", "depth", None, False) == Path("mine")


def test_a_run_that_has_just_begun_is_named_as_what_holds_the_folder():
    """Between its lock and its settings, a run is not yet to be told from somebody's own folder."""
    with RunLock(Path("mine")):
        Path("mine/log.txt").write_text("")
        with pytest.raises(UserError, match="being written to by process"):
            choose("mine", "tiny", None, overwrite=True)
    with pytest.raises(UserError, match="not a run folder"):
        choose("mine", "tiny", None, overwrite=True)


def test_rewinding_a_run_without_metrics_is_nothing():
    RunWriter(Path(".")).rewind(0)
    assert not Path("metrics.jsonl").exists()


def test_the_log_is_json_everyone_can_read_and_listeners_hear_it():
    run, heard = RunWriter(Path(".")), []
    run.listeners.append(heard.append)
    run.log({"kind": "val", "step": 1, "metrics": {"iou": float("nan"), "n_images": 0.0}})

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    row = json.loads(Path("metrics.jsonl").read_text(), parse_constant=refuse)
    assert row["metrics"] == {"iou": None, "n_images": 0.0}
    assert len(heard) == 1 and heard[0]["metrics"]["n_images"] == 0.0


def saved(run: RunWriter, step: int) -> Path:
    weights = dict.fromkeys(
        (checkpoint.BACKBONE, checkpoint.RAW, checkpoint.OPTIMIZER), {"x": torch.ones(1)}
    )
    meta = {"images_seen": step, "training_flops": 1.0, "losses": {}, "best": None}
    config = configuration.from_dict({})
    return checkpoint.write(run.checkpoints, step, config=config, meta=meta, tensors=weights)


def test_where_a_run_continues():
    run = RunWriter(Path("mine"))
    run.checkpoints.mkdir(parents=True)
    assert latest(run, None) is None
    assert latest(run, "auto") is None  # killed before its first checkpoint
    first, second = saved(run, 8), saved(run, 16)
    for resume in ("auto", "mine", "mine/checkpoints"):
        assert latest(run, resume) == second
    assert latest(run, "mine/checkpoints/step-000008") == first
    with pytest.raises(UserError, match="not found"):
        latest(run, "mine/checkpoints/step-000099")


def test_a_damaged_checkpoint_is_passed_over_unless_it_is_named():
    run, told = RunWriter(Path("mine")), []
    first, second = saved(run, 8), saved(run, 16)
    (second / checkpoint.RAW).write_bytes(b"")
    for resume in ("auto", "mine"):
        assert latest(run, resume, told.append) == first
    assert len(told) == 2 and "step-000016 is passed over, step-000008 is used" in told[0]
    with pytest.raises(UserError, match="step-000016/raw.*truncated.*Use .*step-000008"):
        latest(run, str(second), told.append)


def test_what_came_after_an_earlier_step_is_forgotten():
    run = RunWriter(Path("mine"))
    for step in (8, 16):
        saved(run, step)
    checkpoint.mark(run.checkpoints, "best", "step-000016")
    run.rewind(8, lambda _: None)
    assert latest(run, "auto") == run.checkpoints / "step-000008"
    assert not (run.checkpoints / "best.txt").exists()
