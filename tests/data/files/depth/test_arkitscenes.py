"""ARKitScenes, written here by the published layout."""

from __future__ import annotations

import numpy as np
import pytest

from stepsight.data.readers.config import ArkitScenesSettings
from stepsight.data.readers.depth.arkitscenes import ArkitScenes
from stepsight.errors import DataFormatError, UserError

DEPTH = np.array([[0, 1000, 1], [65535, 2, 3]], np.uint16)


@pytest.fixture
def root(tmp_path, write_png):
    for split, video in (("Training", "41069021"), ("Validation", "42")):
        for folder, times, large in (
            ("wide", ("305.244", "307.343"), 2),
            ("highres_depth", ("305.244", "999.000"), 2),
            ("lowres_wide", ("305.244", "306.000"), 1),
            ("lowres_depth", ("305.244", "306.000"), 1),
        ):
            pixels = DEPTH if "depth" in folder else np.full((2, 3, 3), 7, np.uint8)
            for time in times:
                path = tmp_path / split / video / folder / f"{video}_{time}.png"
                write_png(path, pixels.repeat(large, 0).repeat(large, 1))
    return tmp_path


def open_at(root, split="all", **options):
    return ArkitScenes(ArkitScenesSettings(root=str(root), **options), split)


def test_frames_that_have_both(root):
    source = open_at(root)
    assert [s.key for s in source] == [
        "Training/41069021/41069021_305.244",
        "Validation/42/42_305.244",
    ]
    assert source[0].image.shape == (3, 4, 6)
    assert np.array_equal(source[0].depth[0, ::2, ::2], DEPTH.astype(np.float32) / 1000)
    said = "1 of 2 files in highres_depth have no picture in wide, left out"
    assert source.notes == (f"41069021: {said}", f"42: {said}")
    low = open_at(root, "val", depth="lowres")
    assert len(low) == 2 and low[0].image.shape == (3, 2, 3)


def test_pictures_called_color(root):
    for video in root.glob("*/*"):
        (video / "wide").rename(video / "color")
    assert len(open_at(root)) == 2


def test_other_layouts_are_named(root, write_png):
    with pytest.raises(UserError, match=r"found 0 \*/\*/highres_depth"):
        open_at(root / "Training")
    for video in root.glob("*/*"):
        (video / "wide").rename(video / "pictures")
    with pytest.raises(UserError, match="split 'all' .* is empty"):
        open_at(root)
    path = root / "Validation/42/lowres_depth/42_305.244.png"
    write_png(path, DEPTH.repeat(2, 0))
    with pytest.raises(DataFormatError, match="4 x 3 pixels, where its image has 2 x 3"):
        open_at(root, "val", depth="lowres")[0]
