"""Pascal VOC: palette files written here, byte by byte; no real ones are at hand."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

import stepsight.data as data
from stepsight.data.check import check
from stepsight.data.readers.config import VocSettings
from stepsight.errors import DataFormatError, UserError

INDICES = np.array([[0, 1, 255], [20, 15, 0]], np.uint8)


def palette_png(indices: np.ndarray) -> bytes:
    """An 8-bit PNG of colour type 3, whose palette has the same colour everywhere."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", indices.shape[1], indices.shape[0], 8, 3, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in indices)
    chunks = [(b"IHDR", header), (b"PLTE", bytes(768)), (b"IDAT", zlib.compress(rows))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*parts) for parts in [*chunks, (b"IEND", b"")])


@pytest.fixture
def build(tmp_path, write_ppm):
    def write(indices=INDICES, train="a\nb", val="c\n"):
        lists = tmp_path / "ImageSets/Segmentation"
        labelled = tmp_path / "SegmentationClass"
        for folder in (lists, labelled):
            folder.mkdir(parents=True, exist_ok=True)
        contents = {"train": train, "val": val, "trainval": f"{train}\n{val}"}
        for name, content in contents.items():
            (lists / f"{name}.txt").write_text(content)
        for name in "abc":
            image = np.full((2, 3, 3), ord(name), np.uint8)
            write_ppm(tmp_path / f"JPEGImages/{name}.jpg", image)
            (labelled / f"{name}.png").write_bytes(palette_png(indices))
        return tmp_path

    return write


def test_palette_indices_are_the_classes(build):
    source = data.open("voc", build(), split="val")
    sample = source[0]
    assert sample.labels.tolist() == INDICES.tolist() and sample.key == "c"
    assert sample.image.unique().tolist() == [ord("c")]
    assert len(source.classes) == 21
    assert [source.classes[n] for n in (0, 1, 15, 20)] == [
        "background",
        "aeroplane",
        "person",
        "tvmonitor",
    ]


def test_splits(build):
    root = build()
    splits = ("train", "val", "trainval", "all")
    keys = {s: [sample.key for sample in data.open("voc", root, split=s)] for s in splits}
    assert keys == {"train": ["a", "b"], "val": ["c"], "trainval": [*"abc"], "all": [*"abc"]}
    published = [check(VocSettings(root=str(root)), s).published for s in splits]
    assert published == [1464, 1449, 2913, 2913]
    with pytest.raises(UserError, match="no split 'test' .*train 2, val 1, all 3"):
        data.open("voc", root, split="test")


@pytest.mark.parametrize("name", ["JPEGImages/b.jpg", "SegmentationClass/b.png"])
def test_a_missing_file(build, name):
    root = build()
    (root / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        data.open("voc", root, split="train")


@pytest.mark.parametrize(
    ("train", "reason"),
    [("", "'train' .* is empty"), ("a\n\nb", "train.txt, line 2: expected one name, found ''")],
)
def test_malformed_lists(build, train, reason):
    with pytest.raises(UserError, match=reason):
        data.open("voc", build(train=train), split="train")


def test_a_list_that_is_no_text(build):
    root = build()
    (root / "ImageSets/Segmentation/val.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataFormatError, match="val.txt: not a text file"):
        data.open("voc", root, split="val")


@pytest.mark.parametrize(
    ("indices", "reason"),
    [
        (np.full((2, 3), 21, np.uint8), "the label 21, where there are 21 classes"),
        (np.full((2, 3), 255, np.uint8), "no labelled pixel"),
        (INDICES[:, :2], "2 x 2 pixels, where its image has 2 x 3"),
    ],
)
def test_malformed_labels(build, indices, reason):
    with pytest.raises(DataFormatError, match=f"SegmentationClass/c.png: .*{reason}"):
        data.open("voc", build(indices), split="val")[0]


def test_colours_and_cuts_are_refused(build, write_png):
    root = build()
    path = write_png(root / "SegmentationClass/c.png", np.zeros((2, 3, 3), np.uint8))
    with pytest.raises(DataFormatError, match="c.png: 8-bit picture of mode RGB"):
        data.open("voc", root, split="val")[0]
    path.write_bytes(palette_png(INDICES)[:-15])
    with pytest.raises(DataFormatError, match="c.png: damaged PNG"):
        data.open("voc", root, split="val")[0]
