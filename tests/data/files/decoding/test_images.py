"""Pictures: exact bytes in, exact values out, and a named error for everything else."""

from __future__ import annotations

import io
import random
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from writers import write_ids

from stepsight.data.decoding import images
from stepsight.data.decoding.images import (
    image_size,
    read_depth_png,
    read_gray,
    read_ids,
    read_image,
    read_labels,
    write_image,
    write_png16,
)
from stepsight.data.decoding.masks import read_mask
from stepsight.errors import DataFormatError, UserError


def test_rgb_png_is_read_exactly(tmp_path, write_png, rgb):
    image = read_image(write_png(tmp_path / "a.png", rgb))
    assert image.dtype == torch.uint8
    assert image.permute(1, 2, 0).tolist() == rgb.tolist()


def test_ppm_is_read_exactly(tmp_path, write_ppm, rgb):
    image = read_image(write_ppm(tmp_path / "a.ppm", rgb))
    assert image.permute(1, 2, 0).tolist() == rgb.tolist()


def test_sixteen_bits_are_kept(tmp_path, write_png, deep):
    path = write_png(tmp_path / "a.png", deep)
    for read in (read_gray, read_depth_png):
        assert read(path).dtype == torch.uint16
        assert read(path)[0].tolist() == deep.tolist()


def test_eight_bit_grey_stays_eight_bit_and_expands_in_pictures(tmp_path, write_png):
    grey = np.array([[0, 127, 128, 255]], np.uint8)
    path = write_png(tmp_path / "a.png", grey)
    assert read_gray(path).dtype == torch.uint8 and read_gray(path)[0].tolist() == grey.tolist()
    assert read_image(path).tolist() == [grey.tolist()] * 3
    assert read_mask(path).tolist() == [[[False, False, True, True]]]


@pytest.mark.parametrize("mode", ["P", "LA", "RGBA"])
def test_alpha_and_palettes_become_rgb(tmp_path, mode, rgb):
    with Image.fromarray(rgb).convert("L").convert(mode) as image:
        image.save(tmp_path / "a.png", transparency=bytes(9) if mode == "P" else None)
    expected = torch.from_numpy(np.array(Image.fromarray(rgb).convert("L")))
    assert torch.equal(read_image(tmp_path / "a.png"), expected.expand(3, 5, 7))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_printed_jpeg_become_rgb(tmp_path, mode):
    colour = (90, 90, 90) if mode == "L" else (30, 120, 210)
    Image.new("RGB", (16, 8), colour).convert(mode).save(tmp_path / "a.jpg", quality=100)
    image = read_image(tmp_path / "a.jpg")
    assert image.shape == (3, 8, 16)
    assert (image.float() - torch.tensor(colour)[:, None, None]).abs().max() <= 2


def test_writers_round_trip(tmp_path, rgb, deep):
    image, depth = torch.from_numpy(rgb).permute(2, 0, 1), torch.from_numpy(deep)[None]
    write_image(tmp_path / "a.png", image)
    write_png16(tmp_path / "b.png", depth)
    assert torch.equal(read_image(tmp_path / "a.png"), image)
    assert read_depth_png(tmp_path / "b.png").tolist() == depth.tolist()


def test_writers_name_what_they_cannot_write(tmp_path):
    image = torch.zeros(3, 2, 2, dtype=torch.uint8)
    for path in (tmp_path / "no such folder" / "a.png", tmp_path / "a.unheard-of"):
        with pytest.raises(UserError, match=str(path)):
            write_image(path, image)


def test_wrong_depth_or_colour_is_refused(tmp_path, write_png, rgb, deep):
    shallow = write_png(tmp_path / "shallow.png", deep.astype(np.uint8))
    rgb16 = write_png(tmp_path / "rgb16.png", rgb.astype(np.uint16) * 257)
    colour = write_png(tmp_path / "colour.png", rgb)
    wrong = [(read_depth_png, shallow), (read_gray, colour), (read_gray, rgb16), (read_mask, rgb16)]
    for read, path in wrong:
        with pytest.raises(DataFormatError, match=f"{path.name}: .*-bit"):
            read(path)


def test_floating_netpbm_is_refused(tmp_path):
    (tmp_path / "float.pfm").write_bytes(b"Pf\n2 1\n-1.0\n" + bytes(8))
    for read in (read_image, read_gray):
        with pytest.raises(DataFormatError, match="float.pfm"):
            read(tmp_path / "float.pfm")


@pytest.mark.parametrize("keep", [0, 4, 8, 30, 0.5, 0.9, -1])
def test_truncated_png(tmp_path, png_bytes, rgb, keep):
    data = png_bytes(rgb)
    path = tmp_path / "cut.png"
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(DataFormatError, match="cut.png"):
        read_image(path)


