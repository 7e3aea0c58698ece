"""A collection that was stopped goes on: nothing is answered twice, and nothing half counts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stepsight import signals
from stepsight.errors import UserError
from stepsight.pipeline.dense import DensePipeline
from stepsight.predicting.journal import JOURNAL


@pytest.fixture
def answered(monkeypatch) -> Counter:
    """How often the model answered each picture, by its sum; set `stop` to raise after so many."""
    seen: Counter = Counter()
    seen.stop = 10**9  # type: ignore[attr-defined]
    call = DensePipeline.__call__

    def counted(self, image, *args, **how):
        if seen.total() >= seen.stop:  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        seen.update(int(one.long().sum()) for one in image)
        return call(self, image, *args, **how)

    monkeypatch.setattr(DensePipeline, "__call__", counted)
    return seen


@pytest.fixture
def collection(picture, tmp_path) -> Path:
    for i in range(10):
        picture(f"in/{i}.png", i)
    return tmp_path / "in"


def arrays(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.rglob("*-depth.*")}


def test_what_was_stopped_goes_on_and_answers_none_twice(collection, predict, answered, tmp_path):
    predict(collection, out=tmp_path / "whole", batch=2)
    answered.clear()
    answered.stop = 4
    with pytest.raises(KeyboardInterrupt):
        predict(collection, batch=2)
    assert len(arrays(tmp_path / "out")) == 8  # arrays and pictures
    answered.stop = 10**9
    outcome = predict(collection, batch=2)
    assert (outcome.answered, outcome.before) == (6, 4)
    assert set(answered.values()) == {1} and len(answered) == 10
    assert arrays(tmp_path / "out") == arrays(tmp_path / "whole")
    assert predict(collection).before == 10 and answered.total() == 10


def test_a_signal_ends_it_after_a_batch(collection, predict, answered, tmp_path, monkeypatch):
    monkeypatch.setattr(signals, "_requested", "SIGTERM")
    with pytest.raises(
        signals.Preempted, match="SIGTERM: 3 of 10 pictures are predicted, in .*out"
    ):
        predict(collection, batch=3)
    monkeypatch.setattr(signals, "_requested", "")
    assert predict(collection, batch=3).before == 3


def test_half_files_and_torn_lines_count_as_none(collection, predict, answered, tmp_path):
    predict(collection)
    out = tmp_path / "out"
    journal, before = out / JOURNAL, arrays(out)
    lines = journal.read_bytes().split(b"\n")
    journal.write_bytes(b"\n".join(lines[:-1]) + b"\n" + lines[-1][:50])  # killed while writing
    (out / ".partial-9-depth.npy").write_bytes(b"half")
    (out / "3-depth.npy").unlink()
    answered.clear()
    outcome = predict(collection)
    assert (outcome.answered, outcome.before) == (2, 8) and answered.total() == 2
    assert arrays(out) == before and not list(out.glob(".partial*"))
    assert predict(collection).before == 10


def test_a_picture_that_changed_is_answered_anew(collection, picture, predict, tmp_path):
    predict(collection)
    before = arrays(tmp_path / "out")
    picture("in/4.png", 44)
    outcome = predict(collection)
    assert (outcome.answered, outcome.before) == (1, 9)
    changed = {name for name, data in arrays(tmp_path / "out").items() if data != before[name]}
    assert changed == {"4-depth.npy", "4-depth.png"}


def test_further_pictures_and_formats_are_added(collection, picture, predict, tmp_path):
    predict(collection)
    picture("in/new.png", 99)
    assert predict(collection).answered == 1
    assert predict(collection, save="npy,exr").answered == 11
    assert predict(collection).before == predict(collection, save="exr").before == 11
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert {"npy", "picture", "exr"} <= manifest["tasks"]["depth"]["formats"].keys()


def test_answers_asked_for_otherwise_are_never_mixed(collection, predict, tmp_path):
    out = tmp_path / "out"
    predict(collection, save="npy,exr")
    with pytest.raises(UserError, match="holds answers of depth to 9 other pictures, such as "):
        predict(collection / "3.png", how={"members": 2})
    outcome = predict(collection, how={"members": 2})
    assert (outcome.answered, outcome.before) == (10, 0)
    assert not list(out.glob("*.exr"))  # of the others
    assert len(list(out.glob("*-uncertainty.npy"))) == 10
    assert predict(collection, how={"members": 2}, limits=(1.0, 9.0)).answered == 10
    assert predict(collection, how={"members": 2}, camera={"fov": 50.0}).answered == 10


def test_two_programs_do_not_write_to_one_folder(collection, predict, tmp_path):
    import fcntl

    predict(collection / "1.png")
    with (tmp_path / "out" / JOURNAL).open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another `predict` is writing there"):
            predict(collection)
    assert predict(collection).before == 1


KILLED = """
import sys
from stepsight.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_thousand_pictures_ten_damaged_and_a_kill(lab, tmp_path):
    """By the command itself: killed in the middle, started again, and every journal line is new."""
    run = lab.fit(lab.config(("depth",)), tmp_path / "run")
    draw = np.random.default_rng(0)
    folder = tmp_path / "in"
    for i in range(1000):
        path = folder / f"{i // 100}" / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
        if i % 100 == 50:
            path.write_bytes(path.read_bytes()[:100])
    out = tmp_path / "out"
    command = [sys.executable, "-c", KILLED, "predict", str(folder), "--checkpoint", str(run)]
    command += ["--out", str(out), "--nfe", "1", "--members", "1", "--on-bad", "skip"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    while len(list(out.rglob("*.npy"))) < 200:
        assert first.poll() is None
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    there = {
        path: path.stat().st_mtime_ns for path in out.rglob("[!.]*.npy")
    }  # whole: none half written
    again = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert again.returncode == 1, again.stderr
    assert "990 of 1000 answered" in again.stdout and "10 of 1000 pictures skipped" in again.stdout
    assert sum(f"{i}50.png" in again.stdout for i in range(10)) == 10
    names = [json.loads(line)["name"] for line in (out / JOURNAL).read_text().splitlines() if line]
    assert len(names) == len(set(names)) == 990
    assert len(list(out.rglob("*-depth.npy"))) == len(list(out.rglob("*-depth.png"))) == 990
    kept = [path for path, stamp in there.items() if path.stat().st_mtime_ns == stamp]
    assert len(kept) >= len(there) - 8  # but for the batch that was being written
    assert not list(out.rglob(".partial*"))
