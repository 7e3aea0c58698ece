"""`stepsight data check | show | shard | prepare`: what they print and write, and exit statuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from stepsight.cli.main import main
from stepsight.data.decoding.images import read_image


@pytest.fixture
def frames(tmp_path) -> Path:
    """Two frames of Hypersim, 40 x 60."""
    folder = tmp_path / "frames"
    (folder / "val").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(2):
        pixels = rng.integers(0, 256, (40, 60, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "val" / f"r{number}.png")
        depth = np.full((40, 60), 1500 + 500 * number, np.uint16)
        Image.fromarray(depth).save(folder / "val" / f"d{number}.png")
    (folder / "filename_list_val.txt").write_text("r0.png d0.png\nr1.png d1.png\n")
    return folder


def data(*arguments: object) -> int:
    return main(["data", *map(str, arguments)])


def test_check_says_what_there_is(frames, capsys):
    assert data("check", "hypersim", frames) == 0
    shown = capsys.readouterr().out
    assert "2 samples" in shown and "40 x 60: 2 samples" in shown
    assert "depth 1.5 to 2 m, 100.00% valid" in shown and shown.endswith("fine\n")


def test_check_fails_where_something_is_wrong(frames, capsys):
    file = frames / "val" / "d1.png"
    file.write_bytes(file.read_bytes()[:40])
    assert data("check", "hypersim", frames, "--json", "--workers", 1) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False and found["examined"] == 2 and "d1.png" in found["findings"][0]
    assert data("check", "hypersim", frames) == 1
    assert "d1.png" in capsys.readouterr().out
    assert data("check", "hypersim", frames, "--images", 1) == 0
    assert "the first 1" in capsys.readouterr().out


def test_worlds_are_sound(capsys):
    assert data("check", "--size", 16, 16, "--images", 3) == 0
    assert "3 samples" in capsys.readouterr().out


def test_show_draws_any_data_set_beside_its_truth(frames, capsys, tmp_path):
    assert data("show", "hypersim", frames, "--out", tmp_path / "deep" / "g.png") == 0
    shown = capsys.readouterr().out
    assert "val/r0  40 x 60  depth 1.5 to 1.5 m" in shown and "g.png" in shown
    height, width = read_image(tmp_path / "deep" / "g.png").shape[1:]
    assert width > 2 * 3 * 60 and height > 2 * 3 * 40  # enlarged threefold
    assert data("show", "hypersim", frames, "--size", 20, 30, "--images", 1) == 0
    assert "20 x 30" in capsys.readouterr().out


def stats(capsys, *arguments: object) -> dict:
    assert data("stats", "hypersim", *arguments, "--size", 16, 24, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_stats_learn_on_the_training_split_alone(frames, capsys):
    """Without one, or where it is what is scored, the predictors that learn are left out."""
    alone = stats(capsys, frames)
    assert alone["split"] == "val" and alone["learned_on"] is None and alone["images"] == 2
    assert "mean_map" not in alone["tasks"]["depth"]["baselines"]
    shutil.copytree(frames / "val", frames / "train")
    (frames / "filename_list_train.txt").write_text("r0.png d0.png\n")
    both = stats(capsys, frames)
    assert both["split"] == "val" and both["learned_on"] == "train" and both["images"] == 2
    assert "mean_map" in both["tasks"]["depth"]["baselines"]
    for held in ("train", "all"):
        seen = stats(capsys, frames, "--split", held)
        assert seen["split"] == held and seen["learned_on"] is None
    assert data("stats", "hypersim", frames, "--split", "train", "--size", 16, 24) == 0
    assert "learned predictors left out: split 'train' is" in capsys.readouterr().out


def test_large_pictures_are_shrunk_to_fit(tmp_path):
    folder = tmp_path / "big"
    (folder / "val").mkdir(parents=True)
    Image.fromarray(np.zeros((300, 900, 3), np.uint8)).save(folder / "val" / "r.png")
    Image.fromarray(np.full((300, 900), 1000, np.uint16)).save(folder / "val" / "d.png")
    (folder / "filename_list_val.txt").write_text("r.png d.png\n")
    assert data("show", "hypersim", folder, "--out", "g.png") == 0
    assert 512 < read_image(tmp_path / "g.png").shape[2] < 800


def test_shards_are_written_once_and_are_a_data_set_themselves(frames, capsys, tmp_path):
    flags = ("--out", tmp_path / "s", "--per-shard", 1, "--split", "val")
    for _ in range(2):
        assert data("shard", "hypersim", frames, *flags) == 0
        assert "2 samples in 2 tar files" in capsys.readouterr().out
    assert data("check", "shards", tmp_path / "s") == 0
    assert "hypersim, split all: 2 samples" in capsys.readouterr().out
    assert data("show", "shards", tmp_path / "s", "--split", "val", "--out", "g.png") == 0
    assert "val/r1" in capsys.readouterr().out


def test_prepare_hands_over_to_the_data_sets_own_function(monkeypatch, capsys, tmp_path):
    asked = {}

    def toys(root, out, *, report, workers, strict):
        asked.update(root=root, out=out, workers=workers, strict=strict)
        report("half done")
        found = {"counts": {"train": 5}, "left_out": {"a": "too dark"}, "damaged": {}}
        return SimpleNamespace(name="toys", files={"f": {}}, hash="ab12", **found)

    monkeypatch.setattr("stepsight.data.prepare.TABLE", {"toys": "toy_module:toys"})
    monkeypatch.setitem(__import__("sys").modules, "toy_module", SimpleNamespace(toys=toys))
    flags = ("--out", tmp_path / "o", "--workers", 2, "--keep-going")
    assert data("prepare", "toys", tmp_path, *flags) == 0
    shown = capsys.readouterr().out
    assert asked == {"root": tmp_path, "out": tmp_path / "o", "workers": 2, "strict": False}
    assert "half done" in shown and "train 5" in shown and "a: too dark" in shown
    assert data("prepare", "toys", tmp_path, "--out", tmp_path / "o", "--json") == 0
    assert json.loads(capsys.readouterr().out)["counts"] == {"train": 5} and asked["strict"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "hypersim"], "no folder is given"),
        (["check", "hypersim", "nowhere"], "nowhere not found"),
        (["check", "hypersin", "nowhere"], "Did you mean 'hypersim'"),
        (["check", "hypersim", "{}", "--split", "tset"], "no split 'tset'"),
        (["check", "hypersim", "{}", "--images", "0"], "--images 0"),
        (["check", "hypersim", "{}", "--workers", "-1"], "--workers -1"),
        (["check", "scenes", "{}"], "made, not read"),
        (["check", "--split", "val"], "the splits of scenes are train and eval"),
        (["show", "hypersim", "{}", "--out", "g.jpg"], "name a .png"),
        (["shard", "hypersim", "{}", "--out", "{}/s"], "lies in the data set"),
        (["shard", "--out", "{}"], "not empty"),
        (["shard", "hypersim", "{}", "--out", "s", "--per-shard", "0"], "--per-shard 0"),
        (["shard", "hypersim", "{}", "--out", "s", "--quality", "100"], "--quality 100"),
        (["shard", "hypersim", "{}", "--out", "{}/filename_list_val.txt"], "is a file"),
        (["prepare", "hypersin", "{}", "--out", "o"], "Did you mean 'hypersim'"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_line(arguments, message, frames, capsys, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    assert data(*(one.format(frames) for one in arguments)) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("size", [["--size", "16", "24"], []])
def test_a_size_takes_two_values_and_leaves_what_follows(size, capsys):
    assert main(["data", "check", *size, "scenes", "--images", "1"]) == 0
    assert main(["data", "check", "scenes", *size, "--images", "1"]) == 0
    assert main(["data", "check", "--size", "16", "scenes"]) == 2
    assert "--size scenes: expected HEIGHT WIDTH" in capsys.readouterr().err
