"""`train.py PATH`: a user's own data alone, for the tasks that it has truth for, some held out."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest
from rooms import FLAGS

from stepsight.cli import evaluate, main, train
from stepsight.errors import UserError


@pytest.fixture(scope="module")
def trained(own, tmp_path_factory):
    """A run on the folder, and what it printed."""
    run, printed = tmp_path_factory.mktemp("runs") / "own", StringIO()
    with redirect_stdout(printed):
        assert train.main([str(own), *FLAGS, "--run-dir", str(run)]) == 0
    return run, printed.getvalue().splitlines()


UNIT = "--data.folder.depth_unit=mm"


def config_of(*arguments):
    return train.Args.parse([*map(str, arguments)], "train.py").config


def test_the_first_line_says_what_is_trained_on_what(trained, own):
    first, *_ = trained[1]
    assert first.startswith(
        f"trains depth and semantic on 18 pictures of {own} (folder), evaluated on 2 others"
    )
    assert "depth: 9 of 18 pictures" in first
    assert first.endswith("2 of 20 pictures are held out: the last 10% of each folder by name")


def test_pictures_without_a_truth_train_what_they_have(trained):
    run, _ = trained
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if row["kind"] == "train"][-1]
    assert last["loss/semantic"] > 0 and last["images_seen"] == 16
    scored = {row["task"]: row["n"] for row in rows if row["kind"] == "val"}
    assert scored == {"depth": 1, "semantic": 2}


def test_a_run_is_evaluated_on_what_it_held_out(trained, tmp_path):
    run, _ = trained
    flags = ["--checkpoint", str(run), "--processes", "1", "--out", str(tmp_path)]
    assert evaluate.main(flags) == 0
    text = (tmp_path / "results.json").read_text()
    assert "overfit" not in text
    keys = {re.sub(r".*/", "", key) for key in re.findall(r"images/\d{4}", _keys(tmp_path))}
    assert keys == {"0018", "0019"}
    alone = tmp_path / "alone"
    assert evaluate.main([*flags[:-1], str(alone), "--task", "depth"]) == 0
    assert set(re.findall(r"images/\d{4}", _keys(alone))) == {"images/0018"}


def _keys(folder):
    return "".join(path.read_text() for path in folder.rglob("*.csv"))


def test_what_a_path_may_be(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = config_of(own, UNIT, "--tasks.depth.space", "inverse")
    assert list(config.data) == ["folder"] and list(config.tasks) == ["depth", "semantic"]
    assert config.tasks["semantic"].classes == 2 and config.tasks["depth"].space == "inverse"
    assert (
        main.main(["data", "look", str(own), "--out", "seen", "--depth-unit", "mm"]) == 1
    )  # half of it
    seen = config_of("seen")
    assert seen.data["folder"].list == str(tmp_path / "seen/list.jsonl")
    assert seen.data["folder"].depth_unit == config.data["folder"].depth_unit == "mm"
    assert seen.tasks.keys() == config.tasks.keys()
    for split in ("train", "val"):
        flags = ["--split", split, "--out", f"shards/{split}"]
        assert main.main(["data", "shard", "folder", "seen", *flags]) == 0
    sharded = config_of("shards")
    assert sharded.data["folder"].root == str(tmp_path / "shards")
    assert sharded.tasks.keys() == config.tasks.keys()
    listed = config_of("--run-dir", "other/run", "seen/list.jsonl")
    assert list(listed.tasks) == list(config.tasks)


def test_mixing_and_leaving_out(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(
        "data: {folder: {root: x, size: [8, 12]}, scenes: {}}\ntasks: {depth: {space: inverse}}"
    )
    recipe = config_of(own, UNIT, "--config", "recipe.yaml")
    assert list(recipe.data) == ["folder"] and recipe.data["folder"].size == (8, 12)
    assert recipe.data["folder"].root == str(own) and recipe.tasks["depth"].space == "inverse"
    mixed = config_of(own, UNIT, "--data.scenes.weight", "1", "--config", "smoke")
    assert [*mixed.data] == ["folder", "scenes"]
    assert list(config_of(own, UNIT, "--tasks.depth", "none").tasks) == ["semantic"]
    with pytest.raises(UserError, match="--data.folder none takes away what PATH stands for"):
        config_of(own, "--data.folder", "none")
    with pytest.raises(UserError, match="settings are given as --config .*smoke.yaml"):
        config_of(shutil.copy("/dev/null", tmp_path / "smoke.yaml"))


def test_what_is_undecided_stops_it(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"rooms: depth: .* --data.folder.depth_unit .*data look"):
        config_of(own)
    assert not (tmp_path / "runs").exists()


def test_what_would_get_no_pictures_stops_it(own, tmp_path, monkeypatch, capsys):
    """A sequence without the next frame, a task without truth, a source that no task learns from:
    before anything is written."""
    monkeypatch.chdir(tmp_path)
    root = shutil.copytree(own, tmp_path / "sequence")
    (root / "flow").mkdir()
    for number in range(20):
        np.save(root / f"flow/{number:04}.npy", np.ones((24, 32, 2), np.float32))
    flags = [*FLAGS, "--data.folder.root", str(root), "--run-dir", "run"]
    gone = ["--tasks.amodal", "none", "--tasks.semantic", "none"]
    assert train.main([*flags, *gone]) == 2
    said = capsys.readouterr().err
    assert "task flow needs flow; no source of this run has it for" in said
    assert "--tasks.flow none" in said and "second" in said
    others = ["--tasks.depth", "none", "--tasks.semantic", "none", "--data.scenes.count", "8"]
    shutil.rmtree(root / "flow")
    assert train.main([*flags, *others]) == 2
    said = capsys.readouterr().err
    assert "data.folder would give no images: it has" in said and "--data.folder none" in said
    assert not (tmp_path / "run").exists()
