"""Units and codes of depth, flow and normals as a user says them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from stepsight.data.decoding.truth import parse_depth_unit, read_depth, read_flow, read_normals
from stepsight.data.table import open_source, settings_for
from stepsight.errors import DataFormatError, UserError

STORED = np.array([[0, 256, 512], [1024, 65535, 128]], np.uint16)


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
@pytest.mark.parametrize(
    ("unit", "metres"),
    [
        ("m", STORED / 1.0),
        ("cm", STORED / 100),
        ("mm", STORED / 1000),
        ("1/256", STORED / 256),
        ("1/5000", STORED / 5000),
        ("disparity", 1 / np.maximum(STORED, 1e-9)),
        ("512/disparity", 512 / np.maximum(STORED, 1e-9)),
        ("1.5e3/disparity", 1500 / np.maximum(STORED, 1e-9)),
    ],
)
def test_units_of_depth(tmp_path, unit, metres, kind):
    np.save(tmp_path / "a.npy", STORED.astype(kind))
    depth, valid = read_depth(tmp_path / "a.npy", unit=unit)
    assert valid[0].tolist() == (STORED > 0).tolist()
    np.testing.assert_allclose(depth[0], np.where(STORED > 0, metres, 0), rtol=1e-6)


def test_without_a_unit_whole_numbers_have_the_scale_and_floats_are_metres(tmp_path):
    np.save(tmp_path / "a.npy", STORED)
    np.save(tmp_path / "b.npy", STORED.astype(np.float64))
    assert read_depth(tmp_path / "a.npy", 256.0)[0][0, 0].tolist() == [0, 1, 2]
    assert read_depth(tmp_path / "b.npy", 256.0)[0][0, 0].tolist() == [0, 256, 512]


@pytest.mark.parametrize(
    "unit", ["km", "1/", "1/0", "2/256", "1/inf", "1/-3", "0/disparity", "x/disparity", "256"]
)
def test_other_units_are_named(unit):
    with pytest.raises(UserError, match=f"depth_unit={unit} is none of m, cm, mm, 1/N"):
        parse_depth_unit(unit)


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32, np.float64])
def test_values_that_stand_for_none(tmp_path, kind):
    values = STORED.astype(kind)
    invalid = (65535.0, 0.1, -1.0)
    if kind in (np.float32, np.float64):
        values[0, 1] = 0.1  # as the type rounds it
    np.save(tmp_path / "a.npy", values)
    _, valid = read_depth(tmp_path / "a.npy", invalid=invalid)
    assert valid[0].tolist() == ((STORED > 0) & (STORED < 65535) & (values != kind(0.1))).tolist()
    np.save(tmp_path / "a.npy", np.full((2, 2), 7, kind))
    with pytest.raises(DataFormatError, match="a.npy: holds no valid depth"):
        read_depth(tmp_path / "a.npy", invalid=(7.0,))


def test_flow_in_shares_of_the_picture_and_its_code(tmp_path):
    flow = np.array([[[0.5, 0.25], [-99, 0]], [[0, -1], [np.inf, 0]], [[0, 0]] * 2], np.float32)
    np.save(tmp_path / "a.npy", flow)
    pixels, valid = read_flow(tmp_path / "a.npy", "normalised", (-99.0,))
    assert valid[0].tolist() == [[True, False], [True, False], [True, True]]
    assert pixels[0].tolist() == [[1, 0], [0, 0], [0, 0]]  # of 2 columns
    assert pixels[1].tolist() == [[0.75, 0], [-3, 0], [0, 0]]  # of 3 rows


def test_normals_of_sixteen_bits_and_their_code(tmp_path, write_png):
    stored = np.array([[[32768, 32768, 65535], [65535, 32768, 32768], [0, 0, 0]]], np.uint16)
    normals, valid = read_normals(write_png(tmp_path / "a.png", stored))
    assert valid[0].tolist() == [[True, True, False]]
    np.testing.assert_allclose(normals[:, 0, 0], [0, 0, 1], atol=2e-5)
    np.testing.assert_allclose(normals[:, 0, 1], [1, 0, 0], atol=2e-5)
    np.save(tmp_path / "a.npy", np.array([[[0, 0, 1], [-9, -9, -9]]], np.float32))
    assert read_normals(tmp_path / "a.npy", (-9.0,))[1].tolist() == [[[True, False]]]


def test_a_folder_reads_as_it_is_told(pictures, write_png, tmp_path):
    root = pictures("a", second=True)
    write_png(root / "depth/a.png", STORED)
    (root / "flow").mkdir()
    np.save(root / "flow/a.npy", np.full((2, 3, 2), 0.5, np.float32))
    told = {"depth_unit": "1/256", "flow_unit": "normalised", "invalid": (65535.0,)}
    sample = open_source(settings_for("folder", root=str(root), **told), "all")[0]
    assert sample.depth[0].tolist() == [[0, 1, 2], [4, 0, 0.5]]
    assert sample.depth_valid.sum() == 4
    assert sample.flow[:, 0, 0].tolist() == [1.5, 1.0]


def test_depth_that_is_grey_written_thrice(tmp_path):
    values = np.repeat(STORED[..., None], 3, -1).astype(np.float32)
    np.save(tmp_path / "a.npy", values)
    assert read_depth(tmp_path / "a.npy")[0][0].tolist() == STORED.tolist()
    values[0, 1, 2] += 1
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(DataFormatError, match="a.npy: 3 channels, where depth has one"):
        read_depth(tmp_path / "a.npy")
    Image.fromarray((STORED % 251).astype(np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(DataFormatError, match="a.png: 8-bit grey, where depth needs 16-bit"):
        read_depth(tmp_path / "a.png")
