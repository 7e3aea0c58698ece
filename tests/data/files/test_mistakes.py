"""Slips of the keyboard that end in a message, not in a traceback."""

from __future__ import annotations

import json

import numpy as np
import pytest

import stepsight.data
from stepsight.data.config import TABLE, FileSettings
from stepsight.data.table import settings_for
from stepsight.errors import UserError

READERS = sorted(name for name, row in TABLE.items() if issubclass(row, FileSettings))


@pytest.mark.parametrize("name", READERS)
def test_the_home_of_nobody(name):
    with pytest.raises(UserError, match="~no-such-user-here/x"):
        stepsight.data.open(name, "~no-such-user-here/x")


@pytest.mark.parametrize("name", ["list.jsonl", "list [1].jsonl"])
@pytest.mark.parametrize("absolute", [False, True])
def test_lists_of_any_name(tmp_path, write_png, name, absolute):
    write_png(tmp_path / "a.png", np.zeros((2, 3, 3), np.uint8))
    path = tmp_path / name
    path.write_text(json.dumps({"image": "a.png"}))
    listed = str(path) if absolute else name
    assert len(stepsight.data.open("folder", str(tmp_path), list=listed)) == 1
    path.unlink()
    with pytest.raises(UserError, match=r"folder: .*list.*\.jsonl not found"):
        stepsight.data.open("folder", str(tmp_path), list=listed)


@pytest.mark.parametrize("split", ["", "/x", ".", "..", "a/b"])
def test_splits_that_are_no_folder_name(tmp_path, write_png, split):
    write_png(tmp_path / "train/cat/a.png", np.zeros((2, 3, 3), np.uint8))
    with pytest.raises(UserError, match=f"imagefolder: no split '{split}'"):
        stepsight.data.open("imagefolder", str(tmp_path), split=split)


def test_folders_with_brackets_are_splits(tmp_path, write_png):
    write_png(tmp_path / "my[1]/cat/a.png", np.zeros((2, 3, 3), np.uint8))
    assert len(stepsight.data.open("imagefolder", str(tmp_path), split="my[1]")) == 1


@pytest.mark.parametrize("camera", ["2", 0, None])
def test_options_of_a_few_choices(camera):
    with pytest.raises(UserError, match="vkitti2: camera .* is one of both, 0, 1"):
        settings_for("vkitti2", camera=camera)
    assert settings_for("vkitti2", camera="1") == TABLE["vkitti2"](camera="1")  # type: ignore[call-arg]
