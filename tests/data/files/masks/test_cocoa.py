"""COCO-A, BSDS-A and MP3D-Amodal: annotation files written here, and real COCO-A."""

from __future__ import annotations

import json

import numpy as np
import pytest

import stepsight.data as data
from stepsight.errors import DataFormatError, UserError

pytest.importorskip("pycocotools")

HEIGHT, WIDTH = 6, 8
SQUARE = [2.0, 1.0, 5.0, 1.0, 5.0, 4.0, 2.0, 4.0]  # rows 1 to 3, columns 2 to 4
LEFT = {"size": [HEIGHT, WIDTH], "counts": [13, 3, 32]}  # column 2, rows 1 to 3
STRAY = {"size": [HEIGHT, WIDTH], "counts": [0, 1, 12, 3, 32]}  # and the top left pixel
NOTHING = {"size": [HEIGHT, WIDTH], "counts": [48]}
OPEN, HALF = {"segmentation": SQUARE}, {"segmentation": SQUARE, "visible_mask": LEFT}


def annotations(regions, name="COCO_val2014_000000000007.jpg", count=1):
    """As published: the image, and `count` annotators' regions of it."""
    image = {"id": 7, "file_name": name, "height": HEIGHT, "width": WIDTH}
    record = {"image_id": 7, "regions": regions, "depth_constraint": "1-2"}
    return {"images": [image], "annotations": [record] * count}


