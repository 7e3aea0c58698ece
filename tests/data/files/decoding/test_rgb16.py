"""16-bit colour PNG, the container of flow: every bit is kept, and all else refused by name."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from writers import write_rgb16

from stepsight.data.decoding.images import read_rgb16
from stepsight.errors import DataFormatError, UserError


def assemble(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of these chunks, whatever they hold, with right CRCs."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def header(width=3, height=2, bits=16, colour=2, compression=0, filtering=0, interlace=0):
    values = (width, height, bits, colour, compression, filtering, interlace)
    return b"IHDR", struct.pack(">IIBBBBB", *values)


def rows16(pixels: np.ndarray, filter: int = 0) -> bytes:
    return b"".join(bytes([filter]) + row.astype(">u2").tobytes() for row in pixels)


def test_sixteen_bit_colour_keeps_its_bits(tmp_path, write_png, rgb16):
    """Where Pillow halves them: 40000 becomes 156."""
    path = write_png(tmp_path / "a.png", rgb16)
    assert np.array(Image.open(path)).max() == 255
    values = read_rgb16(path)
    assert values.dtype == torch.uint16 and values.shape == (3, 2, 3)
    assert values.permute(1, 2, 0).tolist() == rgb16.tolist()


def test_sixteen_bit_colour_across_chunks_with_extras(tmp_path, rgb16):
    """Pixel data split in three, between chunks that must not reach the decoder."""
    packed = zlib.compress(rows16(rgb16))
    parts = [(b"IDAT", part) for part in (packed[:5], packed[5:9], packed[9:])]
    extras = (b"tRNS", bytes(6)), (b"gAMA", struct.pack(">I", 45455)), (b"tEXt", b"a\0b")
    (tmp_path / "a.png").write_bytes(assemble(header(), *extras, *parts, (b"IEND", b"")))
    assert read_rgb16(tmp_path / "a.png").permute(1, 2, 0).tolist() == rgb16.tolist()


@pytest.mark.parametrize("filter", [1, 2, 3, 4])
def test_sixteen_bit_colour_with_filtered_rows(tmp_path, rgb16, filter):
    """The prediction of each filter (PNG section 9.2) written out byte by byte."""
    rows = [list(row.astype(">u2").tobytes()) for row in rgb16]
    data, above = b"", [0] * 18
    for row in rows:
        data += bytes([filter])
        for i, value in enumerate(row):
            left, up, corner = (row[i - 6], above[i], above[i - 6]) if i > 5 else (0, above[i], 0)
            nearest = min((left, up, corner), key=lambda p: abs(left + up - corner - p))
            prediction = (0, left, up, (left + up) // 2, nearest)[filter]
            data += bytes([(value - prediction) % 256])
        above = row
    chunks = header(), (b"IDAT", zlib.compress(data)), (b"IEND", b"")
    (tmp_path / "a.png").write_bytes(assemble(*chunks))
    assert read_rgb16(tmp_path / "a.png").permute(1, 2, 0).tolist() == rgb16.tolist()


def test_sixteen_bit_colour_is_written_as_the_specification_says(tmp_path, rgb16):
    write_rgb16(tmp_path / "a.png", torch.from_numpy(rgb16).permute(2, 0, 1))
    data = (tmp_path / "a.png").read_bytes()
    kind, content = header()
    assert data[:33] == assemble((kind, content)) and data.endswith(assemble((b"IEND", b""))[8:])
    length = struct.unpack(">I", data[33:37])[0]
    assert zlib.decompress(data[41 : 41 + length]) == rows16(rgb16)
    assert read_rgb16(tmp_path / "a.png").permute(1, 2, 0).tolist() == rgb16.tolist()
    with pytest.raises(UserError, match="cannot be written"):
        write_rgb16(tmp_path / "none" / "a.png", torch.zeros(3, 1, 1, dtype=torch.uint16))


def test_sixteen_bit_colour_refuses_everything_else(tmp_path, write_png, rgb, deep):
    write_png(tmp_path / "rgb8.png", rgb)
    write_png(tmp_path / "grey16.png", deep)
    (tmp_path / "page.png").write_bytes(b"<html>")
    for name in ("rgb8", "grey16", "page"):
        with pytest.raises(DataFormatError, match=f"{name}.png: (PNG of|not a PNG)"):
            read_rgb16(tmp_path / f"{name}.png")


@pytest.mark.parametrize(
    ("head", "data", "reason"),
    [
        (header(interlace=1), None, "interlacing 1"),
        (header(width=1 << 30, height=1 << 30), None, "too many"),
        (header(height=0), None, "PNG of 3 x 0 pixels"),
        (header(width=0), zlib.compress(bytes(2)), "PNG of 0 x 2 pixels"),
        (header(height=3), None, "do not fill"),
        (header(height=1), None, "do not fill"),
        (header(), b"", "do not fill"),
        (header(), b"garbage", "damaged PNG"),
        (header(), zlib.compress(bytes(1 << 20)), "do not fill"),
        (header(), zlib.compress(b"\5" + bytes(37)), "unknown filter"),
        (header(), zlib.compress(bytes(38))[:-4], "do not fill"),
    ],
)
def test_malformed_sixteen_bit_colour(tmp_path, rgb16, head, data, reason):
    data = zlib.compress(rows16(rgb16)) if data is None else data
    (tmp_path / "bad.png").write_bytes(assemble(head, (b"IDAT", data), (b"IEND", b"")))
    with pytest.raises(DataFormatError, match=f"bad.png: .*{reason}"):
        read_rgb16(tmp_path / "bad.png")


def test_real_kitti_flow_keeps_its_bits(real_samples):
    """Pillow finds 146 at most in this file."""
    flow = read_rgb16(real_samples("kitti_flow") / "flow_gt.png").to(torch.int64)[:2]
    known = flow[flow > 0]
    assert (known.min(), known.max()) == (20976, 37543)
