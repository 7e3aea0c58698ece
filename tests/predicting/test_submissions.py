"""What is sent to benchmarks: read back by the data sets' readers, and by decoders of others."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

import stepsight.data
from stepsight.data.decoding.formats import read_kitti_flow, read_known_flo
from stepsight.data.decoding.truth import read_flow
from stepsight.data.readers.listed import read_integer_depth
from stepsight.data.readers.masks.ade20k import CLASSES as ADE20K
from stepsight.data.readers.masks.cityscapes import CLASSES as CITYSCAPES
from stepsight.data.table import open_source, settings_for
from stepsight.errors import UserError
from stepsight.predicting.item import Item
from stepsight.predicting.submissions import COCO, SUBMISSIONS
from stepsight.tasks.config import SemanticSettings
from stepsight.types import IGNORE

RNG = np.random.default_rng(0)
FLOW = np.round(RNG.normal(0, 40, (2, 3, 4)) * 64) / 64


def sent(root: Path, name: str, picture: str, values: np.ndarray, second: str = "") -> Path:
    item = Item(Path("/data") / picture, second=Path(second))
    path = root / name / SUBMISSIONS[name].file(item)
    path.parent.mkdir(parents=True, exist_ok=True)
    SUBMISSIONS[name].write(path, values)
    return path


def task(name: str, classes: int = 0) -> Any:
    return SimpleNamespace(name=name, classes=classes)


def test_kitti_depth(tmp_path):
    depth = np.array([[[0.0005, 1.5, 80.0], [255.99609375, 300.0, 7.25]]])
    path = sent(tmp_path, "kitti-depth", "image/0000000005.png", depth)
    assert path == tmp_path / "kitti-depth/0000000005.png"
    read, valid = read_integer_depth(path, 256)
    held = depth.clip(1 / 256, 65535 / 256)
    assert valid.all() and np.array_equal(read.numpy(), held.astype(np.float32))
    assert np.array_equal(np.array(Image.open(path)), held[0] * 256)


def test_kitti_flow(tmp_path):
    path = sent(tmp_path, "kitti-flow", "testing/image_2/000007_10.png", FLOW, "000007_11.png")
    assert path == tmp_path / "kitti-flow/flow/000007_10.png"
    read, valid = read_kitti_flow(path)
    assert valid.all() and np.array_equal(read.numpy(), FLOW)
    data = path.read_bytes()
    start = data.index(b"IDAT")
    (length,) = struct.unpack(">I", data[start - 4 : start])
    rows = np.frombuffer(zlib.decompress(data[start + 4 : start + 4 + length]), np.uint8)
    pixels = rows.reshape(3, -1)[:, 1:].copy().view(">u2").reshape(3, 4, 3)
    assert np.array_equal((pixels[..., :2] - 2.0**15) / 64, FLOW.transpose(1, 2, 0))
    assert (pixels[..., 2] == 1).all()


def test_sintel(tmp_path):
    picture = "test/final/ambush_1/frame_0001.png"
    path = sent(tmp_path, "sintel", picture, FLOW, "frame_0002.png")
    assert path == tmp_path / "sintel/final/ambush_1/frame_0001.flo"
    assert np.array_equal(read_known_flo(path)[0].numpy(), FLOW.astype(np.float32))
    values = np.fromfile(path, "<f4")
    assert values[0] == np.float32(202021.25) and values[1:3].view("<i4").tolist() == [4, 3]
    assert np.array_equal(values[3:].reshape(3, 4, 2), FLOW.transpose(1, 2, 0).astype("f4"))


@pytest.mark.parametrize(("second", "way"), [("0005", "FW"), ("0003", "BW")])
def test_spring(tmp_path, second, way):
    picture = "test/0003/frame_left/frame_left_0004.png"
    path = sent(tmp_path, "spring", picture, FLOW, f"frame_left_{second}.png")
    assert path == tmp_path / f"spring/0003/flow_{way}_left/flow_{way}_left_0004.flo5"
    with h5py.File(path) as file:
        stored = file["flow"]
        assert (stored.dtype, stored.compression, stored.compression_opts) == ("f4", "gzip", 5)
        assert np.array_equal(stored[()], FLOW.transpose(1, 2, 0).astype("f4"))
    assert np.array_equal(read_flow(path)[0].numpy(), FLOW.astype(np.float32))


def test_ade20k(tmp_path):
    classes = np.arange(150).reshape(1, 10, 15)
    path = sent(tmp_path, "ade20k", "images/validation/ADE_val_00000001.jpg", classes)
    assert path == tmp_path / "ade20k/ADE_val_00000001.png"
    assert np.array(Image.open(path)).ravel().tolist() == [*range(1, 151)]
    for folder in ("images", "annotations"):
        (tmp_path / folder / "validation").mkdir(parents=True)
    Image.new("RGB", (15, 10)).save(tmp_path / "images/validation/ADE_val_00000001.jpg")
    path.rename(tmp_path / "annotations/validation/ADE_val_00000001.png")
    found = stepsight.data.open("ade20k", str(tmp_path), split="val")
    assert np.array_equal(found[0].labels, classes[0])


def test_cityscapes(tmp_path):
    classes = np.arange(19).reshape(1, 1, 19)
    picture = "leftImg8bit/val/ulm/ulm_000001_000019_leftImg8bit.png"
    path = sent(tmp_path, "cityscapes", picture, classes)
    assert path == tmp_path / "cityscapes/ulm_000001_000019_labelIds.png"
    assert np.array(Image.open(path))[0].tolist() == list(CITYSCAPES.values())
    image, truth = (tmp_path / f"{kind}/val/ulm" for kind in ("leftImg8bit", "gtFine"))
    image.mkdir(parents=True)
    truth.mkdir(parents=True)
    Image.new("RGB", (19, 1)).save(image / "ulm_000001_000019_leftImg8bit.png")
    path.rename(truth / "ulm_000001_000019_gtFine_labelIds.png")
    settings = settings_for("cityscapes", root=str(tmp_path))
    found = open_source(settings, "val", frozenset({"labels"}))
    assert found[0].labels.tolist() == classes[0].tolist()


def test_coco_panoptic(tmp_path):
    labels = np.array([[0, 0, 2, 132], [0, IGNORE, 80, 132]])
    instances = np.array([[1, 2, 1, 0], [2, 0, 0, 0]])
    path = sent(tmp_path, "coco-panoptic", "000000142238.jpg", np.stack([labels, instances]))
    folder = tmp_path / "coco-panoptic"
    SUBMISSIONS["coco-panoptic"].finish(folder)
    written = json.loads((folder / "panoptic.json").read_text())["annotations"]
    categories = sorted(COCO)
    pixels = np.array(Image.open(path)).astype(int) @ [1, 256, 65536]
    table = {s["id"]: s["category_id"] for s in written[0]["segments_info"]}
    assert written[0]["image_id"] == 142238 and table.keys() | {0} == {*pixels.ravel().tolist()}
    found = [[categories.index(table[p]) if p else IGNORE for p in row] for row in pixels.tolist()]
    assert found == labels.tolist() and pixels[0, 0] != pixels[0, 1] == pixels[1, 0]

    for segment in written[0]["segments_info"]:  # as a truth, for the reader of the set
        segment["iscrowd"] = 0
    root = tmp_path / "set"
    (root / "val2017").mkdir(parents=True)
    Image.new("RGB", (4, 2)).save(root / "val2017/000000142238.jpg")
    (root / "annotations/panoptic_val2017").mkdir(parents=True)
    path.rename(root / "annotations/panoptic_val2017/000000142238.png")
    whole = {
        "images": [{"id": 142238, "file_name": "000000142238.jpg", "height": 2, "width": 4}],
        "annotations": written,
        "categories": [{"id": c, "name": str(c), "isthing": int(c < 92)} for c in categories],
    }
    (root / "annotations/panoptic_val2017.json").write_text(json.dumps(whole))
    sample = stepsight.data.open("coco_panoptic", str(root), split="val")[0]
    assert sample.labels.tolist() == labels.tolist()
    assert sample.instances.tolist() == [[1, 2, 1, 0], [2, 0, 0, 0]]


def test_predict_writes_the_tree_and_its_list(laboratory, predict, picture, tmp_path):
    lab = laboratory()
    tasks = {"semantic": SemanticSettings(classes=len(COCO))}
    model = lab.pipeline(replace(lab.config(("semantic",)), tasks=tasks), statistics=False)
    for number in (7, 142238):
        picture(f"in/{number:012d}.png", number)
    predict(tmp_path / "in", task="semantic", pipeline=model, save="coco-panoptic")
    folder = tmp_path / "out" / "coco-panoptic"
    written = json.loads((folder / "panoptic.json").read_text())["annotations"]
    assert [one["image_id"] for one in written] == [7, 142238]
    for one in written:
        pixels = np.array(Image.open(folder / "panoptic" / one["file_name"])).astype(int)
        found = {*(pixels @ [1, 256, 65536]).ravel().tolist()}
        assert found == {segment["id"] for segment in one["segments_info"]}
        assert {segment["category_id"] for segment in one["segments_info"]} <= {*COCO}


@pytest.mark.parametrize(
    ("name", "picture", "reason"),
    [
        ("kitti-flow", "image_2/000000_11.png", "frames 000000_10 alone"),
        ("sintel", "ambush_1/frame_0001.png", "are {clean,final}/<scene>"),
        ("spring", "0001/left/0001.png", "Spring's frames are"),
        ("coco-panoptic", "photo.jpg", "called by their number"),
    ],
)
def test_pictures_that_it_wants_no_answer_to(name, picture, reason):
    with pytest.raises(UserError, match=reason):
        SUBMISSIONS[name].file(Item(Path("/data", picture)))


@pytest.mark.parametrize(
    ("name", "picture", "second"),
    [
        ("kitti-flow", "image_2/000000_10.png", "000001_10"),  # the next of those
        ("sintel", "clean/ambush_1/frame_0001.png", "frame_0003"),
        ("spring", "0001/frame_left/frame_left_0004.png", "frame_right_0005"),
    ],
)
def test_flow_to_another_frame_is_refused(name, picture, second):
    for item in (Item(Path(picture), second=Path(f"{second}.png")), Item(Path(picture))):
        with pytest.raises(UserError, match=f"its second frame is .*, not ({second}|none)"):
            SUBMISSIONS[name].file(item)


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("kitti-depth", np.full((1, 2, 2), np.nan), "holds NaN"),
        ("kitti-flow", np.full((2, 2, 2), -600.0), "flow of 600 px; KITTI's PNG ends at 511"),
        ("sintel", np.full((2, 2, 2), np.inf), "holds NaN or infinity"),
        ("ade20k", np.full((1, 2, 2), 150), "class 150, where the benchmark has 0 to 149"),
        ("cityscapes", np.full((1, 2, 2), -1), "class -1, where the benchmark has 0 to 18"),
        ("coco-panoptic", np.full((1, 2, 2), 133), "class 133, where the benchmark has 0 to 132"),
        ("coco-panoptic", np.full((2, 2, 2), 1000), "instance 1000, where 0 to 999"),
    ],
)
def test_values_that_it_cannot_hold(tmp_path, name, values, reason):
    with pytest.raises(UserError, match=f"a.png: .*{reason}"):
        SUBMISSIONS[name].write(tmp_path / "a.png", values)
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("name", SUBMISSIONS)
def test_tasks(name):
    fitting = {"kitti-depth": task("depth"), "ade20k": task("semantic", len(ADE20K))}
    fitting |= {flow: task("flow") for flow in ("kitti-flow", "sintel", "spring")}
    fitting |= {"cityscapes": task("semantic", 19), "coco-panoptic": task("panoptic", 133)}
    refuses = SUBMISSIONS[name].refuses
    assert refuses(fitting[name]) == "" and "it wants" in refuses(task("normals"))


def test_classes_off_by_one():
    assert SUBMISSIONS["ade20k"].refuses(task("semantic", 151)) == (
        "it has 150 classes, of which 0 is wall, and the model has 151: off by one, if one of them "
        "is the rest"
    )
    assert "the model has 7" in SUBMISSIONS["cityscapes"].refuses(task("semantic", 7))
