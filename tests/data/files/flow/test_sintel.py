"""MPI-Sintel: written here, and read by torchvision for comparison."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from torchvision.datasets import Sintel as Reference

from stepsight.data.readers.config import SintelSettings
from stepsight.data.readers.flow.sintel import Sintel
from stepsight.errors import DataFormatError, UserError

SCENES = {"alley_1": 3, "market_5": 2}  # frames of each


def dpt_bytes(depth: np.ndarray) -> bytes:
    header = struct.pack("<fii", 202021.25, depth.shape[1], depth.shape[0])
    return header + struct.pack(f"<{depth.size}f", *depth.ravel().tolist())


@pytest.fixture
def root(tmp_path, write_png, flo_bytes):
    """Random pictures, flow and depth; one pixel hidden, another's flow wrong."""
    rng = np.random.default_rng(0)
    root = tmp_path / "Sintel"
    hidden, wrong = np.zeros((2, 4, 6), np.uint8)
    hidden[0, 1], wrong[2, 3] = 255, 255
    for scene, frames in sorted(SCENES.items(), reverse=True):
        for number in range(1, frames + 1):
            name = f"{scene}/frame_{number:04d}"
            for folder in ("training/clean", "training/final", "test/clean", "test/final"):
                picture = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
                write_png(root / folder / f"{name}.png", picture)
            write_png(root / f"training/invalid/{name}.png", wrong)
            depth, flow = rng.uniform(1, 90, (4, 6)), rng.normal(0, 9, (4, 6, 2))
            truth = {"depth": (dpt_bytes(depth), "dpt")}
            if number < frames:
                write_png(root / f"training/occlusions/{name}.png", hidden)
                truth["flow"] = flo_bytes(flow), "flo"
            for folder, (data, suffix) in truth.items():
                path = root / "training" / folder / f"{name}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
    return root


def open_at(root, split="train", quantities=None, **options):
    return Sintel(SintelSettings(root=str(root), **options), split, quantities)


@pytest.mark.parametrize("render", ["clean", "final"])
def test_agrees_with_torchvision(root, render, monkeypatch):
    listed = sorted(SCENES)
    monkeypatch.setattr("os.listdir", lambda folder: listed)  # torchvision leaves them unsorted
    reference = Reference(str(root.parent), pass_name=render)
    monkeypatch.undo()
    source = open_at(root, render=render)
    assert len(source) == len(reference) == 3
    for sample, (first, second, flow) in zip(source, reference):
        assert np.array_equal(sample.image.permute(1, 2, 0), np.array(first))
        assert np.array_equal(sample.second.permute(1, 2, 0), np.array(second))
        assert np.array_equal(sample.flow, flow)


def test_pairs_masks_and_depth(root):
    source = open_at(root)
    keys = ["alley_1/frame_0001", "alley_1/frame_0002", "market_5/frame_0001"]
    assert source.quantities == {"flow", "depth"} and [s.key for s in source] == keys
    sample = source[1]
    assert sample.occluded.nonzero().tolist() == [[0, 0, 1]]
    assert (~sample.flow_valid).nonzero().tolist() == [[0, 2, 3]]
    stored = (root / "training/depth/alley_1/frame_0002.dpt").read_bytes()[12:]
    assert sample.depth.numpy().tobytes() == stored and sample.depth_valid.all()


def test_depth_alone_has_every_frame(root):
    source = open_at(root, quantities=frozenset({"depth"}))
    assert len(source) == 5 and source.published["train"] == 1064
    sample = source[2]
    assert sample.key == "alley_1/frame_0003" and sample.second is None and sample.flow is None


def test_archives_that_were_not_unpacked(root):
    for folder in ("depth", "occlusions", "invalid"):
        (root / "training" / folder).rename(root / folder)
    source = open_at(root)
    assert source.quantities == {"flow"} and source.published["train"] == 1041
    assert source[0].occluded is None and source[0].flow_valid.all() and source[0].depth is None


def test_test_split_has_nothing_to_score(root):
    source = open_at(root, "test", frozenset({"flow"}))
    assert source.quantities == frozenset() and len(source) == 3
    assert source[0].second is not None and source[0].flow is None
    assert [s.key for s in open_at(root, "all")] == [s.key for s in open_at(root)]


def test_depth_without_end_is_invalid(root):
    depth = np.array([[0, -1, np.inf, 5, 6, 7]] * 4)
    (root / "training/depth/alley_1/frame_0001.dpt").write_bytes(dpt_bytes(depth))
    assert open_at(root)[0].depth_valid[0, 0].tolist() == [False] * 3 + [True] * 3


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (dpt_bytes(np.ones((4, 6)))[:-1], "the file has"),
        (b"\0" + dpt_bytes(np.ones((4, 6)))[1:], "not a .dpt"),
        (dpt_bytes(np.ones((4, 5))), "4 x 5 pixels"),
        (dpt_bytes(np.full((4, 6), np.nan)), "NaN"),
        (dpt_bytes(np.zeros((4, 6))), "no valid depth"),
    ],
)
def test_malformed_depth(root, data, reason):
    (root / "training/depth/alley_1/frame_0001.dpt").write_bytes(data)
    with pytest.raises(DataFormatError, match=f"alley_1/frame_0001.dpt: .*{reason}"):
        open_at(root)[0]


def test_malformed_flow_and_masks(root, write_png, flo_bytes):
    flow = root / "training/flow/alley_1/frame_0001.flo"
    whole = flow.read_bytes()
    for data, reason in ((whole[:-1], "the file has"), (flo_bytes(np.zeros((3, 6, 2))), "3 x 6")):
        flow.write_bytes(data)
        with pytest.raises(DataFormatError, match=f"frame_0001.flo: .*{reason}"):
            open_at(root)[0]
    flow.write_bytes(whole)
    write_png(root / "training/invalid/alley_1/frame_0001.png", np.full((4, 6), 255, np.uint8))
    with pytest.raises(DataFormatError, match="frame_0001.png: holds no valid flow"):
        open_at(root)[0]


def test_missing_files(root):
    for name in ("clean/alley_1/frame_0002.png", "flow/alley_1/frame_0001.flo"):
        path = root / "training" / name
        path.rename(root / "away")
        with pytest.raises(UserError, match=f"sintel: {path} is missing"):
            open_at(root)
        (root / "away").rename(path)
    (root / "training/clean/alley_1/frame_!.png").touch()
    with pytest.raises(DataFormatError, match="frame_!.png: its name does not end"):
        open_at(root)


def test_unknown_and_empty_splits(root):
    with pytest.raises(UserError, match="no split 'val' .*train 3, all 3"):
        open_at(root, "val")
    (root / "test").rename(root / "away")
    with pytest.raises(UserError, match="split 'test' .* is empty"):
        open_at(root, "test")
