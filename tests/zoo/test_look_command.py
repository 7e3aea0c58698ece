"""`stepsight data look`: what it prints and writes, and how it ends."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zoo.containers  # noqa: F401
import zoo.depths  # noqa: F401
import zoo.labels  # noqa: F401
import zoo.layouts  # noqa: F401
import zoo.lists  # noqa: F401
from PIL import Image
from zoo.files import npy, png
from zoo.world import TREES, metres, worlds

from stepsight.cli.main import main
from stepsight.config import load
from stepsight.data.table import open_source


@pytest.fixture
def grown(tmp_path):
    def grow(name: str):
        root = tmp_path / "own"
        root.mkdir(exist_ok=True)
        TREES[name](root)
        return root

    return grow


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    status = main(["data", "look", *map(str, arguments)])
    return status, *capsys.readouterr()


def test_what_is_written_trains(grown, tmp_path, capsys, monkeypatch):
    root, out = grown("millimetres"), tmp_path / "out"
    status, text, _ = run(capsys, root, "--out", out)
    assert status == 0 and "3 pictures, 3 samples" in text
    assert "3 of 3  .png  unit mm" in text and "structured-light" in text
    assert f"train.py {out}" in text
    monkeypatch.chdir(tmp_path)  # paths hold from anywhere
    config = load([str(out / "config.yaml")])
    assert [*config.tasks] == ["depth"] and [*config.data] == ["folder"]
    sample = open_source(config.data["folder"], "all")[0]
    stored = np.asarray(Image.open(root / "depth/0.png"))
    known = sample.depth_valid[0].numpy()
    assert np.array_equal(known, stored > 0)
    assert np.allclose(sample.depth[0].numpy()[known], metres(stored)[known])
    with Image.open(out / "look.png") as picture:
        assert picture.width > 2 * 128 and picture.height > 3 * 96


def test_json(grown, tmp_path, capsys):
    root = grown("half_missing")
    status, text, _ = run(capsys, root, "--json", "--out", tmp_path / "out")
    found = json.loads(text)
    assert status == 1 and found["pictures"] == 4 and found["samples"] == 2
    assert found["root"] == str(root) and found["problems"] == ["2 of 4 pictures have depth."]
    depth = found["truth"]["depth"]
    assert (depth["files"], depth["of"], depth["unit"], depth["certain"]) == (2, 4, "m", True)
    assert depth["container"] == ".npy" and depth["invalid"] == [] and depth["evidence"]
    names = [name.rpartition("/")[2] for name in found["written"]]
    assert names == ["list.jsonl", "config.yaml", "look.png"]


def test_what_nobody_can_tell_is_asked_for(grown, tmp_path, capsys):
    root, out = grown("whole_numbers_that_nobody_explains"), tmp_path / "out"
    status, text, error = run(capsys, root, "--out", out)
    assert status == 2 and not text and not out.exists()
    assert "m in mm, or " in error and "--depth-unit" in error
    status, text, _ = run(capsys, root, "--depth-unit", "mm")
    assert status == 0 and "as you say" in text


@pytest.mark.parametrize("unit", ["inches", "1/0", "disparity/2", "256"])
def test_units_that_are_none(grown, capsys, unit):
    root = grown("whole_numbers_that_nobody_explains")
    status, _, error = run(capsys, root, "--depth-unit", unit)
    assert status == 2 and f"depth_unit={unit} is none of m, cm, mm" in error


def test_splits_are_written(grown, tmp_path, capsys):
    root, out = grown("splits_above"), tmp_path / "out"
    assert "in test, train, val" in run(capsys, root, "--out", out)[1]
    config = load([str(out / "config.yaml")])
    assert len(open_source(config.data["folder"], "train")) == 2
    assert len(open_source(config.data["folder"], "val")) == 1


def test_the_config_says_how_many_classes_there_are(tmp_path, capsys):
    root, out = tmp_path / "own", tmp_path / "out"
    for number, one in enumerate(worlds()):
        png(root / f"images/{number}.png", one.picture)
        png(root / f"labels/{number}.png", (one.depth > one.depth.mean()).astype(np.uint8))
    run(capsys, root, "--out", out)
    assert load([str(out / "config.yaml")]).tasks["semantic"].classes == 2


def test_a_guess_is_called_one(tmp_path, capsys):
    root = tmp_path / "kitti"
    for number, one in enumerate(worlds()):
        png(root / f"images/{number}.png", one.picture)
        png(root / f"depth/{number}.png", (one.depth * 2560).round().astype(np.uint16))
    status, text, _ = run(capsys, root)
    assert status == 0 and "unit 1/256 (a guess)" in text and "the name says 'kitti'" in text


def test_what_is_written_is_looked_at_again(grown, tmp_path, capsys):
    assert run(capsys, grown("millimetres"), "--out", tmp_path / "out")[0] == 0
    status, text, _ = run(capsys, tmp_path / "out")
    assert status == 0 and "3 of 3  .png  unit mm" in text and "list.jsonl says" in text


def test_a_list_alone(grown, capsys):
    root = grown("own_list")
    assert run(capsys, root / "samples.jsonl")[0] == 0


def test_what_is_no_tree(tmp_path, capsys):
    assert "not found" in run(capsys, tmp_path / "nowhere")[2]
    npy(tmp_path / "one.npy", np.zeros((9, 9)))
    status, _, error = run(capsys, tmp_path / "one.npy")
    assert status == 2 and "name the folder that holds it" in error
    (tmp_path / "bad.jsonl").write_text('{"image": 3}\n')
    assert "bad.jsonl, line 1" in run(capsys, tmp_path / "bad.jsonl")[2]


@pytest.mark.parametrize(
    "answer", [("--classes", "1.."), ("--mask-inside", "dark"), ("--flow-unit", "pixels")]
)
def test_an_answer_to_nothing_is_named(grown, capsys, answer):
    status, text, _ = run(capsys, grown("pfm_depth"), *answer)
    assert status == 1 and f"{answer[0]} is of no use: there is no " in text


def test_legends_that_are_none(grown, capsys):
    status, _, error = run(capsys, grown("labels_from_0"), "--classes", "0")
    assert status == 2 and "--classes 0 is no number of classes" in error
    status, _, error = run(capsys, grown("labels_from_0"), "--classes", "nowhere.json")
    assert status == 2 and "nowhere.json" in error


def test_damaged_files_are_named_and_the_others_written(grown, tmp_path, capsys):
    root, out = grown("images_and_depth"), tmp_path / "out"
    (root / "depth/0000.npy").write_bytes(b"")
    status, text, error = run(capsys, root, "--out", out)
    assert status == 1 and not error and (out / "look.png").is_file()
    assert "1 of 3 samples cannot be read" in text and "0000.npy" in text


def test_a_list_with_empty_lines(grown, capsys):
    root = grown("own_list")
    listing = root / "samples.jsonl"
    listing.write_text(listing.read_text() + "\n\n")
    assert run(capsys, listing)[0] == 0
