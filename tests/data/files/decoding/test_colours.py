"""Pictures of every depth, format and colour space: the right colours, or a refusal by name."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from stepsight.data.decoding import images
from stepsight.data.decoding.images import read_colours, read_image
from stepsight.errors import DataFormatError, UserError
from stepsight.pipeline.inputs import to_tensor


def png16(channels: int, values: np.ndarray) -> bytes:
    """A 16-bit PNG "h w c" by hand, rows unfiltered and by filter 1 (the pixel before) in turn."""
    height, width = values.shape[:2]
    rows = values.astype(">u2").tobytes()
    stride, pixel = 2 * channels * width, 2 * channels
    packed = b""
    for y in range(height):
        row = rows[y * stride : (y + 1) * stride]
        before = bytes(pixel) + row[:-pixel]
        packed += b"\0" + row if y % 2 else b"\1" + bytes(a - b & 255 for a, b in zip(row, before))
    kind = {2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(packed)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


@pytest.fixture
def wide():
    return np.random.default_rng(0).integers(0, 65536, (3, 5, 4)).astype(np.uint16)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_sixteen_bit_colours_are_rounded_from_the_whole_range(tmp_path, wide, channels):
    path, values = tmp_path / "a.png", wide[..., :channels]
    path.write_bytes(png16(channels, values))
    colours = values[..., :3] if channels > 2 else np.repeat(values[..., :1], 3, -1)
    assert read_colours(path).permute(1, 2, 0).tolist() == colours.tolist()
    rounded = (colours.astype(np.float64) / 257).round()
    assert read_image(path).permute(1, 2, 0).tolist() == rounded.tolist()


@pytest.mark.parametrize("kind", ["png", "tif", "pgm", "PIL"])
def test_sixteen_bit_grey_is_rounded_from_the_whole_range(tmp_path, wide, kind):
    grey, path = wide[..., 0], tmp_path / f"a.{kind}"
    rounded = (grey.astype(np.float64) / 257).round()
    if kind == "pgm":
        path.write_bytes(b"P5\n# by hand\n5 3\n65535\n" + grey.astype(">u2").tobytes())
    elif kind == "tif":
        tifffile.imwrite(path, grey)
    elif kind == "png":
        Image.fromarray(grey).save(path)
    else:
        seen = to_tensor(Image.fromarray(grey))
        assert ((seen[0] + 1) * 127.5).round().tolist() == rounded.tolist()
        return
    assert [plane.tolist() for plane in read_image(path)] == [rounded.tolist()] * 3


@pytest.mark.parametrize(
    "options", [{}, {"compression": "lzw"}, {"planarconfig": "separate"}, {"bigtiff": True}]
)
def test_tiff_of_eight_and_sixteen_bits(tmp_path, rgb, options):
    deep, path = rgb.astype(np.uint16) * 257, tmp_path / "a.tif"
    for values in (rgb, deep):
        planes = np.moveaxis(values, -1, 0) if "planarconfig" in options else values
        tifffile.imwrite(path, planes, photometric="rgb", **options)
        assert read_image(path).permute(1, 2, 0).tolist() == rgb.tolist()


def test_bmp_gif_and_heic(tmp_path, rgb):
    height, width = rgb.shape[:2]
    rows = b"".join(
        row[:, ::-1].tobytes().ljust(-(-3 * width // 4) * 4, b"\0") for row in rgb[::-1]
    )
    header = struct.pack("<2sIII", b"BM", 54 + len(rows), 0, 54)
    header += struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, len(rows), 0, 0, 0, 0)
    (tmp_path / "a.bmp").write_bytes(header + rows)
    assert read_image(tmp_path / "a.bmp").permute(1, 2, 0).tolist() == rgb.tolist()
    first, second = (Image.new("RGB", (4, 3), colour) for colour in ("red", "blue"))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert read_image(tmp_path / "a.gif")[:, 0, 0].tolist() == [255, 0, 0]
    heif = pytest.importorskip("pillow_heif")
    blocks = np.kron(rgb, np.ones((16, 16, 1), np.uint8))
    heif.from_pillow(Image.fromarray(blocks)).save(tmp_path / "a.heic", quality=-1)
    off = read_image(tmp_path / "a.heic").permute(1, 2, 0).numpy().astype(int) - blocks
    assert np.abs(off).mean() < 3  # its colours are stored at half the size


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    with pytest.raises(UserError, match="HEIC pictures need pillow_heif: uv sync --extra data"):
        read_image(tmp_path / "a.heic")


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "LAB", "CMYK", "PA", "RGBa", "RGBX"])
def test_other_colour_spaces_become_rgb(mode):
    colour = (204, 102, 51)
    image = Image.new("RGB", (5, 4), colour)
    if mode == "LAB":
        profiles = (ImageCms.createProfile(name) for name in ("sRGB", "LAB"))
        image = ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
    elif mode in ("PA", "RGBa"):
        image = image.convert(mode[:-1].upper() if mode == "PA" else "RGBA").convert(mode)
    else:
        image = image.convert(mode)
    seen = ((to_tensor(image)[:, 2, 2] + 1) * 127.5).numpy()
    assert np.abs(seen - colour).max() <= 4


@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_what_has_no_range_is_refused(tmp_path, png_bytes, rgb16, name):
    path = tmp_path / name
    if name == "a.tif":
        tifffile.imwrite(path, np.ones((3, 4), np.float32))
    else:  # Adam7, which keeps 16 bits in seven pictures
        data = bytearray(png_bytes(rgb16))
        data[28] = 1
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
        path.write_bytes(data)
    with pytest.raises(DataFormatError, match=f"{name}: .*(8- or 16-bit picture|interlaced)"):
        read_image(path)


def test_tiles_of_a_tiff_are_bounded(tmp_path, rgb, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", rgb, tile=(16, 16), photometric="rgb")
    assert read_image(tmp_path / "a.tif").permute(1, 2, 0).tolist() == rgb.tolist()
    monkeypatch.setattr(images, "MAX_PIXELS", 255)
    with pytest.raises(DataFormatError, match="16 x 16 pixels are too many"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3), (4, 5, 4)])
def test_arrays_of_floats_in_0_to_1(shape):
    array = np.random.default_rng(0).random(shape)
    seen = to_tensor(array).numpy()
    expected = np.repeat(array[..., None], 3, -1) if len(shape) == 2 else array[..., :3]
    np.testing.assert_allclose(seen, expected.transpose(2, 0, 1) * 2 - 1, atol=1e-6)
