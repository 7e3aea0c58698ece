"""DSINE's evaluation sets of normals, written here byte by byte."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

import stepsight.data
from stepsight.data.readers.dsine import read_normals
from stepsight.errors import DataFormatError, UserError

AHEAD = np.array([0.0, 0.0, -1.0])  # looks at the camera: x right, y down, z forward


def exr_bytes(planes: dict[str, np.ndarray]) -> bytes:
    """Float channels "h w" as an uncompressed OpenEXR of scan lines ("OpenEXR File Layout")."""
    height, width = next(iter(planes.values())).shape

    def attribute(name: str, kind: str, value: bytes) -> bytes:
        return f"{name}\0{kind}\0".encode() + struct.pack("<i", len(value)) + value

    channels = b"".join(
        name.encode() + b"\0" + struct.pack("<iB3xii", 2, 0, 1, 1) for name in sorted(planes)
    )
    window = struct.pack("<4i", 0, 0, width - 1, height - 1)
    head = b"v/1\x01" + struct.pack("<i", 2)
    head += attribute("channels", "chlist", channels + b"\0")
    head += attribute("compression", "compression", b"\0")
    head += attribute("dataWindow", "box2i", window) + attribute("displayWindow", "box2i", window)
    head += attribute("lineOrder", "lineOrder", b"\0")
    head += attribute("pixelAspectRatio", "float", struct.pack("<f", 1))
    head += attribute("screenWindowCenter", "v2f", struct.pack("<2f", 0, 0))
    head += attribute("screenWindowWidth", "float", struct.pack("<f", 1)) + b"\0"
    lines = [
        b"".join(planes[name][y].astype("<f4").tobytes() for name in sorted(planes))
        for y in range(height)
    ]
    lines = [struct.pack("<ii", y, len(line)) + line for y, line in enumerate(lines)]
    starts = [len(head) + 8 * height + sum(map(len, lines[:y])) for y in range(height)]
    return head + struct.pack(f"<{height}Q", *starts) + b"".join(lines)


def normals(height=2, width=3) -> np.ndarray:
    """Our axes, "h w 3"; the first pixel is none."""
    vectors = np.random.default_rng(0).normal(size=(height, width, 3))
    vectors[..., 2] = -np.abs(vectors[..., 2]) - 0.2
    vectors[0, 1] = AHEAD
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    vectors[0, 0] = 0
    return vectors


def write(root: Path, write_png, name: str, exr: bool) -> None:
    theirs, path = -normals(), root / f"{name}_normal"
    write_png(root / f"{name}_img.png", np.full((2, 3, 3), 9, np.uint8))
    np.save(root / f"{name}_intrins.npy", np.eye(3))
    if exr:
        path.with_name(path.name + ".exr").write_bytes(
            exr_bytes({c: theirs[..., i] for i, c in enumerate("RGB")})
        )
    else:
        stored = np.round((theirs + 1) / 2 * 255).astype(np.uint8)
        stored[0, 0] = 0
        write_png(path.with_name(path.name + ".png"), stored)


@pytest.mark.parametrize(
    ("name", "folder", "split", "exr"),
    [
        ("dsine_nyuv2", "test", "test", False),
        ("dsine_scannet", "scene0532_00", "test", False),
        ("dsine_ibims", "ibims", "all", True),
        ("dsine_sintel", "alley_1", "all", True),
    ],
)
def test_sets(tmp_path, write_png, name, folder, split, exr):
    write(tmp_path / folder, write_png, "000000", exr)
    (tmp_path / "readme.txt").write_text("Ground truth normals\n")
    source = stepsight.data.open(name, str(tmp_path), split=split)
    sample = source[0]
    assert sample.key == f"{folder}/000000" and len(source) == 1
    valid = np.ones((2, 3), bool)
    valid[0, 0] = False
    assert np.array_equal(sample.normals_valid[0], valid)
    close = 1e-6 if exr else 0.01  # of 8 bits
    assert sample.normals.permute(1, 2, 0).numpy() == pytest.approx(normals(), abs=close)
    assert sample.normals[2, 0, 1] < -0.99  # at the camera


def test_lists_are_followed(tmp_path, write_png):
    for number in range(3):
        write(tmp_path / "test", write_png, f"{number:06d}", exr=False)
    (tmp_path / "test.txt").write_text("test/000002_img.png\ntest/000000_img.png")
    source = stepsight.data.open("dsine_nyuv2", str(tmp_path), split="test")
    assert [s.key for s in source] == ["test/000002", "test/000000"]


def test_wrong_layouts(tmp_path, write_png):
    write(tmp_path / "scene0532_00", write_png, "000000", exr=False)
    with pytest.raises(UserError, match="split 'test' .* is empty"):
        stepsight.data.open("dsine_nyuv2", str(tmp_path), split="test")
    with pytest.raises(DataFormatError, match="000000_normal.exr is missing"):
        stepsight.data.open("dsine_ibims", str(tmp_path), split="all")
    path = tmp_path / "one.exr"
    path.write_bytes(exr_bytes({"Y": np.ones((2, 3))}))
    with pytest.raises(DataFormatError, match=r"one.exr: 1 channels, where normals have three"):
        read_normals(path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataFormatError, match="one.exr: damaged"):
        read_normals(path)


def test_grey_is_a_direction_as_in_the_original(tmp_path, write_png):
    """A vector of almost no length counts, as the mask of the original is 'not black'."""
    write_png(tmp_path / "a.png", np.full((1, 2, 3), 127, np.uint8))
    vectors, valid = read_normals(tmp_path / "a.png")
    assert valid.all() and torch.allclose(vectors.norm(dim=0), torch.ones(1, 2))
