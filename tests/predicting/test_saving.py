"""What is written reads back by other means: other libraries, or a decoder of a few lines here."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import plyfile
import pytest
import torch

from stepsight.errors import UserError
from stepsight.predicting.gathering import consecutive
from stepsight.predicting.item import Item
from stepsight.predicting.saving import Finished, parts, png16_scale
from stepsight.types import Prediction


def read_exr(path: Path) -> dict[str, np.ndarray]:
    """Channels "h w" of a single-part, scan-line OpenEXR file of float32, ZIP-compressed, by its
    file layout (openexr.com, "OpenEXR File Layout")."""
    data = path.read_bytes()
    assert struct.unpack_from("<II", data) == (20000630, 2)
    at, attributes = 8, {}
    while data[at]:
        name, kind, rest = data[at:].split(b"\0", 2)
        at += len(name) + len(kind) + 2
        (size,) = struct.unpack_from("<I", data, at)
        attributes[name.decode()] = data[at + 4 : at + 4 + size]
        at += 4 + size
    assert attributes["compression"] == b"\3"  # ZIP, 16 rows at a time
    left, top, right, bottom = struct.unpack("<4i", attributes["dataWindow"])
    width, height = right - left + 1, bottom - top + 1
    names, listed = [], attributes["channels"]
    while listed[0]:
        name, listed = listed.split(b"\0", 1)
        assert struct.unpack_from("<I", listed) == (2,)  # float32
        names.append(name.decode())
        listed = listed[16:]
    blocks = -(-height // 16)
    rows = []
    for offset in struct.unpack_from(f"<{blocks}Q", data, at + 1):
        row, size = struct.unpack_from("<iI", data, offset)
        block, count = data[offset + 8 : offset + 8 + size], min(16, height - row)
        raw = 4 * width * len(names) * count
        if size < raw:
            packed = np.frombuffer(zlib.decompress(block), np.uint8).astype(np.int64)
            packed[1:] -= 128
            halves = (np.cumsum(packed) % 256).astype(np.uint8)
            half = (raw + 1) // 2
            plain = np.empty(raw, np.uint8)
            plain[::2], plain[1::2] = halves[:half], halves[half:]
            block = plain.tobytes()
        rows.append(np.frombuffer(block, "<f4").reshape(count, len(names), width))
    planes = np.concatenate(rows).transpose(1, 0, 2)
    return dict(zip(names, planes, strict=True))


def values_of(out: Path, name: str) -> np.ndarray:
    return np.load(out / name)


def test_exr_holds_the_same_floats(picture, predict, tmp_path):
    for i in range(2):
        picture(f"in/{i}.png", i, 40, 30)
    out = tmp_path / "out"
    predict(tmp_path / "in", save="npy,exr", how={"members": 2})
    for part in ("depth", "depth-uncertainty"):
        found = read_exr(out / f"0-{part}.exr")
        assert found.keys() == {"Y"}
        np.testing.assert_array_equal(found["Y"], values_of(out, f"0-{part}.npy")[0])
    predict(tmp_path / "in", save="npy,exr", task="flow", change=consecutive)
    found = read_exr(out / "0-flow.exr")
    np.testing.assert_array_equal([found["R"], found["G"]], values_of(out, "0-flow.npy"))
    predict(tmp_path / "in", save="npy,exr", task="normals")
    found = read_exr(out / "1-normals.exr")
    np.testing.assert_array_equal([found[c] for c in "RGB"], values_of(out, "1-normals.npy"))


def test_png16_holds_depth_at_a_stated_scale_and_class_ids(picture, predict, tmp_path):
    path, out = picture("a.png"), tmp_path / "out"
    for task, name in (("depth", "npy,png16"), ("semantic", "png16,npy")):
        predict(path, save=name, task=task)
        stored = imagecodecs.png_decode((out / f"a-{task}-16bit.png").read_bytes())
        assert stored.dtype == np.uint16 and stored.shape == (18, 24)
        said = json.loads((out / "manifest.json").read_text())["tasks"][task]["formats"]["png16"]
        values = values_of(out, f"a-{task}.npy")[0]
        np.testing.assert_allclose(stored / said["scale"], values, atol=0.5 / said["scale"])
        assert said["scale"] == {"depth": 1000, "semantic": 1}[task]


@pytest.mark.parametrize(("high", "scale"), [(11.0, 1000), (80.0, 256), (600.0, 109)])
def test_the_scale_leaves_room_for_the_range(high, scale, model):
    assert png16_scale(replace(model.tasks["depth"], high=high)) == scale
    assert high * scale < 65536


def test_depth_beyond_16_bits_is_refused_by_name(model, tmp_path):
    values = torch.tensor([0.0, 65.535, 65.5357, torch.nan]).view(1, 1, 2, 2)
    task, item = model.tasks["depth"], Item(Path("a.png"), "a")
    answer = Finished(task, Prediction("depth", values, values), torch.zeros(3, 2, 2), item)
    with pytest.raises(
        UserError, match=r"a\.png: 25\.0 % of depth is more than 65\.535.*exr or npy"
    ):
        parts(answer, ["png16"])["a-depth-16bit.png"](tmp_path / "a.png")
    values[0, 0, 1, 0] = 65.5354
    parts(answer, ["png16"])["a-depth-16bit.png"](tmp_path / "a.png")
    stored = imagecodecs.png_decode((tmp_path / "a.png").read_bytes())
    assert stored.tolist() == [[0, 65535], [65535, 0]]


def test_flo_is_middleburys(picture, predict, tmp_path):
    for i in range(2):
        picture(f"in/{i}.png", i)
    predict(tmp_path / "in", save="npy,flo", task="flow", change=consecutive)
    data = (tmp_path / "out" / "0-flow.flo").read_bytes()
    assert struct.unpack_from("<fii", data) == (202021.25, 24, 18)
    pixels = np.frombuffer(data[12:], "<f4").reshape(18, 24, 2)
    np.testing.assert_array_equal(
        pixels.transpose(2, 0, 1), values_of(tmp_path / "out", "0-flow.npy")
    )


def test_ply_is_read_by_plyfile(picture, predict, tmp_path):
    path, out = picture("a.png"), tmp_path / "out"
    with pytest.raises(UserError, match="--fov DEGREES"):
        predict(path, save="ply")
    predict(path, save="npy,ply", camera={"fov": 60.0})
    points = plyfile.PlyData.read(str(out / "a-depth.ply"))["vertex"]
    np.testing.assert_array_equal(points["z"], values_of(out, "a-depth.npy")[0].ravel())
    corner = points["x"][0] / points["z"][0]
    assert corner == pytest.approx(-np.tan(np.pi / 6) * 23 / 24, rel=1e-5)


def test_nothing_is_left_half_where_writing_fails(picture, predict, tmp_path, monkeypatch):
    def full(path, values, **how):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    path, out = picture("a.png"), tmp_path / "out"
    monkeypatch.setattr(np, "save", full)
    with pytest.raises(UserError, match=r"a-depth\.npy: cannot be written .*No space left"):
        predict(path, on_bad="skip")  # which is for pictures
    assert {one.name for one in out.iterdir()} == {"manifest.json", "predicted.jsonl"}
