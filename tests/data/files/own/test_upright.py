"""Truth on other grids than its picture: coarser, turned with a photograph's orientation, wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from stepsight.data.fields import row_of
from stepsight.data.readers.own.upright import same_shape, turned
from stepsight.data.table import open_source, settings_for
from stepsight.errors import DataFormatError

ORIENTATION = 0x0112  # of EXIF


@pytest.fixture
def sample_of(tmp_path):
    """The sample of a photograph and truths by folder: arrays for .npy, pictures for .png."""

    def sample(photograph, turn=1, **truths):
        exif = Image.Exif()
        exif[ORIENTATION] = turn
        (tmp_path / "images").mkdir(exist_ok=True)
        photograph.save(tmp_path / "images/a.jpg", exif=exif, quality=100)
        for name, value in truths.items():
            (tmp_path / name).mkdir(exist_ok=True)
            if isinstance(value, Image.Image):
                value.save(tmp_path / name / "a.png")
            else:
                np.save(tmp_path / name / "a.npy", value)
        return open_source(settings_for("folder", root=str(tmp_path)), "all")[0]

    return sample


def picture(height, width):
    return Image.new("RGB", (width, height), (90, 120, 30))


@pytest.mark.parametrize(
    ("own", "whole", "alike"),
    [
        ((480, 640), (968, 1296), True),  # depth and colour of ScanNet
        ((192, 256), (1440, 1920), True),  # of an iPhone
        ((375, 1242), (188, 621), True),  # halves of odd sides
        ((436, 1024), (436, 1024), True),
        ((480, 640), (640, 480), False),
        ((480, 640), (480, 480), False),
        ((2, 2), (2, 3), False),
        ((480, 640), (1080, 1920), False),
    ],
)
def test_what_is_the_same_shape(own, whole, alike):
    assert same_shape(own, whole) == alike == same_shape(whole, own)


def test_coarser_truth_is_picked_and_flow_is_scaled(sample_of, capfd):
    depth = np.array([[0, 2], [3, 4]], np.float32)
    labels = Image.fromarray(np.array([[0, 1], [255, 1]], np.uint8))
    sample = sample_of(picture(4, 4), depth=depth, labels=labels)
    rows = np.repeat(np.repeat(depth, 2, 0), 2, 1)
    assert sample.depth[0].tolist() == rows.tolist()
    assert sample.depth_valid[0].tolist() == (rows > 0).tolist()
    assert sample.labels[::2, ::2].tolist() == [[0, 1], [255, 1]]
    said = capfd.readouterr().err
    assert "depth has 2 x 2 pixels at pictures of 4 x 4" in said and "labels has" in said


def test_coarser_flow_is_scaled(sample_of, tmp_path):
    flow = np.array([[[1, 2], [np.nan, 0]], [[3, 4], [5, 6]]], np.float32)
    (tmp_path / "second").mkdir()
    picture(4, 6).save(tmp_path / "second/a.jpg")
    with pytest.raises(DataFormatError, match="flow/a.npy: 2 x 2 pixels, where its image has 4 x"):
        sample_of(picture(4, 6), flow=flow)
    picture(4, 4).save(tmp_path / "second/a.jpg")
    sample = sample_of(picture(4, 4), flow=flow)
    assert sample.flow[:, 0, 0].tolist() == [2, 4] and sample.flow[:, 3, 3].tolist() == [10, 12]
    assert sample.flow_valid[0].int().tolist() == [[1, 1, 0, 0]] * 2 + [[1, 1, 1, 1]] * 2


@pytest.mark.parametrize("turn", [5, 6, 7, 8])
def test_truth_on_the_stored_grid_is_turned_along(sample_of, turn, capfd):
    """As Pillow turns a picture of the same values."""
    stored = np.arange(1, 16, dtype=np.float32).reshape(3, 5)
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    image = Image.fromarray(stored)
    image.getexif()[ORIENTATION] = turn
    expected = np.asarray(ImageOps.exif_transpose(image))
    sample = sample_of(picture(3, 5), turn, depth=stored)
    assert sample.image.shape == (3, 5, 3) and sample.depth[0].tolist() == expected.tolist()
    assert f"EXIF orientation {turn}: it is turned along" in capfd.readouterr().err
    upright = sample_of(picture(3, 5), turn, depth=expected)
    assert upright.depth[0].tolist() == expected.tolist()


@pytest.mark.parametrize("turn", [2, 3, 4, 6])
def test_truth_over_the_upright_picture_stays(sample_of, turn, capfd):
    drawn = np.arange(1, 16, dtype=np.float32).reshape((5, 3) if turn == 6 else (3, 5))
    sample = sample_of(picture(3, 5), turn, depth=drawn)
    assert sample.depth[0].tolist() == drawn.tolist()
    assert "taken as drawn over the upright picture" in capfd.readouterr().err


def test_a_quarter_turn_without_an_orientation_is_refused(sample_of):
    with pytest.raises(DataFormatError, match="a.npy: 5 x 3 pixels, a quarter turn from its image"):
        sample_of(picture(3, 5), depth=np.ones((5, 3), np.float32))


@pytest.mark.parametrize("turn", [5, 6, 7, 8])
def test_vectors_turn_with_their_grid(turn):
    """A point and where its vector leads are turned as points: the difference is the vector."""
    height, width = 4, 7
    point, end = (1, 2), (3, 6)  # row, column
    flow = torch.zeros(2, height, width)
    flow[:, point[0], point[1]] = torch.tensor([end[1] - point[1], end[0] - point[0]])
    marks = torch.zeros(2, height, width)
    marks[0][point], marks[1][end] = 1, 1
    where = [mark.nonzero()[0] for mark in turned(marks, turn, vectors=False)]
    moved = turned(flow.float(), turn, vectors=bool(row_of("flow").negated))
    vector = moved[:, where[0][0], where[0][1]]
    assert vector.tolist() == (where[1] - where[0]).flip(0).tolist()
