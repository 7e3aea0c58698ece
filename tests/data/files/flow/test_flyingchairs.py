"""FlyingChairs: written here, and real."""

from __future__ import annotations

import numpy as np
import pytest

from stepsight.data.readers.config import FlyingChairsSettings
from stepsight.data.readers.flow.flyingchairs import FlyingChairs
from stepsight.errors import DataFormatError, UserError

NUMBERS = ("00002", "00007", "00010")


@pytest.fixture
def root(tmp_path, write_ppm, flo_bytes):
    """Three pairs whose numbers have gaps: constant flow (number, -number), split 2 1 1."""
    rng = np.random.default_rng(0)
    for number in reversed(NUMBERS):
        for suffix in ("_img1.ppm", "_img2.ppm"):
            pixels = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
            write_ppm(tmp_path / "data" / f"{number}{suffix}", pixels)
        flow = np.full((4, 6, 2), [int(number), -int(number)], np.float32)
        (tmp_path / "data" / f"{number}_flow.flo").write_bytes(flo_bytes(flow))
    (tmp_path / "FlyingChairs_train_val.txt").write_text("2\n1\n1\n")
    return tmp_path


def open_at(root, split="all", quantities=None):
    return FlyingChairs(FlyingChairsSettings(root=str(root)), split, quantities)


def test_split_line_belongs_to_the_sorted_flow(root):
    keys = {split: [s.key for s in open_at(root, split)] for split in ("train", "val", "all")}
    assert keys == {"train": ["00007", "00010"], "val": ["00002"], "all": list(NUMBERS)}


def test_pair_and_flow_belong_together(root):
    sample = open_at(root)[1]
    assert sample.flow[0].unique().tolist() == [7] and sample.flow[1].unique().tolist() == [-7]
    header = len(b"P6\n6 4\n255\n")
    for image, suffix in ((sample.image, "_img1.ppm"), (sample.second, "_img2.ppm")):
        pixels = (root / "data" / f"00007{suffix}").read_bytes()[header:]
        assert image.permute(1, 2, 0).numpy().tobytes() == pixels
    assert sample.flow_valid.all()


def test_unknown_flow_is_invalid(root, flo_bytes):
    flow = np.zeros((4, 6, 2), np.float32)
    flow[1, 2] = 1.6666668e9
    (root / "data" / "00002_flow.flo").write_bytes(flo_bytes(flow))
    assert (~open_at(root)[0].flow_valid).nonzero().tolist() == [[0, 1, 2]]


def test_without_flow(root):
    source = open_at(root, "all", frozenset({"depth"}))
    assert source.quantities == frozenset() and source[0].flow is None


def test_split_file_of_another_set(root):
    (root / "FlyingChairs_train_val.txt").write_text("1\n" * 22872)
    for split in ("train", "val"):
        with pytest.raises(UserError, match="22872 lines for 3 flow files.*split 'all'"):
            open_at(root, split)
    assert len(open_at(root, "all")) == 3


def test_split_file_missing_or_malformed(root):
    path = root / "FlyingChairs_train_val.txt"
    path.write_text("1\n2\n3\n")
    with pytest.raises(DataFormatError, match="FlyingChairs_train_val.txt, line 3: '3'"):
        open_at(root, "val")
    path.unlink()
    with pytest.raises(UserError, match="FlyingChairs_train_val.txt not found.*'all'"):
        open_at(root, "val")


def test_empty_and_unknown_splits(root):
    (root / "FlyingChairs_train_val.txt").write_text("1 1 1")
    with pytest.raises(UserError, match=r"'val' .* is empty \(train 3, val 0, all 3\)"):
        open_at(root, "val")
    with pytest.raises(UserError, match="no split 'test'"):
        open_at(root, "test")


@pytest.mark.parametrize("suffix", ["img1.ppm", "img2.ppm", "flow.flo"])
def test_missing_file_is_found_at_the_start(root, suffix):
    (root / "data" / f"00007_{suffix}").unlink()
    with pytest.raises(DataFormatError, match=f"00007_{suffix} is missing"):
        open_at(root)


def test_malformed_files(root, write_ppm, flo_bytes):
    path = root / "data" / "00002_flow.flo"
    bad = {
        "NaN": flo_bytes(np.full((4, 6, 2), np.nan, np.float32)),
        "no valid flow": flo_bytes(np.full((4, 6, 2), 2e9, np.float32)),
        "4 x 5 pixels, where its image has 4 x 6": flo_bytes(np.zeros((4, 5, 2), np.float32)),
        "need 204 bytes": path.read_bytes()[:-8],
    }
    for reason, data in bad.items():
        path.write_bytes(data)
        with pytest.raises(DataFormatError, match=f"00002_flow.flo: .*{reason}"):
            open_at(root)[0]
    write_ppm(root / "data" / "00002_img2.ppm", np.zeros((3, 6, 3), np.uint8))
    with pytest.raises(DataFormatError, match="00002_img2.ppm: 3 x 6"):
        open_at(root)[0]
    (root / "data" / "00002_img1.ppm").write_bytes(b"P6\n6 4\n255\nshort")
    with pytest.raises(DataFormatError, match="00002_img1.ppm"):
        open_at(root)[0]


def test_real_files(real_samples):
    root = real_samples("FlyingChairs")
    assert [len(open_at(root, split)) for split in ("train", "val", "all")] == [1, 2, 3]
    flows = {sample.key: sample.flow for sample in open_at(root)}
    means = {key: flow.norm(dim=0).mean().item() for key, flow in flows.items()}
    assert means == pytest.approx({"00006": 3.42, "00018": 21.40, "00043": 9.915}, abs=5e-3)
    ranges = {"00006": (-63.98, 25.33, -49.18, 17.63), "00043": (-62.40, 18.10, -121.48, 23.59)}
    for key, expected in ranges.items():
        u, v = flows[key]
        assert [x.item() for x in (u.min(), u.max(), v.min(), v.max())] == pytest.approx(
            expected, abs=5e-3
        )


def test_real_flow_explains_the_second_frame(real_samples):
    """Warping the second frame back by the flow is far nearer to the first than not warping."""
    sample = open_at(real_samples("FlyingChairs"))[2]
    height, width = sample.image.shape[-2:]
    y, x = np.mgrid[:height, :width]
    u, v = sample.flow.numpy().round().astype(int)
    inside = (x + u >= 0) & (x + u < width) & (y + v >= 0) & (y + v < height)
    first, second = sample.image.numpy().astype(float), sample.second.numpy().astype(float)
    moved = second[:, (y + v).clip(0, height - 1), (x + u).clip(0, width - 1)]
    warped = np.abs(moved - first)[:, inside].mean()
    assert warped < 0.6 * np.abs(second - first)[:, inside].mean()


def test_real_files_without_their_split_file(real_samples, tmp_path):
    root = tmp_path / "copy"
    root.mkdir()
    (root / "data").symlink_to(real_samples("FlyingChairs") / "data")
    with pytest.raises(UserError, match="not found"):
        open_at(root, "train")
    assert len(open_at(root, "all")) == 3
