"""A picture lies in a tar once, samples keep the truth they have, and rules speak on the way."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from toys import Toys, shards

import stepsight.data
from stepsight.cli.main import main
from stepsight.data.check import check
from stepsight.data.config import ShardsSettings
from stepsight.data.sharded.index import INDEX, read_index, write_index
from stepsight.data.sharded.writing import write_shards
from stepsight.data.table import having, open_source, settings_for


class Objects(Toys):
    """Samples of two pictures, in turn: an object each."""

    def __init__(self, made, count: int = 7) -> None:
        super().__init__(made, count)
        pictures = [made(100 + n, 6, 10).image for n in range(2)]
        self.rows = [
            replace(made(n, 6, 10), key=row.key, source="toys", image=pictures[n % 2])
            for n, row in enumerate(self.rows)
        ]


def pictures_in(folder) -> Counter:
    names = []
    for path in folder.glob("*.tar"):
        with tarfile.open(path) as tar:
            names += tar.getnames()
    return Counter(name.partition(".")[2] for name in names)


@pytest.mark.parametrize("quality", [None, 90])
def test_a_picture_lies_in_a_tar_once(full_sample, tmp_path, assert_same, quality):
    objects = Objects(full_sample)
    write_shards(objects, tmp_path / "s", split="train", per_shard=4, quality=quality)
    image = "image.png" if quality is None else "image.jpg"
    assert pictures_in(tmp_path / "s")[image] == 4  # two in each of two tars
    assert pictures_in(tmp_path / "s")["depth.npy"] == 7
    opened = shards(tmp_path / "s")
    if quality is None:
        for truth, back in zip(objects.rows, opened):
            assert_same(truth, back)
    else:
        assert torch.equal(opened[0].image, opened[2].image)
    index = json.loads((tmp_path / "s" / INDEX).read_text())["tars"][0]
    places = [row[index["suffixes"].index(image)] for row in index["members"]]
    assert places[0] == places[2] != places[1] == places[3]


def test_webdataset_finds_the_member_that_holds_it(full_sample, tmp_path):
    write_shards(Objects(full_sample), tmp_path / "s", per_shard=9)
    with tarfile.open(tmp_path / "s" / "shard-000000.tar") as tar:
        names = tar.getnames()
        about = [json.load(tar.extractfile(n)) for n in names if n.endswith(".json")]
    assert ["held" in one for one in about] == [False, False, *[True] * 5]
    assert all(one["held"]["image"] in names for one in about[2:])


def test_stopped_and_written_by_two_it_is_the_same(full_sample, tmp_path):
    class Stopping(Objects):
        def __getitem__(self, index: int):
            if index == 5:
                raise KeyboardInterrupt
            return super().__getitem__(index)

    def content(name: str) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}

    with pytest.raises(KeyboardInterrupt):
        write_shards(Stopping(full_sample), tmp_path / "a", per_shard=3)
    write_shards(Objects(full_sample), tmp_path / "a", per_shard=3)
    write_shards(Objects(full_sample), tmp_path / "b", per_shard=3, workers=2)
    assert content("a") == content("b")


def test_shards_of_before_are_read(full_sample, tmp_path, assert_same):
    """Each sample with its picture, and an index without remarks."""
    toys = Toys(full_sample)
    write_shards(toys, tmp_path / "s", split="train", per_shard=3)
    index = read_index(tmp_path / "s" / INDEX)
    del index.about["remarks"]
    write_index(tmp_path / "s", index)
    for truth, back in zip(toys.rows, shards(tmp_path / "s")):
        assert_same(truth, back)


# ------------------------------------------------------------------------ truth per sample


@pytest.fixture
def own(tmp_path, write_png):
    """Four pictures, three with depth, two with labels, one with none."""
    root, rng = tmp_path / "own", np.random.default_rng(0)
    for number in range(4):
        pixels = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        write_png(root / f"images/{number}.png", pixels)
        depth = (2000 + 500 * np.arange(48).reshape(6, 8) + number).astype(np.uint16)
        if number < 3:
            write_png(root / f"depth/{number}.png", depth)
        if number in (1, 2):
            write_png(root / f"labels/{number}.png", np.eye(6, 8, dtype=np.uint8))
    return root


def test_samples_keep_the_truth_they_have(own, tmp_path, assert_same):
    source = stepsight.data.open("folder", str(own), split="all")
    write_shards(source, tmp_path / "s", per_shard=3)
    opened = shards(tmp_path / "s", "all")
    assert len(opened) == 4 and opened.quantities == {"depth", "labels"}
    assert opened.truths == source.truths
    assert opened.notes == ("depth: 3 of 4 samples", "labels: 2 of 4 samples")
    for truth, back in zip(source, opened):
        assert_same(truth, back)
    part = having(opened, frozenset({"labels"}))
    assert part is not None and [sample.key for sample in part] == [source[n].key for n in (1, 2)]
    depth = open_source(ShardsSettings(root=str(tmp_path / "s")), "all", frozenset({"depth"}))
    assert depth.quantities == {"depth"} and depth.truths[3] == frozenset()


def test_fingerprints_are_equal(own, tmp_path):
    write_shards(stepsight.data.open("folder", str(own)), tmp_path / "s", per_shard=2)
    there = check(settings_for("shards", root=str(tmp_path / "s")))
    assert there.fingerprint == check(settings_for("folder", root=str(own))).fingerprint


# ------------------------------------------------------------------------ what rules say


def test_the_command_says_what_check_says(own, tmp_path, write_png, capsys):
    for number in range(3):  # of all that is no depth: the same everywhere
        write_png(own / f"depth/{number}.png", np.full((6, 8), 65535, np.uint16))
    assert main(["data", "check", "folder", str(own)]) == 1
    told = [line for line in capsys.readouterr().out.splitlines() if "FINDING" in line]
    for _ in range(2):  # also when nothing is left to write
        assert main(["data", "shard", "folder", str(own), "--out", str(tmp_path / "s")]) == 0
        said = capsys.readouterr().out
        assert told and all(line in said for line in told) and "4 samples" in said
    assert "depth: 3 of 4 pictures" in said
