"""Damaged files of every kind, bombs and payloads: a part of what `benchmarks/faults` tries."""

from __future__ import annotations

import json
import os
import re
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import stepsight.data as data
from stepsight.data.decoding import images, memory, pixels
from stepsight.data.decoding.hdf5 import read_hdf5
from stepsight.errors import DataFormatError, UserError

sys.path.insert(0, str(Path(__file__).parents[4]))
from benchmarks.faults import malformed, payloads
from benchmarks.faults.files.isolated import MEMORY, tried
from benchmarks.faults.files.specimens import specimens

pytest.importorskip("h5py")
pytest.importorskip("pycocotools")
FILES = 25


def test_damaged_files_of_every_kind_end_in_the_documented_error(tmp_path):
    (tmp_path / "made").mkdir()
    kinds = specimens(tmp_path / "made")
    found = {name: malformed.damaged(kind, tmp_path, FILES) for name, kind in kinds.items()}
    assert {name: one.faults for name, one in found.items() if one.failed} == {}
    assert all(one.tried == FILES for one in found.values()) and len(found) > 30


@pytest.mark.slow
def test_bombs_are_bounded(tmp_path):
    outcome = malformed.exploded(tmp_path / "bombs", quick=True)
    assert outcome.faults == () and outcome.tried > 30


def test_no_payload_runs(tmp_path):
    (tally,) = payloads.run(quick=True, folder=tmp_path / "payloads")
    assert tally.ok and tally.tried >= 30, tally.worst


def test_a_payload_that_ran_would_be_noticed(tmp_path):
    """What the test above rests on."""
    canary = tmp_path / "canary"
    os.system(payloads.Runs(canary).__reduce__()[1][0])
    assert canary.exists()


@pytest.mark.parametrize(
    ("case", "fault"),
    [
        (lambda _: 1 // 0, "ZeroDivisionError"),
        (lambda _: os.kill(os.getpid(), 9), "SIGKILL"),
        (lambda _: "said", "said"),
        (lambda _: bytearray(MEMORY + (1 << 25)).clear(), "took 2.. MB"),
    ],
)
def test_what_goes_wrong_in_a_child_is_noticed(case, fault):
    outcome = tried(case, 2)
    assert (outcome.tried, outcome.failed) == (2, 2)
    assert all(re.search(fault, one) for one in outcome.faults), outcome.faults


# ---------------------------------------------------------------------------- the limit


def saved(path, pixels: np.ndarray, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_large_picture_opens_within_the_limit(tmp_path, name):
    options = {"compress_level": 1} if name == "a.png" else {}
    path = saved(tmp_path / name, np.zeros((4000, 6000, 3), np.uint8), **options)

    def case(_: int) -> str | None:
        shape = tuple(images.read_image(path).shape)
        return None if shape == (3, 4000, 6000) else f"{shape}"

    assert tried(case, 1).faults == ()


def test_the_limit_says_how_to_raise_it_and_that_helps(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", np.zeros((1000, 1000, 3), np.uint8))
    monkeypatch.setenv(memory.VARIABLE, "5")
    with pytest.raises(DataFormatError, match="a.png: 1000 x 1000 pixels would take") as caught:
        images.read_image(path)
    name, _, value = str(caught.value).partition(" set ")[2].split()[0].partition("=")
    monkeypatch.setenv(name, value)
    assert images.read_image(path).shape == (3, 1000, 1000)
    monkeypatch.setenv(name, "much")
    with pytest.raises(UserError, match="STEPSIGHT_FILE_MB=much: a whole number"):
        images.read_image(path)


@pytest.mark.parametrize("kind", ["L", "P", "RGB", "RGBA", "1", "CMYK", "LA"])
def test_strips_make_the_picture_that_the_whole_makes(tmp_path, monkeypatch, kind):
    noise = np.random.default_rng(0).integers(0, 256, (13, 7, 3), np.uint8)
    path = tmp_path / ("a.jpg" if kind == "CMYK" else "a.png")
    Image.fromarray(noise).convert(kind).save(path)
    whole = images.read_image(path)
    monkeypatch.setattr(pixels, "STRIP", 21)
    assert (images.read_image(path) == whole).all() and whole.float().std() > 9


# ---------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "read", [images.read_image, images.image_size, partial(read_hdf5, key="x")]
)
def test_pipes_and_devices_are_no_files(tmp_path, read):
    os.mkfifo(tmp_path / "pipe.png")  # which nobody writes to: opening it would wait for ever
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "zero.png"):
        with pytest.raises(UserError, match=f"{name}: a device or a pipe"):
            read(tmp_path / name)


NAMES = [".", "..", "", "a/..", "a\0b.png", "\ud800.png", "x" * 5000, "/dev/zero", "a.png\n"]


@pytest.mark.parametrize("part", ["image", "depth", "key"])
@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_in_a_list_that_are_none(tmp_path, part, name):
    saved(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8))
    saved(tmp_path / "d.png", np.ones((4, 4), np.uint16))
    record = {"image": "a.png", "depth": "d.png", "key": "k", "split": "all"} | {part: name}
    (tmp_path / "list.jsonl").write_text(json.dumps(record))
    if part == "key" and name in (".", "..", "a/..", "/dev/zero", "a.png\n"):
        return  # a text like any other
    with pytest.raises(UserError) as caught:
        source = data.open("folder", str(tmp_path), list="list.jsonl")
        source.samples(range(len(source)))
    assert str(caught.value).isprintable() and len(str(caught.value)) < 3000
