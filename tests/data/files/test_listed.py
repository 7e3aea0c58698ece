"""What the depth readers share: list files, keys, and depth in whole units."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stepsight.data.readers.config import HypersimSettings, NyuSettings
from stepsight.data.readers.depth.hypersim import Hypersim
from stepsight.data.readers.depth.nyu import Nyu
from stepsight.data.readers.listed import read_integer_depth, read_list, without_suffix
from stepsight.errors import DataFormatError, UserError


def test_third_words_and_a_missing_last_newline(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("a/rgb.png a/depth.png  (val)\nb/rgb.png\tb/depth.png 721.5377\nc.png d.png")
    assert read_list(path) == [
        ("a/rgb.png", "a/depth.png"),
        ("b/rgb.png", "b/depth.png"),
        ("c.png", "d.png"),
    ]
    path.write_text("")
    assert read_list(path) == []


@pytest.mark.parametrize("line", ["a.png", "a.png b.png 1 2", ""])
def test_malformed_line(tmp_path, line):
    path = tmp_path / "list.txt"
    path.write_text(f"a.png b.png\n{line}\n")
    with pytest.raises(DataFormatError, match=r"list.txt, line 2: expected 'rgb depth'"):
        read_list(path)


def test_list_that_is_no_text(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataFormatError, match="list.txt: not a text file"):
        read_list(tmp_path / "list.txt")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("./a/b.png", "a/b"),
        ("a.b/c.JPG", "a.b/c"),
        ("a/frame.0001.png", "a/frame.0001"),
        ("a", "a"),
    ],
)
def test_keys(name, key):
    assert without_suffix(name) == key


@pytest.mark.parametrize("per_metre", [1000, 256])
def test_every_stored_value_becomes_metres(tmp_path, write_png, per_metre):
    stored = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    depth, valid = read_integer_depth(write_png(tmp_path / "d.png", stored), per_metre)
    expected = torch.from_numpy((stored / per_metre).astype(np.float32))
    assert depth.dtype == torch.float32 and torch.equal(depth[0], expected)
    assert not valid[0, 0, 0] and int(valid.sum()) == 65535


def test_two_lists_of_one_split(tmp_path):
    for name in ("filename_list_val.txt", "filename_list_val_filtered.txt"):
        (tmp_path / name).write_text("a.png b.png")
    with pytest.raises(UserError, match="both .*_val.txt and .*_val_filtered.txt list split 'val'"):
        Hypersim(HypersimSettings(root=str(tmp_path)), "val")


def test_a_list_decides_which_frames_there_are(tmp_path, write_png):
    for number in (1, 2):
        write_png(tmp_path / f"test/den_0001/rgb_000{number}.png", np.zeros((2, 2, 3), np.uint8))
    settings = NyuSettings(root=str(tmp_path))
    assert len(Nyu(settings, "test")) == 2
    (tmp_path / "filename_list_test.txt").write_text("./test/den_0001/rgb_0002.png d.png f.png")
    assert [frame.key for frame in Nyu(settings, "test").entries] == ["test/den_0001/rgb_0002"]
    with pytest.raises(UserError, match=r"no split 'train' .* test 1, all 1"):
        Nyu(settings, "train")
