"""NYUv2 as files in Marigold's layout: written here, and real pictures put into it."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from stepsight.data.readers.config import NyuSettings
from stepsight.data.readers.depth.nyu import Nyu
from stepsight.errors import DataFormatError, UserError

RAW = np.array([[0, 713, 9999], [65535, 1, 2500]], np.uint16)  # millimetres
FILLED = np.where(RAW == 0, 700, RAW).astype(np.uint16)


@pytest.fixture
def root(tmp_path, write_png):
    colour = np.random.default_rng(0).integers(0, 256, (2, 3, 3), dtype=np.uint8)
    for name in ("test/kitchen_0004/{}_0001", "test/office_0002/{}_0014", "train/den_0001/{}_0002"):
        for kind, pixels in {"rgb": colour, "depth": RAW, "filled": FILLED}.items():
            write_png(tmp_path / f"{name.format(kind)}.png", pixels)
    return tmp_path


def open_at(root, split="test", quantities=None, **options):
    return Nyu(NyuSettings(root=str(root), **options), split, quantities)


def test_millimetres_measured_or_filled(root):
    for option, stored in {"raw": RAW, "filled": FILLED}.items():
        sample = open_at(root, depth=option)[0]
        assert sample.key == "test/kitchen_0004/rgb_0001" and sample.source == "nyuv2"
        assert sample.depth[0].numpy() == pytest.approx(stored / 1000, abs=1e-5)
        assert sample.depth_valid[0].tolist() == (stored > 0).tolist()


def test_splits(root):
    assert [len(open_at(root, split)) for split in ("train", "test", "all")] == [1, 2, 3]
    with pytest.raises(UserError, match=r"no split 'val' .*test 2, train 1, all 3"):
        open_at(root, "val")


@pytest.mark.parametrize("third", [" test/office_0002/filled_0014.png", ""])
def test_list(root, third):
    line = f"test/office_0002/rgb_0014.png test/office_0002/depth_0014.png{third}"
    (root / "filename_list_test.txt").write_text(line)
    for option, stored in {"raw": RAW, "filled": FILLED}.items():
        (sample,) = open_at(root, depth=option).samples([0])
        assert sample.key == "test/office_0002/rgb_0014"
        assert sample.depth[0, 0, 0].item() == pytest.approx(stored[0, 0] / 1000)


def test_empty_list(root):
    (root / "filename_list_test.txt").write_text("")
    with pytest.raises(UserError, match="split 'test' .* is empty"):
        open_at(root)


def test_quantities_not_asked_for_are_not_read(root):
    for path in root.glob("*/*/depth_*.png"):
        path.unlink()
    assert open_at(root, "all", frozenset({"flow"}))[0].depth is None
    with pytest.raises(UserError, match="depth_0001.png: cannot be read"):
        open_at(root)[0]


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (RAW.astype(np.uint8), "8-bit grey"),
        (RAW[:1], "1 x 3 pixels, where its image has 2 x 3"),
        (np.zeros_like(RAW), "no valid depth"),
    ],
)
def test_malformed_depth(root, write_png, pixels, reason):
    write_png(root / "test/kitchen_0004/depth_0001.png", pixels)
    with pytest.raises(DataFormatError, match=f"depth_0001.png: .*{reason}"):
        open_at(root)[0]


def test_damaged_depth(root):
    path = root / "test/kitchen_0004/depth_0001.png"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataFormatError, match="depth_0001.png: damaged PNG"):
        open_at(root)[0]


def test_real_files(real_samples, tmp_path):
    real = real_samples("nyu")
    for number in ("00000", "00050"):
        folder = tmp_path / "test" / "den_0001"
        folder.mkdir(parents=True, exist_ok=True)
        Image.open(real / f"rgb/rgb_{number}.jpg").save(folder / f"rgb_{number}.png")
        shutil.copy(real / f"depth/sync_depth_{number}.png", folder / f"depth_{number}.png")
    for sample in open_at(tmp_path).samples([0, 1]):
        depth, valid = sample.depth, sample.depth_valid
        assert depth.shape == (1, 480, 640) and 0.6 < valid.float().mean() < 0.9
        assert 0.5 < depth[valid].min() and depth.max() <= 10.0
