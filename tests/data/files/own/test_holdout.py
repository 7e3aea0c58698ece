"""What is held out of a user's pictures: whole scenes, or the end of each folder, never a frame
between two that are trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stepsight.data.readers.own.holdout import hold_out
from stepsight.data.readers.own.listing import SampleFiles
from stepsight.data.table import open_source, settings_for
from stepsight.errors import UserError

DEPTH, NOTHING = frozenset({"depth"}), frozenset()


def frames(*folders, count):
    return [
        SampleFiles(f"{folder}/{number:04}", {"image": Path(folder, f"{number:04}.png")})
        for folder in folders
        for number in range(count)
    ]


def apart(entries, share=0.1, truths=None):
    found = hold_out(entries, share, truths or {entry.key: DEPTH for entry in entries})
    assert [e for e in entries if e in found.train or e in found.held] == entries
    assert len(found.train) + len(found.held) == len(entries)
    return found, [entry.key for entry in found.held]


def test_the_end_of_each_folder():
    found, held = apart(frames("a", "b", count=20))
    assert held == ["a/0018", "a/0019", "b/0018", "b/0019"]
    assert found.how == "the last 10% of each folder by name"
    _, held = apart(frames(*"abcd", count=4))  # fewer than ten a folder: shared among them
    assert len(held) == 2


def test_whole_scenes_where_there_are_enough():
    names = [f"scene{number}/{side}" for number in range(12) for side in ("left", "right")]
    found, held = apart(frames(*names, count=5))
    scenes = {key.split("/")[0] for key in held}
    assert len(scenes) == 2 and len(held) == 20  # both cameras of a scene
    assert found.how.startswith("2 of 12 scenes: scene")
    assert apart(frames(*names[::-1], count=5))[0].how == found.how  # of the names alone


def test_folders_of_one_frame_are_no_scenes():
    found, held = apart(frames(*(f"frame{number:03}" for number in range(20)), count=1))
    assert found.how.startswith("the last 10%") and len(held) == 2
    assert held == ["frame018/0000", "frame019/0000"]


def test_each_truth_is_on_both_sides():
    entries = frames("a", count=20)
    truths = {entry.key: DEPTH if int(entry.key[-4:]) < 4 else NOTHING for entry in entries}
    _, held = apart(entries, truths=truths)
    assert held == ["a/0003", "a/0018", "a/0019"]
    scenes = frames(*(f"s{number:02}" for number in range(10)), count=3)
    for rare in range(10):  # whichever scene alone has depth, some of it is held out
        truths = {e.key: DEPTH if e.key.startswith(f"s{rare:02}") else NOTHING for e in scenes}
        _, held = apart(scenes, truths=truths)
        assert {truths[key] for key in held} == {DEPTH, NOTHING}


def test_one_picture_is_trained_on():
    assert apart(frames("a", count=1))[1] == []
    assert len(apart(frames("a", count=2))[1]) == 1


def test_the_splits_of_a_folder_without_any(pictures):
    root = pictures(*(f"{number:02}" for number in range(20)))
    settings = settings_for("folder", root=str(root))
    train, held = (open_source(settings, split) for split in ("train", "val"))
    assert [sample.key for sample in held] == ["18", "19"] and len(train) == 18
    assert held.notes[-1] == "2 of 20 pictures are held out: the last 10% of each folder by name"
    assert len(open_source(settings, "all")) == 20
    whole = settings_for("folder", root=str(root), split="all", eval_split="all")
    assert len(open_source(whole, "all")) == 20
    with pytest.raises(UserError, match="no split 'train' .*there are: all 20"):
        open_source(settings_for("folder", root=str(root), holdout=0.0), "train")
    with pytest.raises(UserError, match="data.folder.holdout=1.5: a share"):
        open_source(settings_for("folder", root=str(root), holdout=1.5), "train")


def test_a_training_split_without_one_to_evaluate_on(pictures):
    root = pictures(*"abcd", split="train")
    settings = settings_for("folder", root=str(root))
    assert [sample.key for sample in open_source(settings, "val")] == ["train/d"]
    assert len(open_source(settings, "train")) == 3
    pictures("a", split="val")
    assert len(open_source(settings, "train")) == 4
    assert [sample.key for sample in open_source(settings, "val")] == ["val/a"]


def test_samples_of_equal_folders_by_a_list(pictures):
    root = pictures(*(f"s{number:02}/a" for number in range(10)), "s03/b", "s03/c")
    lines = [f'{{"image": "images/{p.parent.name}/{p.name}"}}' for p in root.rglob("*.png")]
    (root / "mine.jsonl").write_text("\n".join(lines))
    held = open_source(settings_for("folder", root=str(root), list="mine.jsonl"), "val")
    assert len(held) == 1


def test_values_are_those_of_the_files(pictures):
    root = pictures("a", "b")
    (root / "depth").mkdir()
    np.save(root / "depth/b.npy", np.full((2, 3), 2.0, np.float32))
    settings = settings_for("folder", root=str(root))
    with pytest.raises(UserError, match=r"of 2 in .* none can be held out .*split all"):
        open_source(settings, "val")  # one of each kind: none can be held out
    assert open_source(settings, "train")[1].depth.unique().tolist() == [2.0]
