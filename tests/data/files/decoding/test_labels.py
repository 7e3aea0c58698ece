"""Label maps: values, colours and outlines -> classes, or a refusal that says what to name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stepsight.data.decoding.labels import label_codes
from stepsight.data.decoding.masks import read_mask
from stepsight.data.table import open_source, settings_for
from stepsight.errors import DataFormatError, UserError

STORED = np.array([[0, 1, 2, 2], [3, 3, 255, 0], [1, 1, 1, 0]], np.uint8)
COLOURS = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [1, 2, 3]], np.uint8)
LEGEND = [
    {"name": "wall", "color": [0, 255, 0]},
    {"name": "void", "color": [0, 0, 0], "ignore": True},
    {"name": "door", "color": [255, 0, 0]},
]


def decoded(path: Path, codes: str = "", classes: int = 0) -> tuple[list, tuple[str, ...]]:
    found = label_codes(codes, path.parent, [path], classes)
    return found.read(path).tolist(), found.names


def png(path: Path, values: np.ndarray) -> Path:
    Image.fromarray(values).save(path)
    return path


@pytest.mark.parametrize("kind", ["grey", "palette", "16 bits", "grey RGB", "npy", "float npy"])
def test_values_are_classes(tmp_path, kind):
    path = tmp_path / ("a.npy" if "npy" in kind else "a.png")
    match kind:
        case "palette":
            image = Image.fromarray(STORED).convert("P")
            image.putpalette([n // 3 * 7 % 256 for n in range(768)])
            image.putdata(STORED.ravel().tolist())
            image.save(path)
        case "grey RGB":
            png(path, np.repeat(STORED[..., None], 3, 2))
        case "npy" | "float npy":
            np.save(path, STORED.astype(np.int32 if kind == "npy" else np.float32)[None])
        case _:
            png(path, STORED.astype(np.uint16) if kind == "16 bits" else STORED)
    assert decoded(path) == (STORED.tolist(), ("0", "1", "2", "3"))


def test_one_bit_and_two_values_are_two_classes(tmp_path):
    path = png(tmp_path / "a.png", STORED > 1)
    assert decoded(path) == ((STORED > 1).astype(int).tolist(), ("0", "1"))


def test_classes_from_one(tmp_path):
    labels, names = decoded(png(tmp_path / "a.png", STORED), "1..")
    assert labels == np.where(np.isin(STORED, (0, 255)), 255, STORED - 1.0).tolist()
    assert names == ("0", "1", "2")


def test_cityscapes_ids(tmp_path):
    labels, names = decoded(png(tmp_path / "a.png", STORED * 7 + 4), "cityscapes")
    assert labels == [[255, 2, 255, 255], [12, 12, 255, 255], [2, 2, 2, 255]]  # 4, 11, 18, 25, 253
    assert names[2] == "building" and names[12] == "rider" and len(names) == 19


def test_colours_by_a_legend(tmp_path):
    (tmp_path / "legend.json").write_text(json.dumps(LEGEND))
    places = np.where(STORED > 2, 0, STORED)
    path = png(tmp_path / "a.png", COLOURS[places])
    labels, names = decoded(path, "legend.json")
    assert names == ("wall", "door")
    assert labels == np.array([255, 1, 0])[places].tolist()
    assert decoded(path, str(tmp_path / "legend.json"))[0] == labels
    with pytest.raises(
        DataFormatError, match="a.png: a label map in colours; name a legend of its"
    ):
        decoded(path)
    png(path, COLOURS[np.minimum(STORED, 3)])
    with pytest.raises(DataFormatError, match="the colour 1, 2, 3, which .*legend.json does not"):
        decoded(path, "legend.json")


def test_ids_by_a_legend(tmp_path):
    legend = [{"name": "a", "id": 300}, {"name": "b", "id": 0}, {"name": "c", "id": 7}]
    (tmp_path / "l.json").write_text(json.dumps(legend))
    path = png(tmp_path / "a.png", np.array([[300, 0], [7, 255]], np.uint16))
    assert decoded(path, "l.json") == ([[0, 1], [2, 255]], ("a", "b", "c"))
    png(path, np.array([[300, 1]], np.uint16))
    with pytest.raises(
        DataFormatError, match="holds the label 1, where there are the ids of .*l.j"
    ):
        decoded(path, "l.json")


@pytest.mark.parametrize(
    ("legend", "reason"),
    [
        ({}, "a legend is a list of objects"),
        ([{"name": "a", "color": [1, 2]}], "'color' is not"),
        ([{"name": "a", "color": [1, 2, 300]}], "'color' is not"),
        ([{"name": "a", "id": 1}, {"name": "b"}], "entry 1: 'id' is missing"),
        ([{"name": "a", "id": 70000}], "the id 70000 is none of 0 to 65535"),
        ([{"id": 7}], "'name' is missing"),
    ],
)
def test_damaged_legends(tmp_path, legend, reason):
    (tmp_path / "l.json").write_text(json.dumps(legend))
    with pytest.raises(DataFormatError, match=f"l.json.*{reason}"):
        label_codes("l.json", tmp_path)


def test_other_codes_and_values_are_named(tmp_path):
    with pytest.raises(
        UserError, match="class_codes=2.. is none of '', 1.., cityscapes, or a JSON"
    ):
        label_codes("2..", tmp_path)
    path = png(tmp_path / "a.png", STORED)
    with pytest.raises(
        DataFormatError, match="a.png: holds the label 3, where there are 3 classes"
    ):
        decoded(path, classes=3)
    with pytest.raises(DataFormatError, match="holds no labelled pixel"):
        decoded(png(path, np.full((2, 3), 255, np.uint8)))
    np.save(tmp_path / "a.npy", np.array([[0.5, 1]]))
    with pytest.raises(DataFormatError, match="where whole numbers"):
        decoded(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", np.array([[-1, 1]]))
    with pytest.raises(DataFormatError, match="a.npy: holds the label -1"):
        decoded(tmp_path / "a.npy")
    Image.fromarray(STORED).save(tmp_path / "a.bmp", format="JPEG")
    with pytest.raises(DataFormatError, match="a.bmp: JPEG changes values; labels need PNG"):
        decoded(tmp_path / "a.bmp")


SQUARE = [[1, 1], [5, 1], [5, 4], [1, 4]]
DRAWN = np.zeros((6, 8), int)
DRAWN[1:4, 1:5] = 1


def labelme(path: Path, *shapes: dict) -> Path:
    record = {"imageHeight": 6, "imageWidth": 8, "imagePath": "..\\a.jpg", "shapes": [*shapes]}
    path.write_text(json.dumps(record))
    return path


def shape(label: str, points: list, kind: str = "polygon") -> dict:
    return {"label": label, "points": points, "shape_type": kind}


def coco(path: Path, *annotations: dict) -> Path:
    images = [
        {"id": 5, "file_name": "b/one.jpg", "height": 6, "width": 8},
        {"id": 6, "file_name": "b/two.jpg", "height": 6, "width": 8},
    ]
    kinds = [{"id": 9, "name": "cup"}, {"id": 3, "name": "table"}]
    record = {"images": images, "categories": kinds, "annotations": [*annotations]}
    path.write_text(json.dumps(record))
    return path


def annotation(number: int, category: int, points: list, **more) -> dict:
    flat = [number for point in points for number in point]
    known = {"id": number, "image_id": 5, "category_id": category, "segmentation": [flat]}
    return known | {"iscrowd": 0, "area": 12.0} | more


def test_labelme_draws_in_order_over_a_background(tmp_path):
    path = labelme(
        tmp_path / "a.json",
        shape("cup", SQUARE),
        shape("__ignore__", [[0, 5], [8, 6]], "rectangle"),
        shape("ant", [[1, 1], [2, 4]], "rectangle"),
    )
    expected = DRAWN * 2
    expected[5], expected[1:4, 1] = 255, 1
    assert decoded(path) == (expected.tolist(), ("_background_", "ant", "cup"))
    assert read_mask(f"{path}#0")[0].tolist() == DRAWN.tolist()
    labelme(path, shape("cup", SQUARE))
    assert read_mask(path)[0].tolist() == DRAWN.tolist()


def test_a_circle_and_a_legend_without_background(tmp_path):
    path = labelme(tmp_path / "a.json", shape("cup", [[4, 3], [6, 3]], "circle"))
    (tmp_path / "l.json").write_text(
        json.dumps([{"name": "ant", "id": 0}, {"name": "cup", "id": 1}])
    )
    labels, _ = decoded(path, "l.json")
    disc = (np.mgrid[:6, :8] + 0.5 - np.array([3, 4])[:, None, None]) ** 2
    assert labels == np.where(disc.sum(0) < 4, 1, 255).tolist()


def test_coco_draws_small_objects_last_and_leaves_crowds_out(tmp_path):
    small = [[2, 2], [4, 2], [4, 3], [2, 3]]
    path = coco(
        tmp_path / "a.json",
        annotation(1, 9, small, area=2.0),
        annotation(2, 3, SQUARE),
        annotation(3, 3, [[6, 0], [8, 0], [8, 6], [6, 6]], iscrowd=1),
    )
    codes = label_codes("", tmp_path, [Path(f"{path}#5")])
    assert codes.names == ("_background_", "table", "cup")
    expected = DRAWN.copy()
    expected[2, 2:4], expected[:, 6:] = 2, 255
    for name in ("5", "b/one.jpg", "one.jpg", "one"):
        assert codes.read(Path(f"{path}#{name}")).tolist() == expected.tolist()
    assert codes.read(Path(f"{path}#two")).tolist() == (DRAWN * 0).tolist()
    assert read_mask(f"{path}#2")[0].tolist() == DRAWN.tolist()


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ("", "2 pictures; write a.json#PICTURE in a list"),
        ("#tow", "no picture 'tow'.*Did you mean 'two'|no picture 'tow'. Choose from"),
    ],
)
def test_a_picture_that_is_not_there(tmp_path, part, reason):
    path = coco(tmp_path / "a.json", annotation(1, 9, SQUARE))
    with pytest.raises(DataFormatError, match=reason):
        decoded(Path(f"{path}{part}"))
    with pytest.raises(DataFormatError, match="no object '7'; write a.json#ID, ID one of 1"):
        read_mask(f"{path}#7")


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (shape("cup", [[1, 1], [2, 2]], "line"), "shape 0: a 'line' of 2 points has no area"),
        (shape("cup", [[1, 1], ["x", 2], [3, 3]]), "shape 0: its points are not pairs"),
        ({"points": SQUARE}, "shape 0: 'label' is missing"),
    ],
)
def test_shapes_that_cannot_be_drawn(tmp_path, made, reason):
    path = labelme(tmp_path / "a.json", made)
    codes = label_codes("", tmp_path, [labelme(tmp_path / "b.json", shape("cup", SQUARE)), path])
    with pytest.raises(DataFormatError, match=f"a.json, {reason}"):
        codes.read(path)


def test_other_json_and_names_outside_the_legend(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(DataFormatError, match="a.json: neither LabelMe's JSON nor COCO's"):
        read_mask(tmp_path / "a.json#1")
    (tmp_path / "l.json").write_text(json.dumps([{"name": "cup", "id": 0}]))
    path = labelme(tmp_path / "b.json", shape("cop", SQUARE))
    with pytest.raises(DataFormatError, match="b.json, shape 0: 'cop' is no class. Did you mean"):
        decoded(path, "l.json")


def test_a_list_of_outlined_objects(tmp_path):
    """Through the reader: label maps and objects of one COCO file, by a list."""
    Image.new("RGB", (8, 6)).save(tmp_path / "one.png")
    coco(tmp_path / "a.json", annotation(1, 9, SQUARE))
    line = {"image": "one.png", "labels": "a.json#5", "modal": "a.json#1", "amodal": "a.json#1"}
    (tmp_path / "list.jsonl").write_text(json.dumps(line))
    settings = settings_for("folder", root=str(tmp_path), list="list.jsonl")
    source = open_source(settings, "all")
    sample = source[0]
    assert source.classes == ("_background_", "table", "cup")
    assert torch.equal(sample.labels, torch.from_numpy(DRAWN * 2))
    assert sample.modal[0].tolist() == (DRAWN > 0).tolist()
