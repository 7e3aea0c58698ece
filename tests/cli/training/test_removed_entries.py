"""Entries of the tables `tasks` and `data` are removed by flag and by file, and stay so."""

from __future__ import annotations

import pytest

from stepsight.cli.train import Args
from stepsight.config import from_dict
from stepsight.errors import UserError

FOLDER = ("--data.folder.root", "X")


def config_of(*arguments):
    return Args.parse(arguments, "train.py").config


@pytest.fixture
def file(tmp_path):
    """A configuration file that holds a text; its flags."""

    def write(text):
        path = tmp_path / f"{len([*tmp_path.iterdir()])}.yaml"
        path.write_text(text)
        return ["--config", str(path)]

    return write


@pytest.mark.parametrize(
    ("flags", "tasks", "data"),
    [
        (["--tasks.flow", "none"], ["depth", "amodal", "semantic"], ["scenes"]),
        (["--tasks.flow=none", "--tasks.depth", "none"], ["amodal", "semantic"], ["scenes"]),
        (["--data.scenes", "none", *FOLDER, "--tasks.depth", "none"], None, ["folder"]),
        (["--data.kitti", "none"], None, ["scenes"]),  # which was not there
        (["--config", "smoke", "--tasks.flow", "none"], ["depth", "amodal"], ["scenes"]),
    ],
)
def test_by_flag(flags, tasks, data):
    config = config_of(*flags)
    assert list(config.data) == data
    if tasks:
        assert set(tasks) <= config.tasks.keys() and "flow" not in config.tasks
    assert from_dict(config.to_dict()) == config  # as it is stored


def test_own_data_is_not_mixed_with_scenes_unasked(file):
    assert list(config_of(*FOLDER).data) == ["folder"]
    assert [*config_of(*FOLDER, "--data.scenes.level", "easy").data] == ["folder", "scenes"]
    assert [*config_of(*file("data: {scenes: {}}"), *FOLDER).data] == ["scenes", "folder"]
    assert [*config_of("--data.root", "/data").data] == ["scenes"]


def test_by_file(file):
    only = file("tasks: {flow: none, semantic: none}")
    assert list(config_of(*only).tasks) == ["depth", "amodal"]  # the others stay
    first = file("data: {root: /d, scenes: {level: easy}, kitti: {root: k}}\ntasks: {depth: {}}")
    config = config_of(*first, *file("data: {scenes: none}"))
    assert list(config.data) == ["kitti"] and config.data["kitti"].root == "k"
    assert config.data_root == "/d" and list(config.tasks) == ["depth"]
    config = config_of(*first, *file("data: {scenes: none, folder: {root: x}}"))
    assert list(config.data) == ["folder"]  # a file that has entries replaces the table
    assert list(config_of(*file("data: {scenes: none}"), *FOLDER).data) == ["folder"]


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--data.scenes", "none"], "at least one entry under tasks and one under data"),
        (["--data.scnes", "none"], "'data.scnes' unknown. Did you mean 'scenes'"),
        (["--data.scenes", "easy"], "--data.scenes easy: an entry as a whole can only be none"),
        (["--data.scenes"], "--data.scenes : an entry as a whole can only be none"),
        (["--data.folder", "none", *FOLDER], "--data.folder none: other flags set something"),
    ],
)
def test_what_cannot_be_removed(flags, reason):
    with pytest.raises(UserError, match=reason):
        config_of(*flags)


def test_a_file_that_leaves_nothing(file):
    with pytest.raises(UserError, match="at least one entry"):
        config_of(*file("data: {root: /d, scenes: none}"))
    with pytest.raises(UserError, match=r"yaml: 'tasks.flwo' unknown. Did you mean 'flow'"):
        config_of(*file("tasks: {flwo: none}"))
