"""A user's own folder by a list of its files: splits, keys, and what can be wrong with a line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from stepsight.data.table import open_source, settings_for
from stepsight.errors import DataFormatError, UserError

METRES = np.array([[0.0, 0.5, 1.0], [2.0, 4.0, 8.0]], np.float32)  # the first is missing


def open_folder(root, split="all", **options):
    return open_source(settings_for("folder", root=str(root), **options), split)


@pytest.fixture
def listing(pictures):
    """A list file of these lines, and the files they may name."""
    root = pictures("a", "b", second=True)
    (root / "far").mkdir()
    np.save(root / "far/a.npy", METRES)

    def write(*lines):
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (root / "mine.jsonl").write_text("\n".join(texts))
        return root

    return write


A, B = {"image": "images/a.png", "depth": "far/a.npy"}, {"image": "images/b.png"}


def test_lists(listing):
    root = listing(A | {"second": "images/b.png"}, A | {"key": "again"})
    source = open_folder(root, list="mine.jsonl")
    assert [sample.key for sample in source] == ["images/a", "again"]
    assert source.quantities == {"depth"} and source[1].depth[0].tolist() == METRES.tolist()
    assert source[0].second is None  # without flow nobody looks at it
    assert open_folder(listing(A, B), list="mine.jsonl").truths == ({"depth"}, frozenset())


def test_lists_with_splits(listing):
    root = listing(A | {"split": "mine"}, B | {"split": "other"})
    assert open_folder(root, "mine", list="mine.jsonl").quantities == {"depth"}
    assert [s.key for s in open_folder(root, list="mine.jsonl")] == ["images/a", "images/b"]
    with pytest.raises(UserError, match="no split 'val' .*mine 1, other 1, all 2"):
        open_folder(root, "val", list="mine.jsonl")


LISTS = {
    "empty": ([""], "split 'all' in .* is empty"),
    "not JSON": ([A, "images/b.png"], "line 2: not JSON"),
    "not an object": (["[1]"], "line 1: 'image' is missing"),
    "no image": ([{"depth": "x.npy"}], "line 1: 'image' is missing or not a text"),
    "typo": ([A | {"dept": "x"}], "line 1: unknown 'dept'. Did you mean 'depth'"),
    "not a path": ([A | {"depth": 3}], "line 1: 'depth' is missing or not a text"),
    "twice": ([A, A], "line 2: the key 'images/a' was there before"),
    "long key": ([A | {"key": "k" * 129}], "line 1: the key .* is not a text of 1 to 128 bytes"),
    "number as key": ([A | {"key": 1}], "line 1: the key 1 is not a text"),
    "half split": ([A, B | {"split": "val"}], "some lines name a split, and some do not"),
    "gone": ([A | {"image": "images/c.png"}], "images/c.png is missing"),
    "suffix": ([A | {"depth": "images/b.jpeg"}], "b.jpeg"),
}


@pytest.mark.parametrize(("lines", "reason"), LISTS.values(), ids=LISTS.keys())
def test_malformed_lists(listing, lines, reason):
    with pytest.raises(UserError, match=reason):
        open_folder(listing(*lines), list="mine.jsonl")


def test_a_listed_file_of_no_known_format(listing):
    root = listing(A | {"depth": "mine.jsonl"})
    with pytest.raises(
        DataFormatError, match=r"mine.jsonl: expected one of .png, .pgm, .pfm, .dpt"
    ):
        open_folder(root, list="mine.jsonl")[0]


def test_real_files(real_samples, tmp_path):
    """KITTI's flow and depth by way of a list; the golden values are those of their readers."""
    for name in ("kitti_flow", "kitti"):
        (tmp_path / name).symlink_to(real_samples(name))
    frames = {"image": "kitti_flow/frame1.png", "second": "kitti_flow/frame2.png"}
    line = frames | {"flow": "kitti_flow/flow_gt.png"}
    (tmp_path / "mine.jsonl").write_text(json.dumps(line))
    sample = open_folder(tmp_path, list="mine.jsonl")[0]
    u, v = (part[sample.flow_valid[0]] for part in sample.flow)
    assert sample.flow_valid.float().mean().item() == pytest.approx(0.162, abs=5e-4)
    ranges = [part.item() for part in (u.min(), u.max(), v.min(), v.max())]
    assert ranges == pytest.approx([-184.25, 74.61, -7.17, 53.27], abs=0.005)
    depth = sorted((tmp_path / "kitti/depth").iterdir())[0]
    image = next(path for path in (tmp_path / "kitti/rgb").iterdir() if path.stem == depth.stem)
    line = {"image": str(image), "depth": str(depth), "key": "kitti"}
    (tmp_path / "mine.jsonl").write_text(json.dumps(line))
    sample = open_folder(tmp_path, list="mine.jsonl", depth_scale=256.0)[0]
    assert sample.depth_valid.float().mean().item() == pytest.approx(0.21, abs=0.02)
    assert 2 < sample.depth[sample.depth_valid].min() and sample.depth.max() < 90
