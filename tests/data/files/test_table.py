"""Opening sources by name, and what the user reads when that fails."""

from __future__ import annotations

import dataclasses
import importlib
import re

import numpy as np
import pytest

from stepsight.data.config import TABLE, FileSettings
from stepsight.data.fields import QUANTITIES
from stepsight.data.readers.config import HypersimSettings
from stepsight.data.table import open_source, settings_for
from stepsight.errors import UserError

READERS = sorted(name for name, row in TABLE.items() if issubclass(row, FileSettings))
SMALL = ("flyingchairs", "hypersim", "imagefolder", "pix2gestalt")  # opened on a few empty files
MARKERS = {"folder": "images/1.png", "imagefolder": "cat/1.jpg"}  # theirs depend on the settings
STRICT = [name for name in READERS if name != "shards"]  # which may lie a level below the root


def reader(name):
    module, _, attribute = TABLE[name].implementation.partition(":")
    return getattr(importlib.import_module(module), attribute)


def marked(name):
    """A path that the reader's marker, a glob, matches."""
    glob = MARKERS.get(name) or reader(name).marker
    return re.sub(r"\[(.)[^]]*\]", r"\1", glob).replace("*", "x")


def test_settings_by_name():
    assert settings_for("hypersim", split="all") == HypersimSettings(split="all")


def test_unknown_names_and_options_are_suggested():
    with pytest.raises(UserError, match="'hypersym'. Did you mean 'hypersim'"):
        settings_for("hypersym")
    with pytest.raises(UserError, match="hypersim has no option 'splits'. Did you mean 'split'"):
        settings_for("hypersim", splits="all")


@pytest.mark.parametrize("name", READERS)
def test_missing_root(name, tmp_path):
    with pytest.raises(UserError, match=f"{name}: no folder is given. Set --data.root"):
        open_source(settings_for(name), "all")
    missing = tmp_path / "hs"
    with pytest.raises(UserError, match=f"{name}: {missing} not found. .*--data.name scenes"):
        open_source(settings_for(name, root=str(missing)), "all")


@pytest.mark.parametrize("name", STRICT)
def test_root_a_level_off_is_hinted_at(name, tmp_path):
    above = tmp_path / "above"
    right = above / "right"
    (right / marked(name)).parent.mkdir(parents=True)
    (right / marked(name)).touch()
    (right / "data").mkdir(exist_ok=True)
    for wrong in (above, right / "data"):
        with pytest.raises(UserError, match=rf"{name}: found 0 .* under {wrong}; .*mean {right}\?"):
            open_source(settings_for(name, root=str(wrong)), "all")


@pytest.mark.parametrize("name", READERS)
def test_folder_of_something_else(name, tmp_path):
    (tmp_path / "only").mkdir()
    with pytest.raises(UserError, match=f"{name}: found 0 .* under .*only; Set --data.root"):
        open_source(settings_for(name, root=str(tmp_path / "only")), "all")


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("folder", ["", "below"])
def test_root_below_the_base(name, folder, tmp_path, flo_bytes, write_png):
    """`root` is looked for under `base`, and is `base` itself when empty."""
    root = tmp_path / folder
    for suffix in ("occlusion/1_occlusion.png", "visible_object_mask/1_visible_mask.png"):
        write_png(root / suffix, np.full((2, 2), 255, np.uint8))
    write_png(root / "whole_mask/1_whole_mask.png", np.full((2, 2), 255, np.uint8))
    write_png(root / "all/cat/1.png", np.zeros((2, 2, 3), np.uint8))
    (root / "filename_list_train.txt").write_text("a.png b.png")
    (root / "data").mkdir()
    for suffix in ("_img1.ppm", "_img2.ppm", "_flow.flo"):
        (root / "data" / f"00001{suffix}").touch()
    settings = settings_for(name, root=folder, size=(8, 6))
    source = open_source(settings, "all", base=str(tmp_path))
    assert (source.name, source.size, len(source)) == (name, (8, 6), 1)
    assert source.quantities and source.quantities <= QUANTITIES
    assert open_source(settings, "all", frozenset(), str(tmp_path)).quantities == frozenset()


@pytest.mark.parametrize("name", READERS)
def test_readers_say_what_they_offer(name):
    assert "stepsight.data." in TABLE[name].implementation
    assert reader(name).offers <= QUANTITIES


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE.keys())
def test_rows_are_frozen_and_name_a_class(row):
    module, _, name = row.implementation.partition(":")
    assert module.startswith("stepsight.data.") and name.isidentifier()
    assert hash(row()) == hash(row())
    with pytest.raises(dataclasses.FrozenInstanceError):
        row().weight = 2.0