@pytest.mark.parametrize("format", ["JPEG", "PPM", "WEBP"])
def test_truncated_others(tmp_path, format):
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, format)
    path = tmp_path / "cut"
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(DataFormatError, match="cut"):
        read_image(path)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"<!DOCTYPE html><html>", "a page of the web"),
        (b"version https://git-lfs", "git lfs pull"),
        (b"\0" * 99, ""),
        (b"v/1\x01" + bytes(9), "an EXR, whose light has no largest value"),
        (b"II*\0" + bytes(99), "a TIFF of other than 8 or 16 whole bits"),
    ],
)
def test_not_a_picture(tmp_path, data, why):
    path = tmp_path / "page.png"
    path.write_bytes(data)
    with pytest.raises(DataFormatError, match=f"page.png: not a readable .*starts with.*{why}"):
        read_image(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UserError, match="none.png.*No such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(UserError, match="cannot be read"):
        read_gray(tmp_path)


@pytest.mark.parametrize("side", [9000, 1 << 20])
def test_pixel_bomb_is_refused_before_decoding(tmp_path, png_bytes, side):
    """A header that claims more pixels than allowed, with a valid CRC and hardly any data."""
    data = bytearray(png_bytes(np.zeros((1, 1), np.uint8)))
    struct.pack_into(">II", data, 16, side, side)
    struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    path = tmp_path / "bomb.png"
    path.write_bytes(data)
    with pytest.raises(DataFormatError, match="bomb.png.*(pixels are too many|too many pixels)"):
        read_gray(path)


def test_own_pixel_limit(tmp_path, write_png, rgb, monkeypatch):
    path = write_png(tmp_path / "a.png", rgb)
    monkeypatch.setattr(images, "MAX_PIXELS", 34)
    with pytest.raises(DataFormatError, match="7 x 5 pixels are too many"):
        read_image(path)


def test_every_flipped_bit_of_a_png_is_noticed(tmp_path, png_bytes, deep, rgb):
    path, rng = tmp_path / "flipped.png", random.Random(0)
    for data in (png_bytes(deep), png_bytes(rgb)):
        for bit in rng.sample(range(8 * len(data)), 300):
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            for read in (read_image, read_gray):
                with pytest.raises(DataFormatError, match="flipped.png"):
                    read(path)


@pytest.mark.parametrize("format", ["JPEG", "PPM", "WEBP"])
def test_flipped_bits_of_others_give_a_picture_or_an_error(tmp_path, format, rgb):
    buffer, path, rng = io.BytesIO(), tmp_path / "flipped", random.Random(0)
    Image.fromarray(rgb).save(buffer, format)
    for _ in range(300):
        flipped = bytearray(buffer.getvalue())
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        try:
            assert read_image(path).ndim == 3
        except DataFormatError as error:
            assert "flipped" in str(error)


def test_damage_under_a_correct_crc(tmp_path):
    """Compressed data that is garbage, cut short, or filtered by an unknown rule."""
    header = struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0)
    for data in (b"garbage", zlib.compress(bytes(7)), zlib.compress(b"\x09" * 20), b""):
        chunks = [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
        path = tmp_path / "valid-crc.png"
        path.write_bytes(
            b"\x89PNG\r\n\x1a\n"
            + b"".join(
                struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d))
                for k, d in chunks
            )
        )
        with pytest.raises(DataFormatError, match="valid-crc.png"):
            read_gray(path)


def test_header_must_come_first(tmp_path):
    end = b"IEND"
    path = tmp_path / "headless.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\0" + end + struct.pack(">I", zlib.crc32(end)))
    with pytest.raises(DataFormatError, match="header chunk"):
        read_image(path)


def test_labels_are_palette_indices_or_grey_values(tmp_path, write_png):
    indices = np.array([[0, 1, 15], [20, 255, 3]], np.uint8)
    palette = Image.new("P", (3, 2))
    palette.putdata(indices.ravel().tolist())
    palette.putpalette([255 - i // 3 for i in range(768)])
    palette.save(tmp_path / "palette.png")
    write_png(tmp_path / "grey.png", indices)
    for name in ("palette", "grey"):
        labels = read_labels(tmp_path / f"{name}.png")
        assert labels.dtype == torch.uint8 and labels.tolist() == [indices.tolist()]


def test_labels_and_ids_refuse_other_pictures(tmp_path, write_png, rgb, deep):
    colour, grey16 = write_png(tmp_path / "colour.png", rgb), write_png(tmp_path / "deep.png", deep)
    for read, path in ((read_labels, colour), (read_labels, grey16), (read_ids, grey16)):
        with pytest.raises(DataFormatError, match=f"{path.name}: .*expected"):
            read(path)


def test_ids_are_spread_over_the_channels(tmp_path, write_png):
    pixels = np.array([[[1, 0, 0], [0, 1, 0]], [[0, 0, 1], [255, 255, 255]]], np.uint8)
    path = write_png(tmp_path / "a.png", pixels)
    ids = torch.tensor([[[1, 256], [65536, (1 << 24) - 1]]])
    assert torch.equal(read_ids(path), ids)
    write_ids(tmp_path / "b.png", ids)
    assert np.array_equal(np.array(Image.open(tmp_path / "b.png")), pixels)


def test_size_from_the_header_alone(tmp_path, png_bytes, write_ppm, rgb, rgb16):
    data = png_bytes(rgb16)
    (tmp_path / "cut.png").write_bytes(data[: data.index(b"IDAT") + 8])
    assert image_size(tmp_path / "cut.png") == (2, 3)
    assert image_size(write_ppm(tmp_path / "a.ppm", rgb)) == (5, 7)
    (tmp_path / "page.png").write_bytes(b"<html>")
    with pytest.raises(DataFormatError, match="page.png: not a readable"):
        image_size(tmp_path / "page.png")
    with pytest.raises(UserError, match="none.png: cannot be read"):
        image_size(tmp_path / "none.png")
