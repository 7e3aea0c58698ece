"""Files of numbers against bytes written here."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest
import torch
from writers import write_dpt, write_flo, write_kitti_flow, write_pfm

from stepsight.data.decoding.formats import (
    known_flow,
    read_dpt,
    read_flo,
    read_kitti_flow,
    read_npy,
    read_pfm,
    read_raw_float,
    read_vkitti_flow,
)
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


def pfm_bytes(rows: list[list[float]], order: str = "<", magic: str = "Pf") -> bytes:
    """Rows of values, top first, three values a pixel with `PF`; on disk the last row is first."""
    width = len(rows[0]) // (3 if magic == "PF" else 1)
    scale = "-1.0" if order == "<" else "1.0"
    header = f"{magic}\n{width} {len(rows)}\n{scale}\n".encode()
    return header + b"".join(struct.pack(f"{order}{len(row)}f", *row) for row in rows[::-1])


@pytest.mark.parametrize("order", ["<", ">"])
def test_pfm_is_read_top_down_in_either_byte_order(tmp_path, order):
    path = tmp_path / "a.pfm"
    path.write_bytes(pfm_bytes([[1, 2, 3], [4, 5, np.inf]], order))
    assert read_pfm(path).tolist() == [[[1, 2, 3], [4, 5, np.inf]]]
    path.write_bytes(pfm_bytes([[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]], order, "PF"))
    assert read_pfm(path).tolist() == [
        [[1, 4], [7, 10]],
        [[2, 5], [8, 11]],
        [[3, 6], [9, 12]],
    ]


def test_pfm_values_that_look_like_white_space_are_values(tmp_path):
    value = struct.unpack("<f", b"\n \n\t")[0]
    (tmp_path / "a.pfm").write_bytes(pfm_bytes([[value]]))
    assert read_pfm(tmp_path / "a.pfm").item() == value


@pytest.mark.parametrize("magic", ["Pf", "PF"])
def test_pfm_is_written_exactly(tmp_path, magic):
    rows = [[1.5, 2, 3], [4, 5, 6]]
    values = torch.tensor(rows).view(2, -1, 3 if magic == "PF" else 1).permute(2, 0, 1)
    write_pfm(tmp_path / "a.pfm", values)
    assert (tmp_path / "a.pfm").read_bytes() == pfm_bytes(rows, magic=magic)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a .pfm"),
        (b"P6\n2 1\n255\n" + bytes(6), "not a .pfm"),
        (b"Pf\n2 1\n0.0\n" + bytes(8), "not a .pfm"),
        (b"Pf\n2 -1\n-1.0\n" + bytes(8), "not a .pfm"),
        (b"Pf\n2 1\n-1.0.0\n" + bytes(8), "not a .pfm"),
        (b"Pf\n0 1\n-1.0\n", "claims 0 x 1"),
        (b"Pf\n2 1\n-1.0\n" + bytes(7), "the file has 19"),
        (b"PF\n2 1\n-1.0\n" + bytes(8), "need 36 bytes"),
        (b"Pf\n999999999 999999999\n-1.0\n" + bytes(8), "need 3999999992"),
        (b"Pf\n2 1\n-1.0\n" + struct.pack("<2f", 1, np.nan), "NaN"),
    ],
)
def test_malformed_pfm(tmp_path, data, reason):
    (tmp_path / "bad.pfm").write_bytes(data)
    with pytest.raises(DataFormatError, match=f"bad.pfm: .*{reason}"):
        read_pfm(tmp_path / "bad.pfm")


def test_dpt_both_ways(tmp_path):
    data = struct.pack("<fii6f", 202021.25, 3, 2, 1, 2, 3, 4, 5, 6.5)
    (tmp_path / "a.dpt").write_bytes(data)
    depth = read_dpt(tmp_path / "a.dpt")
    assert depth.tolist() == [[[1, 2, 3], [4, 5, 6.5]]]
    write_dpt(tmp_path / "b.dpt", depth)
    assert (tmp_path / "b.dpt").read_bytes() == data


def test_dpt_and_flo_are_told_apart_by_their_size(tmp_path, flo_bytes, flow):
    (tmp_path / "a.dpt").write_bytes(flo_bytes(flow))
    with pytest.raises(DataFormatError, match="a.dpt: 5 x 3 x 1 values need 72 bytes"):
        read_dpt(tmp_path / "a.dpt")


def test_raw_floats(tmp_path):
    path = tmp_path / "a.JPG"
    path.write_bytes(struct.pack("<6f", 1, 2, 3, 4, 5, np.inf))
    assert read_raw_float(path, 2, 3).tolist() == [[[1, 2, 3], [4, 5, np.inf]]]
    with pytest.raises(DataFormatError, match="a.JPG: .* need 16 bytes, the file has 24"):
        read_raw_float(path, 2, 2)
    path.write_bytes(struct.pack("<f", np.nan))
    with pytest.raises(DataFormatError, match="NaN"):
        read_raw_float(path, 1, 1)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=">i2").reshape(2, 3),
        np.asfortranarray(np.arange(24, dtype=np.float64).reshape(2, 3, 4)),
        np.array([True, False]),
        np.array(3.5, np.float16),
    ],
)
def test_npy_as_numpy_writes_it(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    read = read_npy(tmp_path / "a.npy")
    assert read.shape == array.shape and read.dtype == array.dtype.newbyteorder("=")
    assert np.array_equal(read, array)


def test_npy_with_longer_headers(tmp_path):
    for version in ((2, 0), (3, 0)):
        with (tmp_path / "a.npy").open("wb") as file:
            np.lib.format.write_array(file, np.arange(3), version)
        assert read_npy(tmp_path / "a.npy").tolist() == [0, 1, 2]


NPY_SHAPE = "{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }"


def npy_bytes(header: str, data: bytes) -> bytes:
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + data


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a .npy"),
        (b"PK\3\4" + bytes(99), "not a .npy"),
        (npy_bytes("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"x"), "not a"),
        (npy_bytes("{'descr': '<U3', 'fortran_order': False, 'shape': (1,), }", b"x"), "not a"),
        (npy_bytes("__import__('os').abort()", b""), "not a .npy"),
        (npy_bytes("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", bytes(7)), "need"),
        (npy_bytes("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", bytes(9)), "need"),
        (npy_bytes("{'descr': '<f4', 'fortran_order': False, 'shape': (0,), }", b""), "claims 0"),
        (npy_bytes(NPY_SHAPE % ("9" * 5000 + ","), b""), "not a .npy"),
        (npy_bytes(NPY_SHAPE % "2 2", bytes(88)), "not a .npy"),
        (npy_bytes(NPY_SHAPE % ("1," * 65), bytes(4)), "not a .npy"),
        (
            npy_bytes(
                "{'descr': '<f8', 'fortran_order': False, 'shape': (9999999, 9999999), }", b""
            ),
            "need 7999998400",
        ),
    ],
)
def test_malformed_npy(tmp_path, data, reason):
    (tmp_path / "bad.npy").write_bytes(data)
    with pytest.raises(DataFormatError, match=f"bad.npy: .*{reason}"):
        read_npy(tmp_path / "bad.npy")


def test_npy_never_loads_a_pickle(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(DataFormatError, match="a.npy: not a .npy file of numbers"):
        read_npy(tmp_path / "a.npy")


def test_kitti_flow_is_read_exactly(tmp_path, write_png):
    """Zero, the two ends, a step, and one unknown pixel whose values say nothing."""
    pixels = [[32768, 32768, 1], [0, 65535, 1], [32769, 32767, 65535], [7, 9, 0]]
    flow, valid = read_kitti_flow(write_png(tmp_path / "a.png", np.array([pixels], np.uint16)))
    assert flow.dtype == torch.float32 and valid.tolist() == [[[True, True, True, False]]]
    assert flow.tolist() == [[[0, -512, 1 / 64, 0]], [[0, 32767 / 64, -1 / 64, 0]]]


def test_kitti_flow_is_rounded_when_written(tmp_path):
    """1.6 and -1.6 steps become 2 and -2; truncation would leave 1 and -2 (RAFT's writer)."""
    flow = torch.tensor([[[1.6 / 64, -1.6 / 64, 5000.0]], [[0.0, 10.0, 0.0]]])
    valid = torch.tensor([[[True, True, False]]])
    write_kitti_flow(tmp_path / "a.png", flow, valid)
    read, read_valid = read_kitti_flow(tmp_path / "a.png")
    assert read.tolist() == [[[2 / 64, -2 / 64, 0]], [[0, 10, 0]]]
    assert torch.equal(read_valid, valid)
    with pytest.raises(UserError, match="a.png: KITTI's PNG holds flow of"):
        write_kitti_flow(tmp_path / "a.png", flow, torch.ones_like(valid))


def test_virtual_kitti_flow_spans_the_image(tmp_path, write_png):
    """0 and 65535 are a motion by the whole image; on 5 x 3 pixels by 4 and by 2."""
    pixels = np.zeros((3, 5, 3), np.uint16)
    pixels[0, 0], pixels[1, 2], pixels[2, 4] = (0, 65535, 9), (65535, 0, 1), (49151, 16384, 0)
    pixels[0, 1] = (49151, 16384, 1)
    flow, valid = read_vkitti_flow(write_png(tmp_path / "a.png", pixels))
    assert valid.nonzero().tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 2]]
    assert flow[:, 0, 0].tolist() == [-4, 2] and flow[:, 1, 2].tolist() == [4, -2]
    assert flow[:, 0, 1].tolist() == pytest.approx([2, -1], abs=1e-4)
    assert flow[:, 2, 4].tolist() == [0, 0]


