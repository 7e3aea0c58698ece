"""HD1K: written here, and read by torchvision for comparison."""

from __future__ import annotations

import numpy as np
import pytest
from torchvision.datasets import HD1K as Reference

from stepsight.data.readers.config import Hd1kSettings
from stepsight.data.readers.flow.hd1k import Hd1k
from stepsight.errors import DataFormatError, UserError

# torchvision announces the end of its decoders, which it reads this flow with.
pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
SEQUENCES = {"000000": (10, 11, 12), "000001": (0, 1)}


@pytest.fixture
def root(tmp_path, write_png):
    """Grey pictures in the first sequence, colour in the second."""
    rng = np.random.default_rng(0)
    root = tmp_path / "hd1k"
    for sequence, frames in SEQUENCES.items():
        for frame in frames:
            name = f"{sequence}_{frame:04d}.png"
            picture = rng.integers(0, 256, (5, 8, 3), dtype=np.uint8)
            picture = picture[..., 0] if sequence == "000000" else picture
            write_png(root / "hd1k_input/image_2" / name, picture)
            stored = rng.integers(0, 65536, (5, 8, 3), dtype=np.uint16)
            stored[..., 2] = np.arange(40).reshape(5, 8) % 2
            write_png(root / "hd1k_flow_gt/flow_occ" / name, stored)
    for frame in (10, 11):
        name = f"hd1k_challenge/image_2/000007_{frame:04d}.png"
        write_png(root / name, np.zeros((5, 8), np.uint8))
    return root


def open_at(root, split="train", quantities=None):
    return Hd1k(Hd1kSettings(root=str(root)), split, quantities)


def test_agrees_with_torchvision(root):
    source, reference = open_at(root), Reference(str(root.parent))
    assert len(source) == len(reference) == 3
    assert [s.key for s in source] == ["000000_0010", "000000_0011", "000001_0000"]
    for sample, (first, second, flow, valid) in zip(source, reference):
        for image, picture in ((sample.image, first), (sample.second, second)):
            assert np.array_equal(image.permute(1, 2, 0), np.array(picture.convert("RGB")))
        assert np.array_equal(sample.flow_valid[0], valid)
        assert np.array_equal(sample.flow, np.where(valid, flow, 0))


def test_grey_pictures_are_tiled(root):
    image = open_at(root)[0].image
    assert image.shape == (3, 5, 8) and (image == image[:1]).all()


def test_test_split_has_nothing_to_score(root):
    source = open_at(root, "test")
    assert source.quantities == frozenset() and [s.key for s in source] == ["000007_0010"]
    assert source[0].second is not None and source[0].flow is None


def test_malformed_flow(root, write_png):
    path = root / "hd1k_flow_gt/flow_occ/000001_0000.png"
    for pixels, reason in (
        (np.zeros((5, 8, 3), np.uint8), "16-bit RGB is expected"),
        (np.zeros((5, 8, 3), np.uint16), "no valid flow"),
        (np.ones((8, 5, 3), np.uint16), "8 x 5 pixels"),
    ):
        write_png(path, pixels)
        with pytest.raises(DataFormatError, match=f"000001_0000.png: .*{reason}"):
            open_at(root)[2]
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataFormatError, match="000001_0000.png: damaged"):
        open_at(root)[2]


def test_missing_files_and_splits(root):
    with pytest.raises(UserError, match="no split 'val' .*train 3, all 3"):
        open_at(root, "val")
    (root / "hd1k_flow_gt/flow_occ/000000_0011.png").unlink()
    with pytest.raises(UserError, match="flow_occ/000000_0011.png is missing"):
        open_at(root)


def rename(root, names):
    """Give the frames of the first sequence other numbers."""
    for folder in ("hd1k_input/image_2", "hd1k_flow_gt/flow_occ"):
        for old, new in names.items():
            (root / folder / f"000000_{old:04d}.png").rename(
                root / folder / f"000000_{new:04d}.png"
            )


def test_a_gap_in_a_sequence_is_a_missing_frame(root):
    rename(root, {12: 13})
    with pytest.raises(DataFormatError, match="image_2/000000_0012.png is missing"):
        open_at(root)


def test_numbers_may_step_by_a_constant_of_the_sequence(root):
    rename(root, {12: 20, 11: 15})
    entries = open_at(root).entries
    numbers = [(entry.image.stem, entry.second.stem) for entry in entries]
    assert numbers[:2] == [("000000_0010", "000000_0015"), ("000000_0015", "000000_0020")]
    assert numbers[2] == ("000001_0000", "000001_0001")
