"""Arrays in every container, written by hand or by other libraries than read them: exact values."""

from __future__ import annotations

import io
import struct
import zipfile

import h5py
import numpy as np
import OpenEXR
import pytest
import scipy.io
import tifffile
from PIL import Image

from stepsight.data.decoding.truth import read_array, read_depth, read_flow, read_normals
from stepsight.errors import DataFormatError, UserError

METRES = np.random.default_rng(0).random((5, 7)).astype(np.float32) + 1
FLOW = np.stack([METRES - 1.5, -2 * METRES], -1)
NORMALS = np.sqrt(np.full((5, 7, 3), 1 / 3, np.float32)) * np.array([1, -1, 1], np.float32)
HALVES = METRES.astype(np.float16).astype(np.float32)


def exr_bytes(channels: dict[str, np.ndarray], shown: tuple[int, int] | None = None) -> bytes:
    """An uncompressed scan line EXR (OpenEXR, "File Layout"), float16 or float32 by type; `shown`
    is the height and width of its display window."""
    height, width = next(iter(channels.values())).shape
    names = sorted(channels)
    listed = b"".join(
        name.encode() + b"\0" + struct.pack("<iB3xii", 1 + channels[name].itemsize // 4, 0, 1, 1)
        for name in names
    )
    bottom, right = (side - 1 for side in shown or (height, width))
    header = struct.pack("<II", 20000630, 2)
    for name, kind, value in (
        ("channels", "chlist", listed + b"\0"),
        ("compression", "compression", b"\0"),
        ("dataWindow", "box2i", struct.pack("<4i", 0, 0, width - 1, height - 1)),
        ("displayWindow", "box2i", struct.pack("<4i", 0, 0, right, bottom)),
        ("lineOrder", "lineOrder", b"\0"),
        ("pixelAspectRatio", "float", struct.pack("<f", 1)),
        ("screenWindowCenter", "v2f", struct.pack("<2f", 0, 0)),
        ("screenWindowWidth", "float", struct.pack("<f", 1)),
    ):
        header += f"{name}\0{kind}\0".encode() + struct.pack("<i", len(value)) + value
    header += b"\0"
    lines = [b"".join(channels[name][y].tobytes() for name in names) for y in range(height)]
    lines = [struct.pack("<ii", y, len(line)) + line for y, line in enumerate(lines)]
    start = len(header) + 8 * height
    table = [start + sum(map(len, lines[:y])) for y in range(height)]
    return header + struct.pack(f"<{height}Q", *table) + b"".join(lines)


def tiff_bytes(values: np.ndarray) -> bytes:
    """An uncompressed grey TIFF 6.0 of one strip, big-endian."""
    height, width = values.shape
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    data = values.astype(values.dtype.newbyteorder(">")).tobytes()
    tags = [(256, width), (257, height), (258, 8 * values.itemsize), (259, 1), (262, 1)]
    tags += [(273, 8), (277, 1), (278, height), (279, len(data)), (339, kind)]
    entries = b"".join(struct.pack(">HHII", tag, 4, 1, value) for tag, value in tags)
    directory = struct.pack(">H", len(tags)) + entries + bytes(4)
    return b"MM\0*" + struct.pack(">I", 8 + len(data)) + data + directory


def npz_bytes(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, values in arrays.items():
            text = f"{{'descr': '{values.dtype.str}', 'fortran_order': False, "
            text += f"'shape': {values.shape}}}"
            text = text.ljust(117) + "\n"
            archive.writestr(f"{name}.npy", b"\x93NUMPY\1\0v\0" + text.encode() + values.tobytes())
    return file.getvalue()


def matlab_hdf5(path, **arrays: np.ndarray) -> None:
    """As MATLAB writes version 7.3: a user block, and axes reversed."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in arrays.items():
            file[name] = values.T
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


def saved(path, values: np.ndarray, name: str):
    match path.suffix:
        case ".exr":
            planes = values if values.ndim == 3 else values[..., None]
            letters = {1: "Z", 2: "UV", 3: "XYZ"}[planes.shape[-1]]
            path.write_bytes(exr_bytes({c: planes[..., n] for n, c in enumerate(letters)}))
        case ".tif":
            tifffile.imwrite(path, values, compression="lzw", photometric="minisblack")
        case ".npz":
            path.write_bytes(npz_bytes(**{name: values, "time": np.zeros(1)}))
        case ".npy":
            np.save(path, np.moveaxis(values, -1, 0) if values.ndim == 3 else values[None])
        case ".h5":
            with h5py.File(path, "w") as file:
                file[name] = np.moveaxis(values, -1, 0) if values.ndim == 3 else values
        case ".mat":
            scipy.io.savemat(path, {name: values, "time": 1.0}, do_compression=True)
    return path


@pytest.mark.parametrize("suffix", [".exr", ".tif", ".npz", ".npy", ".h5", ".mat"])
def test_every_container_of_every_quantity(tmp_path, suffix):
    depth, valid = read_depth(saved(tmp_path / f"depth{suffix}", METRES, "depth"))
    assert depth[0].tolist() == METRES.tolist() and valid.all()
    flow, valid = read_flow(saved(tmp_path / f"flow{suffix}", FLOW, "flow"))
    assert flow.permute(1, 2, 0).tolist() == FLOW.tolist() and valid.all()
    normals, valid = read_normals(saved(tmp_path / f"normals{suffix}", NORMALS, "normals"))
    np.testing.assert_allclose(normals.permute(1, 2, 0), NORMALS, atol=1e-6)


@pytest.mark.parametrize("shape", [(5, 7), (1, 5, 7), (5, 7, 1), (1, 1, 5, 7), (1, 5, 7, 1)])
def test_shapes_of_an_array(tmp_path, shape):
    np.save(tmp_path / "a.npy", METRES.reshape(shape))
    assert read_depth(tmp_path / "a.npy")[0][0].tolist() == METRES.tolist()


@pytest.mark.parametrize(
    "names", ["Y", "Z", "R", "depth", "anything", "Layer.Depth.Z", "RGB", "RGBZ"]
)
def test_the_channel_of_an_exr_is_told_by_its_name(tmp_path, names):
    half = METRES.astype(np.float16)
    letters = list(names) if names.startswith("RGB") else [names]
    planes = {letter: half + (names == "RGBZ" and letter != "Z") for letter in letters}
    (tmp_path / "a.exr").write_bytes(exr_bytes(planes))
    assert read_depth(tmp_path / "a.exr")[0][0].tolist() == HALVES.tolist()


@pytest.mark.parametrize(
    ("planes", "reason"),
    [
        ({"A": METRES, "B": METRES}, "holds A, B; say which is meant in a list: .*a.exr#NAME"),
        ({"R": METRES, "G": METRES, "B": FLOW[..., 1].copy()}, "3 channels, where depth has one"),
    ],
)
def test_channels_that_say_nothing_are_refused(tmp_path, planes, reason):
    path = tmp_path / "a.exr"
    path.write_bytes(exr_bytes(planes))
    with pytest.raises(DataFormatError, match=f"a.exr: {reason}"):
        read_depth(path)
    one = next(iter(planes))
    assert read_depth(tmp_path / f"a.exr#{one}")[0][0].tolist() == METRES.tolist()


def test_a_cropped_exr_is_refused(tmp_path):
    (tmp_path / "a.exr").write_bytes(exr_bytes({"Z": METRES}, shown=(9, 9)))
    with pytest.raises(DataFormatError, match="a.exr: holds 5 x 7 pixels cut out of a picture"):
        read_depth(tmp_path / "a.exr")


def test_compressed_exr_of_several_parts(tmp_path):
    header = {"compression": OpenEXR.PIZ_COMPRESSION, "type": OpenEXR.scanlineimage}
    planes = {"beauty": {"RGB": NORMALS.astype(np.float16)}, "geometry": {"Z": METRES}}
    parts = [OpenEXR.Part(header | {"name": name}, one) for name, one in planes.items()]
    OpenEXR.File(parts).write(str(tmp_path / "a.exr"))
    assert read_depth(tmp_path / "a.exr")[0][0].tolist() == METRES.tolist()


@pytest.mark.parametrize("kind", ["u2", "f4", "f8", "f2", "i4"])
def test_tiff_by_hand_and_by_pillow(tmp_path, kind):
    values = (METRES * 1000).astype(kind)
    (tmp_path / "a.tif").write_bytes(tiff_bytes(values))
    scale = 1.0 if values.dtype.kind == "f" else 1000.0
    expected = (values.astype(np.float64) / scale).astype(np.float32)
    assert read_depth(tmp_path / "a.tif")[0][0].tolist() == expected.tolist()
    Image.fromarray(METRES).save(tmp_path / "b.tif", compression="tiff_lzw")
    assert read_depth(tmp_path / "b.tif")[0][0].tolist() == METRES.tolist()


def test_matlab_of_both_versions_and_their_stacks(tmp_path):
    stack = np.stack([METRES, METRES + 1, METRES + 2], -1)
    matlab_hdf5(tmp_path / "new.mat", depths=stack, depth=METRES)
    scipy.io.savemat(tmp_path / "old.mat", {"depths": stack, "depth": METRES})
    for name in ("new", "old"):
        path = tmp_path / f"{name}.mat"
        assert read_depth(path)[0][0].tolist() == METRES.tolist()
        assert read_array(tmp_path / f"{name}.mat#depths", "depth").tolist() == stack.tolist()
        item = read_depth(tmp_path / f"{name}.mat#depths/2")[0][0]
        assert item.tolist() == stack[..., 2].tolist()


def test_parts_of_files(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["left/depth"], file["right/depth"] = METRES, np.stack([METRES, METRES + 1])
    (tmp_path / "a.npz").write_bytes(npz_bytes(near=METRES, far=METRES + 1))
    np.save(tmp_path / "a.npy", np.stack([METRES, METRES + 1]))
    np.save(tmp_path / "b#1.npy", METRES)
    stack = np.stack([METRES, METRES + 1])
    np.savez_compressed(tmp_path / "c.npz", all=stack, turned=np.asfortranarray(stack))
    (tmp_path / "take#2").mkdir()
    (tmp_path / "take#2/a.npz").write_bytes(npz_bytes(near=METRES, far=METRES))
    for part, more in (
        ("a.h5#left/depth", 0),
        ("a.h5#right/depth/1", 1),
        ("a.npz#near", 0),
        ("a.npz#far", 1),
        ("a.npy#1", 1),
        ("c.npz#all/0", 0),
        ("c.npz#all/1", 1),
        ("b#1.npy", 0),
        ("take#2/a.npz#far", 0),
    ):
        assert read_depth(tmp_path / part)[0][0].tolist() == (METRES + more).tolist(), part
    for part, reason in (
        ("a.h5", "holds left/depth, right/depth; say which is meant in a list: .*a.h5#NAME"),
        ("a.h5#depth", r"no array 'depth' \(it has: left/depth, right/depth\)"),
        ("a.h5#right/depth/2", "'right/depth' has 2 items, no item 2"),
        ("a.npz#depth", r"no array 'depth' \(it has: near, far\)"),
        ("c.npz#all/2", r"no item 2 of 'all', \(2, .*\)"),
        ("c.npz#turned/0", "no item 0 of 'turned', .*columns first"),
        ("c.npz#none/0", r"no array 'none/0' \(it has: all, turned\)"),
        ("a.npy#2", "has 2 items, none of them '2'"),
        ("none.npz#x", "cannot be read"),
    ):
        with pytest.raises(UserError, match=f"{part.split('#')[0]}.*{reason}"):
            read_depth(tmp_path / part)


@pytest.mark.parametrize("most", [65535, 10000])
def test_pgm_keeps_its_values(tmp_path, most):
    stored = (METRES * 1000).astype(np.uint16)
    header = f"P5 7 # wide\n5\n{most}\n".encode()
    (tmp_path / "a.pgm").write_bytes(header + stored.astype(">u2").tobytes())
    depth, _ = read_depth(tmp_path / "a.pgm")
    assert depth[0].tolist() == (stored / 1000).astype(np.float32).tolist()


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.pgm", b"P5 2 1 255\n\0\0", "not a .pgm of 16 bits"),
        ("a.pgm", b"P5 9 9 65535\n\0\0", "9 x 9 x 1 values need 175 bytes"),
        ("a.exr", exr_bytes({"Z": METRES})[:-9], "damaged EXR"),
        ("a.exr", b"<html>", "not a readable EXR file, it starts with b'<html>'"),
        ("a.tif", tiff_bytes(METRES)[:-99], "damaged TIFF"),
        ("a.npz", npz_bytes(depth=METRES)[:-30], "damaged .npz"),
        ("a.npz", npz_bytes(depth=np.array(["a"])), "damaged .npz"),
        ("a.mat", b"MATLAB 5.0", "not a MATLAB 5 file"),
        ("a.h5", b"MATLAB 5.0", "not an HDF5 file"),
        ("a.xyz", b"", "expected one of .png, .pgm, .pfm, .dpt, .npy, .npz, .h5"),
    ],
)
def test_what_is_damaged_or_foreign_is_named(tmp_path, name, data, reason):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataFormatError, match=f"{name}: {reason}"):
        read_depth(tmp_path / name)


def test_what_would_not_fit_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setenv("STEPSIGHT_FILE_MB", "1")
    large = np.ones((512, 512), np.float32)
    for suffix in (".exr", ".tif", ".npz", ".npy", ".h5", ".mat"):
        path = saved(tmp_path / f"a{suffix}", large, "depth")
        with pytest.raises(DataFormatError, match=f"a{suffix}: .*STEPSIGHT_FILE_MB"):
            read_depth(path)


@pytest.mark.parametrize(
    ("module", "name"), [("OpenEXR", "a.exr"), ("tifffile", "a.tif"), ("h5py", "a.h5")]
)
def test_missing_extras_are_named(tmp_path, monkeypatch, module, name):
    saved(tmp_path / name, METRES, "depth")
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(UserError, match=f"need {module}: uv sync --extra data"):
        read_depth(tmp_path / name)
