"""A user's own folder: every format of truth, sparse truth, lists, and what can be wrong."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch
from writers import write_kitti_flow

from stepsight.data.table import open_source, settings_for
from stepsight.errors import DataFormatError, UserError

METRES = np.array([[0.0, 0.5, 1.0], [2.0, 4.0, 8.0]], np.float32)  # the first is missing
KNOWN = METRES > 0
FLOW = np.array([[[0, 0], [1, -2], [0.5, 3]], [[-4, 0], [2, 2], [0.25, 0]]], np.float32)
NORMALS = np.zeros((2, 3, 3), np.float32)
NORMALS[..., 2] = -1
NORMALS[0, 0] = 0  # missing
MODAL = np.array([[0, 255, 0], [0, 0, 0]], np.uint8)
AMODAL = np.array([[0, 0, 255], [0, 0, 255]], np.uint8)


def write_npy(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)
    return path


def write_floats(path, header: bytes, rows: np.ndarray):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + struct.pack(f"<{rows.size}f", *rows.ravel().tolist()))
    return path


def write_pfm(path, values):
    kind = "PF" if values.ndim == 3 else "Pf"
    return write_floats(path, f"{kind}\n3 2\n-1.0\n".encode(), values[::-1])


def open_folder(root, split="all", quantities=None, **options):
    settings = settings_for("folder", root=str(root), **options)
    return open_source(settings, split, None if quantities is None else frozenset(quantities))


def test_pictures_alone(pictures):
    root = pictures("a", "sub/b")
    (root / "images/.hidden.png").write_bytes(b"")
    (root / "images/notes.txt").write_text("mine")
    source = open_folder(root)
    assert [sample.key for sample in source] == ["a", "sub/b"]
    assert source.quantities == frozenset() and source.classes == ()
    assert source[0].depth is None and source[0].image.unique().tolist() == [6]


@pytest.mark.parametrize("suffix", ["png", "npy", "int.npy", "pfm", "dpt"])
def test_depth(pictures, write_png, suffix):
    root = pictures("a")
    path = root / f"depth/a.{suffix.rpartition('.')[2]}"
    match suffix:
        case "png":
            write_png(path, (METRES * 256).astype(np.uint16))
        case "npy":
            write_npy(path, METRES.astype(np.float64))
        case "int.npy":
            write_npy(path, (METRES * 256).astype(np.int32)[..., None])
        case "pfm":
            write_pfm(path, METRES)
        case "dpt":
            write_floats(path, b"PIEH" + struct.pack("<ii", 3, 2), METRES)
    source = open_folder(root, depth_scale=256.0)
    assert source.quantities == {"depth"}
    sample = source[0]
    assert sample.depth.dtype == torch.float32 and sample.depth[0].tolist() == METRES.tolist()
    assert sample.depth_valid[0].tolist() == KNOWN.tolist()


def test_missing_depth_of_every_kind_is_invalid_and_finite(pictures):
    root = pictures("a")
    write_npy(root / "depth/a.npy", np.array([[np.nan, np.inf, -np.inf], [-1, 0, 2]], np.float32))
    sample = open_folder(root)[0]
    assert sample.depth[0].tolist() == [[0, 0, 0], [0, 0, 2]]
    assert sample.depth_valid.sum() == 1


@pytest.mark.parametrize("kind", ["flo", "npy", "pfm", "flo5", "png"])
def test_flow(pictures, flo_bytes, kind):
    root = pictures("a", second=True)
    path = root / f"flow/a.{kind}"
    path.parent.mkdir()
    sparse = FLOW.copy()
    sparse[0, 0] = 1e10 if kind == "flo" else np.inf if kind == "pfm" else np.nan
    match kind:
        case "flo":
            path.write_bytes(flo_bytes(sparse))
        case "npy":
            write_npy(path, sparse)
        case "pfm":
            write_pfm(path, np.concatenate([sparse, np.zeros((2, 3, 1), np.float32)], axis=2))
        case "flo5":
            with pytest.importorskip("h5py").File(path, "w") as file:
                file["flow"] = sparse
        case "png":
            known = torch.ones(1, 2, 3, dtype=torch.bool)
            known[0, 0, 0] = False
            write_kitti_flow(path, torch.from_numpy(FLOW).permute(2, 0, 1), known)
    source = open_folder(root)
    sample = source[0]
    assert source.quantities == {"flow"} and sample.second.unique().tolist() == [6]
    assert sample.flow.permute(1, 2, 0).tolist() == FLOW.tolist()  # 0 where unknown
    assert sample.flow_valid[0].tolist() == KNOWN.tolist()


@pytest.mark.parametrize("kind", ["pfm", "dpt", "flo"])
def test_nan_is_unknown_in_every_format(pictures, flo_bytes, kind):
    root, name = pictures("a", second=True), "flow" if kind == "flo" else "depth"
    path = root / name / f"a.{kind}"
    path.parent.mkdir()
    sparse = np.where(KNOWN, METRES, np.nan).astype(np.float32)
    match kind:
        case "pfm":
            write_pfm(path, sparse)
        case "dpt":
            write_floats(path, b"PIEH" + struct.pack("<ii", 3, 2), sparse)
        case "flo":
            path.write_bytes(flo_bytes(np.stack([sparse, sparse], axis=-1)))
    sample = open_folder(root)[0]
    assert getattr(sample, f"{name}_valid")[0].tolist() == KNOWN.tolist()
    assert getattr(sample, name)[0].tolist() == np.where(KNOWN, METRES, 0).tolist()


def test_flow_needs_the_second_picture(pictures, flo_bytes):
    root = pictures("a")
    (root / "flow").mkdir()
    (root / "flow/a.flo").write_bytes(flo_bytes(FLOW))
    assert open_folder(root).quantities == frozenset()


@pytest.mark.parametrize("kind", ["npy", "png"])
def test_normals(pictures, write_png, kind):
    root = pictures("a")
    if kind == "npy":
        write_npy(root / "normals/a.npy", NORMALS * 3)
    else:
        stored = np.where(NORMALS.any(-1, keepdims=True), (NORMALS + 1) * 127.5, 0)
        write_png(root / "normals/a.png", stored.round().astype(np.uint8))
    sample = open_folder(root)[0]
    expected = torch.from_numpy(NORMALS).permute(2, 0, 1)
    torch.testing.assert_close(sample.normals, expected, atol=0.01, rtol=0)
    assert sample.normals_valid[0].tolist() == KNOWN.tolist()


def test_labels_and_their_number(pictures, write_png):
    root = pictures("a", "b")
    write_png(root / "labels/a.png", np.array([[0, 1, 255], [0, 0, 0]], np.uint8))
    write_png(root / "labels/b.png", np.array([[0, 6, 255], [0, 0, 0]], np.uint8))
    source = open_folder(root)
    assert source.classes == tuple("0123456")
    assert source[0].labels.tolist() == [[0, 1, 255], [0, 0, 0]]
    assert open_folder(root, classes=9).classes == tuple("012345678")
    with pytest.raises(DataFormatError, match="b.png: holds the label 6, where there are 6"):
        open_folder(root, classes=6)[1]
    assert open_folder(root, quantities=()).classes == ()


def test_the_number_of_labels_is_that_of_all_splits(pictures, write_png):
    for split, label in (("train", 2), ("val", 5)):
        root = pictures("a", split=split)
        write_png(root / split / "labels/a.png", np.full((2, 3), label, np.uint8))
    assert len(open_folder(root, "train").classes) == len(open_folder(root, "val").classes) == 6


def test_amodal_contains_modal(pictures, write_png):
    root = pictures("a")
    write_png(root / "amodal/a.png", AMODAL)
    assert open_folder(root).quantities == frozenset()  # which object, without its visible part?
    write_png(root / "modal/a.png", MODAL)
    sample = open_folder(root)[0]
    assert sample.modal[0].tolist() == (MODAL > 0).tolist() and sample.amodal.sum() == 3
    assert sample.amodal_valid.all()


def test_masks_of_what_is_valid(pictures, write_png):
    root = pictures("a")
    write_npy(root / "depth/a.npy", METRES)
    write_png(root / "depth_valid/a.png", np.array([[255, 255, 0], [0, 0, 255]], np.uint8))
    sample = open_folder(root)[0]
    assert sample.depth_valid[0].tolist() == [[False, True, False], [False, False, True]]
    write_png(root / "depth_valid/a.png", np.array([[255, 0, 0], [0, 0, 0]], np.uint8))
    with pytest.raises(DataFormatError, match="depth_valid/a.png: holds no pixel that has a value"):
        open_folder(root)[0]


def test_splits(pictures):
    pictures("a", "b", split="train")
    root = pictures("a", split="val")
    assert [s.key for s in open_folder(root)] == ["train/a", "train/b", "val/a"]
    assert [s.key for s in open_folder(root, "val")] == ["val/a"]
    with pytest.raises(UserError, match="no split 'test' .*train 2, val 1, all 3"):
        open_folder(root, "test")


def test_what_is_not_asked_for_is_not_read(pictures):
    root = pictures("a")
    (root / "depth").mkdir()
    (root / "depth/a.npy").write_bytes(b"junk")
    assert open_folder(root, quantities={"flow", "labels"})[0].depth is None


def test_missing_and_doubled_files(pictures):
    root = pictures("a", "b")
    write_npy(root / "depth/c.npy", METRES)
    with pytest.raises(UserError, match=r"depth: none of its 1 files \(c.npy\) has the name of a"):
        open_folder(root)
    write_npy(root / "depth/a.npy", METRES)
    source = open_folder(root)
    assert source.truths == ({"depth"}, frozenset()) and source[1].depth is None
    unpaired, counted = source.notes
    assert unpaired.endswith("depth: 1 of 2 files have no picture, such as c.npy")
    assert counted == "depth: 1 of 2 pictures"
    (root / "images/a.jpg").write_bytes(b"")
    with pytest.raises(DataFormatError, match="a.png: .*a.jpg has the same name"):
        open_folder(root)


def test_truth_of_a_format_that_is_not_read_is_named(pictures, write_png):
    root = pictures("a", "b")
    (root / "depth").mkdir()
    (root / "depth/a.las").write_bytes(b"LASF")
    with pytest.raises(DataFormatError, match="depth: 1 files, such as a.las, of another format"):
        open_folder(root)
    write_png(root / "depth/b.png", np.ones((2, 3), np.uint16))
    assert "a.las, of another format than .png, .pgm" in " ".join(open_folder(root).notes)


BROKEN = {
    "depth of another size": ("depth", METRES[:1], "depth/a.npy: 1 x 3 pixels, where its image"),
    "no depth": ("depth", METRES * 0, "depth/a.npy: holds no valid depth"),
    "flat depth": ("depth", METRES.ravel(), r"depth/a.npy: float32 of shape \(6,\)"),
    "depth in colour": ("depth", FLOW, "depth/a.npy: 2 channels, where depth has one"),
    "depth of truths": ("depth", KNOWN, "depth/a.npy: "),
    "flow of one channel": ("flow", METRES, "flow/a.npy: 1 channels, where flow has two"),
    "no flow": ("flow", FLOW * np.nan, "flow/a.npy: holds no known flow"),
    "flow of another size": ("flow", FLOW[:, :2], "flow/a.npy: 2 x 2 pixels, where its image"),
    "no normals": ("normals", NORMALS * 0, "normals/a.npy: holds no known normal"),
    "two of three": ("normals", NORMALS[..., :2], "normals/a.npy: 2 channels, where normals"),
}


@pytest.mark.parametrize(("kind", "values", "reason"), BROKEN.values(), ids=BROKEN.keys())
def test_malformed_arrays(pictures, kind, values, reason):
    root = pictures("a", second=True)
    write_npy(root / kind / "a.npy", values)
    with pytest.raises(DataFormatError, match=reason):
        open_folder(root)[0]


@pytest.mark.parametrize("name", ["depth/a.npy", "depth/a.dpt", "flow/a.flo", "flow/a.png"])
def test_junk_files(pictures, name):
    root = pictures("a", second=True)
    (root / name).parent.mkdir()
    (root / name).write_bytes(b"junk")
    with pytest.raises(DataFormatError, match=f"{name}: "):
        open_folder(root)[0]


def test_masks_of_another_size_or_empty(pictures, write_png):
    root = pictures("a")
    write_png(root / "modal/a.png", MODAL)
    write_png(root / "amodal/a.png", AMODAL[:1])
    with pytest.raises(DataFormatError, match="amodal/a.png: 1 x 3 pixels"):
        open_folder(root)[0]
    write_png(root / "amodal/a.png", AMODAL)
    write_png(root / "modal/a.png", MODAL * 0)
    with pytest.raises(DataFormatError, match="modal/a.png: holds no visible pixel"):
        open_folder(root)[0]