@pytest.fixture
def build(tmp_path, write_ppm):
    def write(content, file="COCO_amodal_val2014.json", picture="val2014/COCO_val2014_{}.jpg"):
        path = tmp_path / "annotations" / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        write_ppm(tmp_path / picture.format("000000000007"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
        return tmp_path

    return write


def test_visible_and_whole(build):
    source = data.open("cocoa", build(annotations([OPEN, HALF])), split="val")
    plain, half = source
    assert [plain.key, half.key] == [f"COCO_val2014_000000000007/{n}" for n in (1, 2)]
    assert plain.modal.equal(plain.amodal) and plain.amodal.equal(half.amodal)
    assert half.amodal[0, 1:4, 2:5].all() and half.amodal.sum() == 9
    assert half.modal[0, 1:4, 2].all() and half.modal.sum() == 3
    assert half.amodal_valid.all() and half.amodal_valid.shape == (1, HEIGHT, WIDTH)


def test_the_whole_contains_the_visible(build):
    region = {"segmentation": SQUARE, "visible_mask": STRAY}
    sample = data.open("cocoa", build(annotations([region])))[0]
    assert sample.modal.sum() == 4 and sample.amodal.sum() == 10
    assert not (sample.modal & ~sample.amodal).any()


def test_hidden_objects_are_left_out_and_keep_their_number(build):
    hidden = {"segmentation": SQUARE, "visible_mask": NOTHING}
    outside = {"segmentation": [-5, -5, -1, -5, -1, -1]}
    source = data.open("cocoa", build(annotations([hidden, outside, HALF])))
    assert [sample.key for sample in source] == ["COCO_val2014_000000000007/3"]


def test_splits(build):
    build(annotations([OPEN]))
    name = "COCO_train2014_000000000008.jpg"
    root = build(
        annotations([OPEN, OPEN], name),
        "COCO_amodal_train2014.json",
        "train2014/COCO_train2014_000000000008.jpg",
    )
    lengths = [len(data.open("cocoa", root, split=s)) for s in ("train", "val", "all")]
    assert lengths == [2, 1, 3]
    with pytest.raises(UserError, match=r"no split 'test' .*train 2, val 1, all 3"):
        data.open("cocoa", root, split="test")


def test_masks_only_for_those_who_ask(build):
    source = data.open("cocoa", build(annotations([HALF])), split="val")
    source.quantities = frozenset()
    assert source[0].modal is None and source[0].image.shape == (3, HEIGHT, WIDTH)


def test_a_missing_picture(build):
    root = build(annotations([OPEN]))
    (root / "val2014/COCO_val2014_000000000007.jpg").unlink()
    with pytest.raises(UserError, match=r"COCO_val2014_000000000007.jpg is missing"):
        data.open("cocoa", root)


MALFORMED = {
    "empty file": ("", "val2014.json: not JSON"),
    "cut off": (json.dumps(annotations([OPEN]))[:-40], "val2014.json: not JSON"),
    "nested": ("[" * 100_000, "val2014.json: not JSON"),
    "a list": ([], "'images' is missing or not a list"),
    "no annotations": ({"images": []}, "'annotations' is missing"),
    "no regions": (annotations(None), "annotation 0: 'regions' is missing or not a list"),
    "no outline": (annotations([{}]), "annotation 0, region 1: 'segmentation' is missing"),
    "unlisted": (annotations([OPEN]) | {"images": []}, "image 7 is not in the list"),
    "size 0": (
        {"images": [{"id": 7, "file_name": "a.jpg", "height": 0, "width": 8}], "annotations": []},
        "image 0: height and width must be at least 1",
    ),
    "empty list": ({"images": [], "annotations": []}, "split 'all' .* is empty"),
}


@pytest.mark.parametrize(("content", "reason"), MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_annotations(build, content, reason):
    with pytest.raises(UserError, match=reason):
        data.open("cocoa", build(content))


@pytest.mark.parametrize(
    ("region", "reason"),
    [
        ({"segmentation": [1, 2]}, "region 1: a polygon is not a list"),
        ({"segmentation": [1, 1, 5, 1, None, 5]}, "region 1: a polygon has a coordinate"),
        (HALF | {"visible_mask": {"size": [9, 9], "counts": [81]}}, r"size \[9, 9\] on 6 x 8"),
        (HALF | {"visible_mask": {"size": [6, 8], "counts": "zz"}}, "region 1: .*counts"),
        (HALF | {"visible_mask": "x"}, "region 1: a polygon"),
    ],
)
def test_malformed_regions(build, region, reason):
    source = data.open("cocoa", build(annotations([region])))
    with pytest.raises(
        DataFormatError, match=f"COCO_amodal_val2014.json, annotation 0, .*{reason}"
    ):
        source[0]


def test_a_picture_of_another_size(build, write_ppm):
    root = build(annotations([OPEN]))
    write_ppm(root / "val2014/COCO_val2014_000000000007.jpg", np.zeros((6, 7, 3), np.uint8))
    with pytest.raises(DataFormatError, match=r"007.jpg: 6 x 7 pixels, where .* has 6 x 8"):
        data.open("cocoa", root)[0]


def test_damaged_picture(build):
    root = build(annotations([OPEN]))
    (root / "val2014/COCO_val2014_000000000007.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(DataFormatError, match="007.jpg: "):
        data.open("cocoa", root)[0]


def test_annotators_of_bsds_are_told_apart(build):
    content = annotations([OPEN, HALF], "100075.jpg", count=2)
    root = build(content, "BSDS_amodal_train.json", "images/train/100075.jpg")
    keys = [sample.key for sample in data.open("bsdsa", root, split="train")]
    assert keys == [f"100075/annotator {a}/{n}" for a in (1, 2) for n in (1, 2)]


def test_mp3d_has_run_lengths_for_the_whole(build):
    whole = {"size": [HEIGHT, WIDTH], "counts": [13, 3, 3, 3, 26]}
    content = annotations([HALF | {"segmentation": whole}], "room/7.png")
    root = build(content, "MP3D_seleted_eval_10.29.json", "mp3d_eval/room/7.png")
    (sample,) = data.open("mp3d_amodal", root, split="eval")
    assert sample.key == "room/7/1" and (sample.modal.sum(), sample.amodal.sum()) == (3, 6)


def test_real_files(real_samples):
    """The files state the areas: of the whole, and of what hides it as a share of that."""
    root = real_samples("cocoa")
    source = data.open("cocoa", root)
    paths = sorted(root.glob("*.json"))
    regions = [region for path in paths for region in json.loads(path.read_text())["regions"]]
    assert len(source) == len(regions) == 32
    assert len({sample.key for sample in source}) == 32
    for sample, region in zip(source, regions):
        assert sample.amodal.sum() == region["area"]
        visible = region["area"] * (1 - region["occlude_rate"])
        assert sample.modal.sum().item() == pytest.approx(visible, abs=0.5)
