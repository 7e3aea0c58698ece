"""Folders of classes: written here as ImageNet is, and in all the ways that are wrong."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from stepsight.data.augment import flip
from stepsight.data.cache.bank import Bank
from stepsight.data.readers.config import ImageFolderSettings
from stepsight.data.readers.imagefolder import ImageFolder, centre_crop
from stepsight.errors import DataFormatError, UserError

FOLDERS = ("n02123045", "n01440764", "n03000000")  # not in order; the last holds no picture


@pytest.fixture
def root(tmp_path, write_png):
    """Three pictures for training and one for validation in each of two classes of three."""
    for split, names in {"train": ("b.png", "a.JPEG", "c.jpg"), "val": ("v.png",)}.items():
        for label, folder in enumerate(FOLDERS):
            (tmp_path / split / folder).mkdir(parents=True)
            for number, name in enumerate(names if label < 2 else ()):
                pixels = np.full((6 + number, 10, 3), 100 * label + number, np.uint8)
                path = write_png(tmp_path / split / folder / name, pixels)
                if path.suffix != ".png":
                    Image.fromarray(pixels).save(path, format="JPEG")
    (tmp_path / "train" / FOLDERS[0] / "notes.txt").write_text("not a picture")
    (tmp_path / "train" / FOLDERS[0] / "._a.JPEG").write_bytes(b"a Mac's")
    (tmp_path / "train" / ".cache").mkdir()
    return tmp_path


def open_at(root, split="train", size=(4, 4), quantities=None):
    return ImageFolder(ImageFolderSettings(root=str(root), size=size), split, quantities)


def test_classes_are_the_sorted_folders(root):
    for split in ("train", "val"):
        source = open_at(root, split)
        assert source.categories == tuple(sorted(FOLDERS)) and source.classes == ()
        assert source.quantities == {"class_id"}
        for sample in source:
            folder = sample.key.split("/")[1]
            assert sample.class_id == sorted(FOLDERS).index(folder)
            assert abs(int(sample.image[0, 0, 0]) - 100 * FOLDERS.index(folder)) <= 3


def test_entries_are_the_pictures_in_an_order_that_stays(root):
    expected = [f"train/{f}/{n}" for f in sorted(FOLDERS[:2]) for n in ("a.JPEG", "b.png", "c.jpg")]
    entries = open_at(root).entries
    assert sorted(entries) == expected and entries == [sample.key for sample in open_at(root)]
    assert entries == open_at(root).entries
    assert sorted(open_at(root, "val").entries) == [f"val/{f}/v.png" for f in sorted(FOLDERS[:2])]
    both = entries + open_at(root, "val").entries
    assert sorted(open_at(root, "all").entries) == sorted(both)


def test_the_first_entries_are_of_many_classes(tmp_path, write_png):
    for kind in range(20):
        (tmp_path / "train" / f"k{kind:02d}").mkdir(parents=True)
        for number in range(5):
            pixels = np.zeros((4, 4, 3), np.uint8)
            write_png(tmp_path / "train" / f"k{kind:02d}" / f"{number}.png", pixels)
    first = {entry.split("/")[1] for entry in open_at(tmp_path).entries[:20]}
    assert len(first) > 8


def test_without_splits(root):
    source = open_at(root / "train", "all")
    assert source.categories == tuple(sorted(FOLDERS))
    expected = [key.removeprefix("train/") for key in open_at(root).entries]
    assert source.entries == expected
    assert [s.class_id for s in source] == [s.class_id for s in open_at(root)]


def test_classes_not_asked_for(root):
    source = open_at(root, quantities=frozenset({"depth"}))
    assert source.quantities == frozenset() and source[0].class_id is None


def test_a_split_that_is_not_there(root):
    with pytest.raises(UserError, match=f"found 0 test/ under {root}"):
        open_at(root, "test")


def test_validation_pictures_that_are_not_sorted(root, write_png):
    shutil.rmtree(root / "val")
    write_png(root / "val" / "ILSVRC2012_val_00000001.png", np.zeros((4, 4, 3), np.uint8))
    for split in ("val", "all"):
        with pytest.raises(UserError, match="val has no class folders.*sort them into one folder"):
            open_at(root, split)
    assert len(open_at(root, "train")) == 6


@pytest.mark.parametrize("split", ["val", "all"])
def test_class_folders_that_differ(root, split):
    (root / "val" / FOLDERS[2]).rmdir()
    (root / "val" / "cat").mkdir()
    with pytest.raises(UserError, match=r"same class folders; .* \(of 2\): cat, n03000000\."):
        open_at(root, split)


def test_class_folders_without_pictures(root):
    for path in (root / "val").glob("*/*"):
        path.unlink()
    with pytest.raises(UserError, match=r"split 'val' in .* is empty"):
        open_at(root, "val")


def test_a_damaged_picture_is_named(root):
    path = root / "train" / FOLDERS[1] / "a.JPEG"
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, format="JPEG")
    for data in (path.read_bytes()[:-400], b"<html>404</html>"):
        path.write_bytes(data)
        with pytest.raises(DataFormatError, match=str(path)):
            list(open_at(root))


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA"])
def test_pictures_of_any_mode_become_rgb(root, mode):
    path = root / "val" / FOLDERS[1] / "v.png"
    image = Image.new("RGB", (8, 8), (70, 70, 70)).convert(mode)
    image.save(path, format="JPEG" if mode == "CMYK" else "PNG")  # whatever the name says
    found = next(one.image for one in open_at(root, "val") if FOLDERS[1] in one.key)
    assert found.shape == (3, 8, 8) and (found.int() - 70).abs().max() <= 2


@pytest.mark.parametrize(
    ("native", "size", "rows", "columns"),
    [
        ((6, 10), (4, 4), (0, 6), (2, 8)),
        ((10, 6), (4, 4), (2, 8), (0, 6)),
        ((7, 12), (32, 32), (0, 7), (2, 9)),
        ((8, 8), (64, 128), (2, 6), (0, 8)),
        ((5, 5), (3, 3), (0, 5), (0, 5)),
        ((1, 9), (128, 16), (0, 1), (4, 5)),
    ],
)
def test_the_crop_is_central_and_as_large_as_it_may(native, size, rows, columns):
    image = torch.arange(3 * native[0] * native[1]).reshape(3, *native).byte()
    expected = image[:, slice(*rows), slice(*columns)]
    assert torch.equal(centre_crop(image, size), expected)


def test_a_crop_of_the_mirrored_picture_is_the_mirrored_crop():
    image = torch.arange(3 * 6 * 10).reshape(3, 6, 10).byte()
    assert torch.equal(centre_crop(image.flip(-1), (4, 4)), centre_crop(image, (4, 4)).flip(-1))


def test_classes_survive_bank_and_mirror(root, tmp_path):
    source = open_at(root)
    bank = Bank(source, tmp_path / "bank", "v1", len(source))
    bank.fill()
    assert bank.categories == source.categories
    for one, other in zip(source, bank.samples(range(len(bank)))):
        assert other.image.shape == (3, 4, 4)
        assert type(other.class_id) is int and other.class_id == one.class_id
        assert flip(other).class_id == one.class_id
