"""Which files belong together, told by their names; and pictures out of files of arrays."""

from __future__ import annotations

import numpy as np
import pytest

from stepsight.data.decoding.pictures import read_picture, turn_of
from stepsight.data.looking.names import name_of
from stepsight.data.looking.pairing import paired
from stepsight.errors import DataFormatError


def pairs(pictures: list[str], truths: list[str]) -> dict[str, list[str]]:
    return paired([*map(name_of, pictures)], [*map(name_of, truths)])[0]


@pytest.mark.parametrize(
    ("picture", "truth"),
    [
        ("rgb/0001.jpg", "depth/0001.png"),
        ("0001_rgb.jpg", "0001_depth.png"),
        ("a/rgb_7.png", "a/depth_0007.exr"),
        ("images/train/x/7.png", "labels/train/x/7.png"),
        ("room.h5#images/3", "room.h5#depths/3"),
        ("photo 1.JPG", "photo 1.depth.npy"),
        ("leftImg8bit/val/ulm/1_leftImg8bit.png", "gtFine/val/ulm/1_gtFine_labelIds.png"),
        ("rgb/a²7.png", "depth/a²07.npy"),  # not a digit to count with
    ],
)
def test_names_of_one_sample(picture, truth):
    assert pairs([picture], [truth]) == {picture: [truth]}


@pytest.mark.parametrize(
    ("pictures", "truths"),
    [
        (["a/1.png", "b/1.png"], ["1_depth.npy"]),  # of which scene?
        (["images/1.png"], ["depth/2.npy"]),
        (["images/1.png", "images/2.png"], ["depth/3.npy", "depth/4.npy"]),
        (["train/images/1.png"], ["val/depth/1.npy"]),
        (["rgb/1305031102.175304.png"], ["depth/1305031102.275304.png"]),  # 0.1 s
    ],
)
def test_names_that_do_not_belong_together(pictures, truths):
    assert pairs(pictures, truths) == {}


def test_names_of_any_script():
    stems = ["東京", "大阪", "ä ö", "é"]
    truths = ["depth/東京.npy", "depth/大阪.npy", "depth/ä ö.npy", "depth/e\u0301.npy"]
    found = {f"rgb/{stem}.png": [truth] for stem, truth in zip(stems, truths)}
    assert pairs([*found], truths) == found


def test_each_time_is_used_once_by_the_nearest():
    pictures = ["rgb/1305031102.100000.png", "rgb/1305031102.110000.png"]
    truths = ["depth/1305031102.108000.png", "depth/1305031102.114000.png"]
    found = {pictures[1]: [truths[0]], pictures[0]: [truths[1]]}  # as TUM's associate.py
    assert pairs(pictures, truths) == found


@pytest.mark.parametrize(
    ("path", "role", "split"),
    [
        ("train/images/depth_of_field/1.jpg", "depth", "train"),
        ("leftImg8bit/val/ulm/ulm_1_leftImg8bit.png", "image", "val"),
        ("gtFine/val/ulm/ulm_1_gtFine_instanceIds.png", "aside", "val"),
        ("scene/1_depth_mask.npy", "depth_valid", ""),
        ("flow_bw/1.flo", "aside", ""),
        ("visible_object_mask/1.png", "modal", ""),
        ("000048/mask_visib/000001_000000.png", "modal", ""),  # of BOP
        ("test_rgb/1.png", "image", "test"),
        ("0001.png", "", ""),
    ],
)
def test_roles_and_splits(path, role, split):
    name = name_of(path)
    assert (*name.roles, "")[0] == role and name.split == split


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_pictures_in_arrays(tmp_path, first, kind):
    top = {np.uint8: 255, np.uint16: 65535, np.float32: 1}[kind]
    values = np.zeros((4, 5, 3))
    values[1, 2] = [1, 0.2, 0]
    values = (values * top).astype(kind)
    np.savez(tmp_path / "a.npz", rgb=values.transpose(2, 0, 1) if first else values, depth=values)
    picture = read_picture(tmp_path / "a.npz#rgb")
    assert picture.shape == (3, 4, 5) and picture[:, 1, 2].tolist() == [255, 51, 0]
    assert turn_of(tmp_path / "a.npz#rgb") == 1


@pytest.mark.parametrize(
    "values", [np.full((4, 5, 3), 2.0), np.zeros((4, 5, 2), np.uint8), np.zeros((4, 5), np.int64)]
)
def test_arrays_that_are_no_picture(tmp_path, values):
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(DataFormatError, match=r"a\.npy.*picture"):
        read_picture(tmp_path / "a.npy")
