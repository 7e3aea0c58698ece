"""Points in space, read back by plyfile, and the cameras that pictures state."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from plyfile import PlyData

from stepsight.errors import UserError
from stepsight.predicting.points import Intrinsics, intrinsics, write_ply

CAMERA = Intrinsics(50.0, 60.0, 4.0, 3.0, "a test")


def test_another_reader_finds_every_point_where_its_pixel_looks(tmp_path):
    draw = torch.Generator().manual_seed(1)
    depth = 1 + 4 * torch.rand(1, 6, 8, generator=draw)
    picture = torch.randint(0, 256, (3, 6, 8), generator=draw, dtype=torch.uint8)
    assert write_ply(tmp_path / "a.ply", depth, picture, CAMERA) == 48
    found = PlyData.read(tmp_path / "a.ply")
    points = found["vertex"].data
    assert not found.text and found.byte_order == "<" and len(points) == 48
    rows, columns = np.divmod(np.arange(48), 8)
    z = depth.numpy().reshape(-1)
    np.testing.assert_allclose(points["z"], z, rtol=1e-6)
    np.testing.assert_allclose(points["x"] * 50 / z + 4, columns + 0.5, rtol=1e-5)
    np.testing.assert_allclose(points["y"] * 60 / z + 3, rows + 0.5, rtol=1e-5)
    seen = np.stack([points[name] for name in ("red", "green", "blue")])
    assert np.array_equal(seen, picture.numpy().reshape(3, -1))
    assert any("metres; x right, y down" in comment for comment in found.comments)


def test_pixels_without_depth_and_those_far_away_are_left_out(tmp_path):
    depth = torch.full((1, 4, 5), 2.0)
    depth[0, 0] = torch.tensor([0.0, -1.0, torch.nan, torch.inf, 200.0])
    picture = torch.zeros(3, 4, 5, dtype=torch.uint8)
    assert write_ply(tmp_path / "a.ply", depth, picture, CAMERA) == 15
    assert write_ply(tmp_path / "a.ply", depth, picture, CAMERA, far=1e3) == 16
    assert write_ply(tmp_path / "a.ply", depth, picture, CAMERA, far=1.0) == 0
    assert write_ply(tmp_path / "a.ply", 0 * depth, picture, CAMERA) == 0
    assert len(PlyData.read(tmp_path / "a.ply")["vertex"].data) == 0


def test_relative_depth_is_called_so(tmp_path):
    depth, picture = torch.ones(1, 2, 2), torch.zeros(3, 2, 2, dtype=torch.uint8)
    write_ply(tmp_path / "a.ply", depth, picture, CAMERA, relative=True)
    comments = PlyData.read(tmp_path / "a.ply").comments
    assert any("up to scale and shift" in one for one in comments)
    assert not any("metres" in one for one in comments)


@pytest.mark.parametrize(("fov", "focal"), [(90.0, 320.0), (60.0, 320 / math.tan(math.pi / 6))])
def test_a_stated_field_of_view_is_horizontal(fov, focal):
    camera = intrinsics("nowhere.png", (480, 640), fov)
    assert camera.fx == camera.fy == pytest.approx(focal)
    assert (camera.cx, camera.cy) == (320, 240)


def test_what_is_given_counts_before_all_else():
    camera = intrinsics("nowhere.png", (480, 640), 60, (500.0, 510.0, 300.0, 200.0))
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (500, 510, 300, 200)


def photograph(folder: Path, tags: dict[int, object], size: tuple[int, int] = (64, 48)) -> Path:
    """A JPEG that states `tags`, by number."""
    image = Image.new("RGB", size)
    exif = image.getexif()
    exif.get_ifd(0x8769).update(tags)
    image.save(folder / "a.jpg", exif=exif)
    return folder / "a.jpg"


TAKEN = {0xA002: 640, 0xA003: 480}  # as a camera took it, ten times as large
FILM = {0xA405: 26}
PLANE = {0x920A: 4.2, 0xA20E: 100.0, 0xA210: 4}  # 4.2 mm at 100 cells a mm


def test_equivalent_focal_lengths_are_of_the_diagonal(tmp_path):
    camera = intrinsics(photograph(tmp_path, FILM), (48, 64))
    assert camera.fx == pytest.approx(26 / math.hypot(36, 24) * 80)
    assert "35 mm equivalent" in camera.source
    upright = intrinsics(photograph(tmp_path, FILM | TAKEN), (64, 48))  # taken lying
    assert upright.fx == pytest.approx(camera.fx) and upright.cx == 24


@pytest.mark.parametrize(("unit", "cells"), [(4, 100.0), (3, 1000.0), (2, 2540.0), (5, 0.1)])
def test_cells_of_the_focal_plane_are_counted_in_their_unit(unit, cells, tmp_path):
    path = photograph(tmp_path, TAKEN | PLANE | {0xA210: unit, 0xA20E: cells})
    camera = intrinsics(path, (48, 64))
    assert camera.fx == pytest.approx(42) and "focal plane" in camera.source


@pytest.mark.parametrize(
    ("tags", "size", "message"),
    [
        ({}, (48, 64), "states no focal length.*--fov DEGREES.*--intrinsics"),
        (FILM | TAKEN | PLANE | {0x920A: 9.0}, (48, 64), "48 pixels.* and 90 pixels"),
        (FILM | {0xA002: 640, 0xA003: 640}, (48, 64), "it was cropped"),
        ({0xA405: 0}, (48, 64), "states no focal length"),
    ],
)
def test_what_a_file_does_not_say_is_asked_for(tags, size, message, tmp_path):
    with pytest.raises(UserError, match=message):
        intrinsics(photograph(tmp_path, tags), size)


def test_numbers_that_no_camera_has(tmp_path):
    for fov in (0, 180, -5, math.nan):
        with pytest.raises(UserError, match="field of view"):
            intrinsics("a.png", (4, 4), fov)
    for given in ((1, 2, 3), (0, 1, 2, 3), (1, math.inf, 2, 3)):
        with pytest.raises(UserError, match="fx,fy,cx,cy"):
            intrinsics("a.png", (4, 4), given=given)
    (tmp_path / "b.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match="states no focal length"):
        intrinsics(tmp_path / "b.png", (4, 4))
