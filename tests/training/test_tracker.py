"""The mirror of metrics.jsonl: what it says, and that it stays out of the way."""

from __future__ import annotations

import sys
import time
from types import ModuleType

import pytest

from stepsight.training.folder import RunWriter
from stepsight.training.tracker import Tracker

VAL = {
    "kind": "val",
    "step": 2,
    "images_seen": 16,
    "task": "depth",
    "n": 4,
    "loss": 0.3,
    "metrics": {"abs_rel": 0.2, "n_images": 4.0},
    "baselines": {"constant": {"abs_rel": 0.4}},
}
TRAIN = {"kind": "train", "step": 2, "images_seen": 16, "loss": 0.5, "loss/depth": 0.5, "lr": 1e-3}


class Recorder:
    """Stands for wandb and the run it hands out."""

    class CommError(Exception):
        pass

    def __init__(self, unreachable: bool = False) -> None:
        self.unreachable = unreachable
        self.api = type("", (), {"api_key": "key"})()
        self.logged, self.modes, self.finished = [], [], 0

    def init(self, mode: str, **options: object) -> Recorder:
        self.modes.append(mode)
        self.options = options
        if self.unreachable and mode == "online":
            raise self.CommError("no network")
        return self

    def log(self, row: dict) -> None:
        self.logged.append(row)

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch) -> Recorder:
    recorder, errors = Recorder(), ModuleType("wandb.errors")
    errors.CommError = Recorder.CommError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", recorder)
    monkeypatch.setitem(sys.modules, "wandb.errors", errors)
    return recorder


def test_without_a_tracker_wandb_is_not_even_imported(lab, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # an import would fail
    run = RunWriter(tmp_path)
    tracker = Tracker(lab.config(tracker="none"), run)
    assert not run.listeners
    tracker.close()


def test_lines_are_mirrored_flat_and_tasks_do_not_overwrite_each_other(lab, tmp_path, wandb):
    run = RunWriter(tmp_path)
    tracker = Tracker(lab.config(tracker="wandb-offline"), run)
    for row in (TRAIN, VAL, VAL | {"task": "flow", "loss": 0.7, "metrics": {"epe": 2.0}}):
        run.log(row)
    tracker.close()
    train, depth, flow = wandb.logged
    assert train == {
        "train/loss": 0.5, "train/loss/depth": 0.5, "train/lr": 1e-3, "images_seen": 16,
    }  # fmt: skip
    assert depth["val/depth/loss"] == 0.3 and depth["val/depth/abs_rel"] == 0.2
    assert flow == {"val/flow/loss": 0.7, "val/flow/epe": 2.0, "images_seen": 16}
    assert not (depth.keys() & flow.keys()) - {"images_seen"}
    assert wandb.finished == 1 and wandb.modes == ["offline"]
    assert wandb.options["dir"] == str(tmp_path) and wandb.options["name"] == tmp_path.name


@pytest.mark.parametrize(
    "key, unreachable, modes",
    [("key", False, ["online"]), ("", False, ["offline"]), ("key", True, ["online", "offline"])],
)
def test_without_key_or_network_it_goes_on_offline(lab, tmp_path, wandb, key, unreachable, modes):
    wandb.api.api_key, wandb.unreachable = key, unreachable
    Tracker(lab.config(tracker="wandb"), RunWriter(tmp_path))
    assert wandb.modes == modes


def test_a_run_that_is_continued_is_the_same_run_there(lab, tmp_path, wandb):
    def opened(name: str) -> str:
        (tmp_path / name).mkdir(exist_ok=True)
        Tracker(lab.config(tracker="wandb"), RunWriter(tmp_path / name))
        assert wandb.options["resume"] == "allow"
        return str(wandb.options["id"])

    first = opened("a")
    assert opened("a") == first != opened("b")
    (tmp_path / "a" / "wandb.txt").write_bytes(b"\xff../x")  # damaged: another run, not a crash
    assert opened("a") not in ("", first) and opened("a") == opened("a")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_offline_writes_a_run_to_disk(lab, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = lab.fit(lab.config(("depth",), images=16, tracker="wandb-offline"), tmp_path / "run")
    (written,) = run.glob("wandb/offline-run-*/*.wandb")
    deadline = time.monotonic() + 30  # wandb's own process may still be writing
    while b"train/loss" not in (content := written.read_bytes()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert b"val/depth/abs_rel" in content and b"train/loss" in content