def test_real_formats(real_samples):
    flow, valid = read_kitti_flow(real_samples("kitti_flow") / "flow_gt.png")
    assert flow.shape == (2, 375, 1242) and valid.float().mean() == pytest.approx(0.162, abs=5e-4)
    assert (flow[0][valid[0]].min(), flow[0][valid[0]].max()) == (-184.25, 74.609375)
    assert (flow[1][valid[0]].min(), flow[1][valid[0]].max()) == (-7.171875, 53.265625)
    folder = real_samples("flow_formats")
    assert read_flo(folder / "0000000-flow_01.flo").shape == (2, 50, 50)
    assert read_pfm(folder / "0000000-occ_weights_01.pfm").shape == (1, 50, 50)


@pytest.mark.parametrize("kind", ["flo", "dpt", "pfm"])
def test_nan_is_kept_where_it_may_stand_for_unknown(tmp_path, kind):
    read, write = {
        "flo": (read_flo, write_flo),
        "dpt": (read_dpt, write_dpt),
        "pfm": (read_pfm, write_pfm),
    }[kind]
    values = torch.full((2 if kind == "flo" else 1, 2, 3), 1.5)
    values[:, 1, 2] = torch.nan
    write(tmp_path / f"a.{kind}", values)
    found = read(tmp_path / f"a.{kind}", unknown=True)
    assert torch.equal(found.isnan(), values.isnan()) and found.nansum() == values.nansum()
    with pytest.raises(DataFormatError, match="NaN"):
        read(tmp_path / f"a.{kind}")
