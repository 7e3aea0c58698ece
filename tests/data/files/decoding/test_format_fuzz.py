"""Damaged files of every format, decoded in a child process: an error or values, never a crash."""

from __future__ import annotations

import os
import random
import signal
import struct
import traceback
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stepsight.data.decoding.formats import read_dpt, read_npy, read_pfm, read_vkitti_flow
from stepsight.data.decoding.hdf5 import read_hdf5
from stepsight.data.decoding.images import read_ids, read_labels, read_rgb16
from stepsight.errors import DataFormatError

TRIALS = 300
SECONDS = 60  # for all trials of a format: a decoder that hangs is ended by the alarm


def in_a_child(work: Callable[[], None]) -> None:
    """Run `work` in a forked process; fail if it raises, crashes or hangs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside torch's idle threads
        child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0, "the child failed; its traceback is above"
        return
    status = 1
    try:
        signal.alarm(SECONDS)
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def damaged(data: bytes, seed: int) -> bytes:
    """One to four flipped bits; every fourth is cut off as well."""
    rng = random.Random(seed)
    mutated = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        mutated[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(mutated[: rng.randrange(len(data))] if seed % 4 == 0 else mutated)


def survives(read: Callable[[Path], object], path: Path, files: list[bytes]) -> None:
    def work() -> None:
        for data in files:
            path.write_bytes(data)
            try:
                read(path)
            except DataFormatError as error:
                assert str(path) in str(error)

    in_a_child(work)


def dpt_bytes() -> bytes:
    return struct.pack("<4sii12f", b"PIEH", 4, 3, *range(12))


def pfm_bytes() -> bytes:
    return b"PF\n2 2\n-1.0\n" + struct.pack("<12f", *range(12))


@pytest.mark.parametrize(
    ("read", "data"), [(read_dpt, dpt_bytes()), (read_pfm, pfm_bytes())], ids=["dpt", "pfm"]
)
def test_plain_numbers(tmp_path, read, data):
    survives(read, tmp_path / "x", [damaged(data, seed) for seed in range(TRIALS)])


def test_npy(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(12, dtype=np.float32).reshape(3, 4))
    data = (tmp_path / "a.npy").read_bytes()
    survives(read_npy, tmp_path / "x", [damaged(data, seed) for seed in range(TRIALS)])


@pytest.mark.parametrize("read", [read_rgb16, read_vkitti_flow, read_ids, read_labels])
def test_png(tmp_path, png_bytes, read):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    wide = pixels.astype(np.uint16) * 257
    narrow = pixels[..., 0] if read is read_labels else pixels
    data = png_bytes(wide if read in (read_rgb16, read_vkitti_flow) else narrow)
    read(_written(tmp_path / "whole.png", data))
    survives(read, tmp_path / "x", [damaged(data, seed) for seed in range(TRIALS)])


def test_png_damaged_under_right_checksums(tmp_path, png_bytes):
    """Header, compressed and uncompressed bytes changed, then every CRC made right again."""
    pixels = np.random.default_rng(0).integers(0, 65536, (9, 11, 3), dtype=np.uint16)
    data = png_bytes(pixels)
    header, packed = data[16:29], data[41:-16]
    raw = zlib.decompress(packed)
    files = []
    for seed in range(TRIALS):
        parts = [header, packed]
        if seed % 3 == 2:
            parts[1] = zlib.compress(damaged(raw, seed))
        else:
            parts[seed % 3] = damaged(parts[seed % 3], 2 * seed + 1)
        files.append(data[:8] + _chunk(b"IHDR", parts[0]) + _chunk(b"IDAT", parts[1]) + data[-12:])
    survives(read_rgb16, tmp_path / "x", files)


def test_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")
    values = np.random.default_rng(0).random((8, 8, 2), dtype=np.float32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("flow", data=values, compression="gzip", compression_opts=5)
    data = bytearray((tmp_path / "a.h5").read_bytes())
    files = [damaged(data, seed) for seed in range(TRIALS)]
    survives(lambda path: read_hdf5(path, "flow"), tmp_path / "x", files)


def test_hdf5_whose_chunks_have_other_axes_than_the_array(tmp_path):
    """One flipped bit in the number of axes, which keeps the HDF5 library busy for good."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("flow", data=np.ones((8, 8, 2), np.float32), compression="gzip")
    data = bytearray((tmp_path / "a.h5").read_bytes())
    at = data.index(struct.pack("<3Q", 8, 8, 2)) - 7  # dataspace message, version 1: its rank
    assert data[at] == 3
    data[at] = 1
    survives(lambda path: read_hdf5(path, "flow"), tmp_path / "x", [bytes(data)])


def test_a_crash_is_noticed(capfd):
    """What the other tests rest on."""
    with pytest.raises(AssertionError, match="the child failed"):
        in_a_child(lambda: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(AssertionError, match="the child failed"):
        in_a_child(lambda: 1 // 0)
    assert "ZeroDivisionError" in capfd.readouterr().err


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
