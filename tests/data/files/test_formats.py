"""Optical flow files against bytes written here."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest
import torch

from stepsight.data.formats import known_flow, read_flo, write_flo
from stepsight.errors import DataFormatError, UserError


@pytest.fixture
def flow():
    """u = 10 x, v = y + 0.25 on a 3 x 5 grid: no axis can be mistaken for another."""
    y, x = np.mgrid[:3, :5].astype(np.float32)
    return np.stack([10 * x, y + 0.25], axis=-1)


def test_flo_is_read_exactly(tmp_path, flo_bytes, flow):
    path = tmp_path / "a.flo"
    path.write_bytes(flo_bytes(flow))
    read = read_flo(path)
    assert read.dtype == torch.float32 and read.shape == (2, 3, 5)
    assert read[0, 1].tolist() == [0, 10, 20, 30, 40] and read[1, :, 4].tolist() == [
        0.25,
        1.25,
        2.25,
    ]


def test_flo_is_written_exactly(tmp_path, flo_bytes, flow):
    write_flo(tmp_path / "a.flo", torch.from_numpy(flow).permute(2, 0, 1))
    assert (tmp_path / "a.flo").read_bytes() == flo_bytes(flow)
    assert flo_bytes(flow)[:12] == b"PIEH\x05\0\0\0\x03\0\0\0"


def test_unknown_pixels(tmp_path, flo_bytes, flow):
    flow[0, 0] = 1.6666668e9, 1.6666668e9
    flow[1, 1, 1], flow[2, 2, 0] = -2e9, np.inf
    path = tmp_path / "a.flo"
    path.write_bytes(flo_bytes(flow))
    unknown = ~known_flow(read_flo(path))
    assert unknown.nonzero().tolist() == [[0, 0, 0], [0, 1, 1], [0, 2, 2]]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: b"", "0 bytes do not hold"),
        (lambda data: data[:11], "11 bytes do not hold"),
        (lambda data: b"HEIP" + data[4:], "starts with b'HEIP'"),
        (lambda data: data[:-1], "the file has 131"),
        (lambda data: data[:12], "the file has 12"),
        (lambda data: data + b"\0", "the file has 133"),
        (lambda data: data[:4] + struct.pack("<ii", 0, 3) + data[12:], "0 x 3"),
        (lambda data: data[:4] + struct.pack("<ii", 5, -4) + data[12:], "5 x -4"),
        (lambda data: data[:4] + struct.pack("<ii", -5, -3) + data[12:], "-5 x -3"),
        (lambda data: data[:4] + struct.pack("<ii", 2**31 - 1, 2**31 - 1) + data[12:], "need 3689"),
        (lambda data: data[:12] + struct.pack("<f", np.nan) + data[16:], "NaN"),
    ],
)
def test_malformed_flo(tmp_path, flo_bytes, flow, change, reason):
    path = tmp_path / "bad.flo"
    path.write_bytes(change(flo_bytes(flow)))
    with pytest.raises(DataFormatError, match=f"bad.flo: .*{reason}"):
        read_flo(path)


def test_flipped_header_bits_are_noticed(tmp_path, flo_bytes, flow):
    """All 96 of them: the magic is fixed, and no other size fills the file."""
    data, path = flo_bytes(flow), tmp_path / "flipped.flo"
    for bit in range(96):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(DataFormatError, match="flipped.flo"):
            read_flo(path)


def test_random_bytes_behind_a_good_magic(tmp_path):
    rng, path = random.Random(0), tmp_path / "random.flo"
    for _ in range(300):
        path.write_bytes(b"PIEH" + rng.randbytes(rng.randrange(60)))
        with pytest.raises(DataFormatError, match="random.flo"):
            read_flo(path)


def test_paths_that_cannot_be_used(tmp_path):
    with pytest.raises(UserError, match="none.flo.*No such file"):
        read_flo(tmp_path / "none.flo")
    with pytest.raises(UserError, match="cannot be written"):
        write_flo(tmp_path / "no folder" / "a.flo", torch.zeros(2, 1, 1))
