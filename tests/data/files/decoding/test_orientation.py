"""Photographs come upright: orientation 1 to 8 in every format, by tags of EXIF written by hand."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pillow_heif
import pytest
import torch
from PIL import Image

import stepsight.data as data
from stepsight.data.decoding.images import image_size, orientation, read_image
from stepsight.data.decoding.labels import stored_labels
from stepsight.data.decoding.masks import read_mask
from stepsight.pipeline.inputs import to_tensor

SEEN = np.array([[10, 80, 150], [30, 100, 220]], np.uint8)  # what all eight pictures show
STORED = {  # EXIF 2.3: the side of what is seen that row 0 is, and the one that column 0 is
    1: SEEN,  # top, left
    2: SEEN[:, ::-1],  # top, right
    3: SEEN[::-1, ::-1],  # bottom, right
    4: SEEN[::-1],  # bottom, left
    5: SEEN.T,  # left, top
    6: SEEN[:, ::-1].T,  # right, top
    7: SEEN[::-1, ::-1].T,  # right, bottom
    8: SEEN[::-1].T,  # left, bottom
}


def exif(turn: int) -> bytes:
    """A TIFF header, and a directory of one entry: tag 0x0112, of type SHORT."""
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, turn, 0)
    return b"MM\0*\0\0\0\x08\0\x01" + entry + bytes(4)


pillow_heif.register_heif_opener(thumbnails=False)


def save(path, stored: np.ndarray, turn: int):
    """Blocks of 16 pixels, which survive compression."""
    pixels = np.kron(stored, np.ones((16, 16), np.uint8))
    lossless = {"lossless": True} if path.suffix == ".webp" else {"quality": 100}
    with Image.fromarray(pixels).convert("RGB") as image:
        image.save(path, exif=b"Exif\0\0" + exif(turn), **lossless)
    return path


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".avif", ".heic"])
def test_eight_orientations_show_the_same(tmp_path, suffix):
    for turn, stored in STORED.items():
        path = save(tmp_path / f"{turn}{suffix}", stored, turn)
        image = read_image(path)
        assert image.shape == (3, 32, 48) and image_size(path) == (32, 48)
        assert orientation(path) == turn
        assert np.abs(image[0, 8::16, 8::16].numpy().astype(int) - SEEN).max() <= 3
        with Image.open(path) as opened:
            assert torch.equal(to_tensor(opened), to_tensor(path))
        if suffix not in (".tif", ".heic"):  # which Pillow turns itself
            size = stored.shape[0] * 16, stored.shape[1] * 16
            assert read_image(path, upright=False).shape == (3, *size)


def test_masks_and_labels_are_upright_too(tmp_path):
    for turn, stored in STORED.items():
        path = tmp_path / f"{turn}.png"
        Image.fromarray(stored).save(path, exif=exif(turn))
        assert stored_labels(path).tolist() == SEEN.tolist()
        Image.fromarray((stored > 90).astype(np.uint8)).save(path, exif=exif(turn))
        assert read_mask(path)[0].tolist() == (SEEN > 90).tolist()


def test_deep_pictures_are_upright_too(tmp_path, png_bytes):
    for turn, stored in STORED.items():
        pixels = np.repeat(stored[..., None].astype(np.uint16) * 257, 3, axis=2)
        data = png_bytes(pixels)
        chunk, at = b"eXIf" + exif(turn), data.index(b"IDAT") - 4
        chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        (tmp_path / "a.png").write_bytes(data[:at] + chunk + data[at:])
        assert read_image(tmp_path / "a.png")[0].tolist() == SEEN.tolist()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("tag", [exif(0), exif(9), exif(1)[:9], b"MM\0*\xff\xff\xff\xff", b""])
def test_a_tag_that_cannot_be_read_turns_nothing(tmp_path, tag):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (24, 16)).save(path, exif=b"Exif\0\0" + tag)
    assert orientation(path) == 1 and read_image(path).shape == (3, 16, 24)


def test_a_published_set_keeps_the_stored_grid_on_which_its_truth_lies(tmp_path, write_png):
    picture, truth = "images/validation/ADE_val_00000000", "annotations/validation/ADE_val_00000000"
    (tmp_path / picture).parent.mkdir(parents=True)
    save(tmp_path / f"{picture}.jpg", STORED[6], 6)
    write_png(tmp_path / f"{truth}.png", np.ones((48, 32), np.uint8))
    sample = data.open("ade20k", tmp_path, split="val")[0]
    assert sample.image.shape == (3, 48, 32) and sample.labels.shape == (48, 32)
    assert np.abs(sample.image[0, 8::16, 8::16].numpy().astype(int) - STORED[6]).max() <= 3
