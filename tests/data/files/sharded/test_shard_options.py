"""Shards know with which options of their data set they were written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import stepsight.data
from stepsight.data.config import ScenesSettings
from stepsight.data.readers.config import FolderSettings
from stepsight.data.sharded.index import INDEX
from stepsight.data.sharded.reading import Shards
from stepsight.data.sharded.writing import write_shards
from stepsight.data.table import open_source, settings_for, specific_options
from stepsight.errors import UserError


@pytest.fixture
def own(tmp_path, write_png) -> Path:
    root = tmp_path / "own"
    write_png(root / "images/a.png", np.full((2, 3, 3), 9, np.uint8))
    write_png(root / "depth/a.png", np.full((2, 3), 500, np.uint16))
    return root


def test_options_that_differ_are_refused(own, tmp_path):
    out = tmp_path / "s"
    source = stepsight.data.open("folder", str(own), depth_scale=100.0)
    write_shards(source, out, per_shard=1)
    written = json.loads((out / INDEX).read_text())["settings"]
    assert written == specific_options(FolderSettings(depth_scale=100.0))
    assert not {"root", "split", "size"} & written.keys()
    sample = stepsight.data.open("folder", str(out), depth_scale=100.0)[0]
    assert sample.depth is not None and sample.depth.unique().tolist() == [5]
    assert len(stepsight.data.open("shards", str(out))) == 1
    with pytest.raises(UserError, match=r"folder: .* written with depth_scale 100.0, not 1000.0"):
        stepsight.data.open("folder", str(out))


def test_resuming_and_resharding_keep_the_options(own, tmp_path):
    source = stepsight.data.open("folder", str(own), depth_scale=100.0)
    write_shards(source, tmp_path / "s", per_shard=1)
    with pytest.raises(UserError, match="differ in settings"):
        write_shards(stepsight.data.open("folder", str(own)), tmp_path / "s", per_shard=1)
    again = stepsight.data.open("shards", str(tmp_path / "s"))
    settings = write_shards(again, tmp_path / "t", per_shard=1).about["settings"]
    assert settings == specific_options(FolderSettings(depth_scale=100.0))


def test_worlds_are_told_apart_but_not_by_where_they_are_kept(tmp_path):
    settings = ScenesSettings(level="easy", size=(8, 8), eval_count=1, seed=3, cache="/secret")
    worlds = open_source(settings, "eval")
    about = write_shards(worlds, tmp_path / "s", per_shard=1).about
    assert about["settings"]["seed"] == 3 and "cache" not in about["settings"]


class Flow:
    """Frame pairs with flow, or without as in a test set."""

    name, classes, categories, size = "sintel", (), (), (6, 10)
    settings = settings_for("sintel")

    def __init__(self, made: Callable, known: bool) -> None:
        self.sample = made()
        self.quantities = frozenset({"flow"} if known else ())
        for name in vars(self.sample):
            if name not in ("image", "second", "key", "source", "extra", "flow", "flow_valid"):
                setattr(self.sample, name, None)
        if not known:
            self.sample.flow = self.sample.flow_valid = None

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int):
        return self.sample


def test_only_the_chosen_splits_must_agree_and_the_second_frame_stays(full_sample, tmp_path):
    for split, known in (("train", True), ("test", False)):
        source = Flow(full_sample, known)
        write_shards(source, tmp_path / split, split=split, per_shard=1)  # type: ignore[arg-type]
    settings = settings_for("sintel", root=str(tmp_path))
    test = open_source(settings, "test", frozenset({"flow"}))
    assert isinstance(test, Shards) and test.quantities == frozenset()
    second = test[0].second
    assert second is not None and torch.equal(second, Flow(full_sample, False).sample.second)
    assert open_source(settings, "train", frozenset({"flow"})).quantities == {"flow"}
    with pytest.raises(UserError, match="differ in quantities"):
        open_source(settings, "all")


def test_a_source_that_cannot_be_read_is_not_blamed_on_the_shards(full_sample, tmp_path):
    class Gone(Flow):
        def __getitem__(self, index: int):
            raise PermissionError(13, "Permission denied", "frame.png")

    with pytest.raises(UserError, match=r"sintel, sample 0: cannot be read .*frame\.png"):
        write_shards(Gone(full_sample, True), tmp_path / "s", per_shard=1)  # type: ignore[arg-type]
