"""KITTI 2012 and 2015 flow: written here, read by torchvision for comparison, and real."""

from __future__ import annotations

import numpy as np
import pytest
from torchvision.datasets import KittiFlow as Reference

from stepsight.data.readers.config import Kitti2012Settings, Kitti2015Settings
from stepsight.data.readers.flow.kitti_flow import Kitti2012, Kitti2015
from stepsight.errors import DataFormatError, UserError

# torchvision announces the end of its decoders, which it reads this flow with.
pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")


def write_set(root, write_png, images: str) -> None:
    """Two training pairs, one to test; flow_noc lacks the first valid pixel of flow_occ."""
    rng = np.random.default_rng(0)
    for folder, count in (("training", 2), ("testing", 1)):
        for number in range(count):
            for frame in (10, 11):
                name = f"{folder}/{images}/{number:06d}_{frame}.png"
                write_png(root / name, rng.integers(0, 256, (5, 8, 3), dtype=np.uint8))
    for number in range(2):
        stored = rng.integers(0, 65536, (5, 8, 3), dtype=np.uint16)
        stored[..., 2] = rng.random((5, 8)) < 0.3
        stored[0, 0, 2] = 1
        write_png(root / f"training/flow_occ/{number:06d}_10.png", stored)
        stored[0, 0] = 0
        write_png(root / f"training/flow_noc/{number:06d}_10.png", stored)


@pytest.fixture
def root(tmp_path, write_png):
    write_set(tmp_path / "KittiFlow", write_png, "image_2")
    return tmp_path / "KittiFlow"


def open_at(root, split="train", quantities=None, **options):
    return Kitti2015(Kitti2015Settings(root=str(root), **options), split, quantities)


def test_agrees_with_torchvision(root):
    source, reference = open_at(root), Reference(str(root.parent))
    assert len(source) == len(reference) == 2
    for sample, (first, second, flow, valid) in zip(source, reference):
        assert np.array_equal(sample.image.permute(1, 2, 0), np.array(first))
        assert np.array_equal(sample.second.permute(1, 2, 0), np.array(second))
        assert np.array_equal(sample.flow_valid[0], valid)
        assert np.array_equal(sample.flow, np.where(valid, flow, 0))


def test_occluded_pixels_can_be_left_out(root):
    with_all, in_sight = open_at(root)[0], open_at(root, occluded=False)[0]
    assert with_all.occluded.nonzero().tolist() == [[0, 0, 0]] and in_sight.occluded is None
    difference = with_all.flow_valid & ~in_sight.flow_valid
    assert difference.nonzero().tolist() == [[0, 0, 0]]


def test_without_the_pixels_in_sight(root):
    (root / "training/flow_noc").rename(root / "away")
    assert open_at(root)[0].occluded is None
    with pytest.raises(UserError, match="flow_noc/000000_10.png is missing and so are 1 others"):
        open_at(root, occluded=False)


def test_2012_has_its_own_folder_of_images(tmp_path, write_png):
    write_set(tmp_path, write_png, "colored_0")
    source = Kitti2012(Kitti2012Settings(root=str(tmp_path)), "train")
    assert [s.key for s in source] == ["000000_10", "000001_10"] and source.name == "kitti2012"
    with pytest.raises(UserError, match="found 0 training/image_2"):
        open_at(tmp_path)


def test_test_split_has_nothing_to_score(root):
    source = open_at(root, "test")
    assert source.quantities == frozenset() and len(source) == 1
    assert source[0].second is not None and source[0].flow is None and source[0].occluded is None


def test_malformed_flow(root, write_png):
    path = root / "training/flow_occ/000000_10.png"
    whole = path.read_bytes()
    colour = np.zeros((5, 8, 3), np.uint8)
    for pixels, reason in (
        (colour, "16-bit RGB is expected"),
        (colour[..., 0].astype(np.uint16), "16-bit RGB is expected"),
        (colour.astype(np.uint16), "no valid flow"),
        (np.ones((5, 7, 3), np.uint16), "5 x 7 pixels"),
    ):
        write_png(path, pixels)
        with pytest.raises(DataFormatError, match=f"flow_occ/000000_10.png: .*{reason}"):
            open_at(root)[0]
    for data, reason in ((whole[:-20], "damaged"), (b"GIF8" + whole, "not a PNG")):
        path.write_bytes(data)
        with pytest.raises(DataFormatError, match=f"flow_occ/000000_10.png: .*{reason}"):
            open_at(root)[0]


def test_missing_files_and_splits(root):
    with pytest.raises(UserError, match="no split 'val' .*train 2, all 2"):
        open_at(root, "val")
    (root / "training/image_2/000001_11.png").unlink()
    with pytest.raises(UserError, match="image_2/000001_11.png is missing"):
        open_at(root)


def test_real_pair(tmp_path, real_samples):
    folder = real_samples("kitti_flow")
    for name, file in (
        ("image_2/000000_10.png", "frame1.png"),
        ("image_2/000000_11.png", "frame2.png"),
        ("flow_occ/000000_10.png", "flow_gt.png"),
    ):
        path = tmp_path / "training" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(folder / file)
    (sample,) = open_at(tmp_path)
    assert sample.image.shape == (3, 375, 1242)
    assert sample.flow_valid.float().mean() == pytest.approx(0.162, abs=5e-4)
    u, v = (plane[sample.flow_valid[0]] for plane in sample.flow)
    assert (u.min(), u.max()) == (-184.25, 74.609375)
    assert (v.min(), v.max()) == (-7.171875, 53.265625)
