"""TartanAir and its second version, written here by the published layouts."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from stepsight.data.readers.config import TartanAirSettings
from stepsight.data.readers.flow.tartanair import TartanAir
from stepsight.errors import DataFormatError, UserError

DEPTH = np.array([[1.5, 10000, 0], [3.25, 999, 1000]], np.float32)  # the sky is far away
FLOW = np.array([[[1.5, -2], [0, 0.25], [-3, 4]]] * 2, np.float32)
MASK = np.array([[0, 1, 10], [100, 0, 0]], np.uint8)


@pytest.fixture
def first(tmp_path, write_png):
    for level in ("Easy", "Hard"):
        flight = tmp_path / "gascola" / level / "P001"
        for number in range(3):
            for side in ("left", "right"):
                pixels = np.full((2, 3, 3), 10 * number, np.uint8)
                write_png(flight / f"image_{side}/{number:06d}_{side}.png", pixels)
                (flight / f"depth_{side}").mkdir(exist_ok=True)
                np.save(flight / f"depth_{side}/{number:06d}_{side}_depth.npy", DEPTH)
        (flight / "flow").mkdir()
        for number in range(2):
            np.save(flight / f"flow/{number:06d}_{number + 1:06d}_flow.npy", FLOW)
            np.save(flight / f"flow/{number:06d}_{number + 1:06d}_mask.npy", MASK)
    return tmp_path


@pytest.fixture
def second(tmp_path, write_png):
    flight = tmp_path / "Gascola/Data_easy/P001"
    for number in range(2):
        name = f"{number:06d}_lcam_front"
        write_png(flight / f"image_lcam_front/{name}.png", np.zeros((2, 3, 3), np.uint8))
        (flight / "depth_lcam_front").mkdir(exist_ok=True)
        four = DEPTH.astype("<f4").view(np.uint8).reshape(2, 3, 4)  # blue, green, red, alpha
        rgba = np.ascontiguousarray(four[..., [2, 1, 0, 3]])
        Image.fromarray(rgba, "RGBA").save(flight / f"depth_lcam_front/{name}_depth.png")
    stored = np.zeros((2, 3, 3), np.uint16)
    stored[..., 2], stored[..., 1] = np.moveaxis(FLOW * 64 + 32768, -1, 0)
    stored[..., 0] = MASK
    write_png(flight / "flow_lcam_front/000000_000001_flow.png", stored)
    return tmp_path


def open_at(root, split="all", quantities=None, **options):
    return TartanAir(TartanAirSettings(root=str(root), **options), split, quantities)


def check(sample):
    seen = np.array([[1, 0, 0], [1, 1, 0]], bool)
    assert np.array_equal(sample.depth[0], np.where(seen, DEPTH, 0))
    assert np.array_equal(sample.depth_valid[0], seen)
    expected = np.where((MASK == 0)[..., None], FLOW, 0)
    assert np.array_equal(sample.flow.permute(1, 2, 0), expected)
    assert np.array_equal(sample.flow_valid[0], MASK == 0) and sample.second is not None


def test_first_version(first):
    source = open_at(first, "hard")
    assert [s.key for s in source] == [f"gascola/Hard/P001/{n:06d}_left" for n in range(2)]
    check(source[1])
    assert source[1].second.unique().tolist() == [20]
    assert len(open_at(first, quantities=frozenset({"depth"}))) == 6
    assert len(open_at(first, camera="both")) == 12
    assert open_at(first, camera="right").quantities == {"depth"}


def test_second_version(second):
    source = open_at(second, "easy")
    assert source[0].key == "Gascola/Data_easy/P001/000000_lcam_front" and len(source) == 1
    check(source[0])


def test_wrong_layouts(first):
    with pytest.raises(UserError, match="no split 'train'"):
        open_at(first, "train")
    with pytest.raises(UserError, match="found 0"):
        open_at(first / "gascola/Hard")
    path = first / "gascola/Easy/P001/flow/000000_000001_mask.npy"
    path.unlink()
    with pytest.raises(DataFormatError, match="000000_000001_mask.npy is missing"):
        open_at(first, "easy", camera="left")


def test_damaged(second, write_png):
    path = second / "Gascola/Data_easy/P001/depth_lcam_front/000000_lcam_front_depth.png"
    write_png(path, np.zeros((2, 3), np.uint16))
    with pytest.raises(DataFormatError, match="16-bit .*, where RGBA holds depth"):
        open_at(second)[0]
