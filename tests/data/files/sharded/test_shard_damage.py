"""Damaged shards: every member, every tar and the index are checked before they are used."""

from __future__ import annotations

import json

import pytest
from toys import shards

from stepsight.data.sharded.index import INDEX
from stepsight.errors import DataFormatError, UserError


def test_every_flipped_byte_of_a_member_is_noticed(folder, toys):
    path = folder / "shard-000000.tar"
    data = path.read_bytes()
    index = json.loads((folder / INDEX).read_text())["tars"][0]
    for suffix, (offset, size, _) in zip(index["suffixes"], index["members"][1]):
        flipped = bytearray(data)
        flipped[offset + size // 2] ^= 0x01
        path.write_bytes(flipped)
        with pytest.raises(DataFormatError, match=rf"shard-000000.tar, scene\.1/.*{suffix}.*CRC"):
            shards(folder)[1]


def test_tars_that_are_cut_or_missing_are_noticed_at_once(folder):
    path = folder / "shard-000001.tar"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataFormatError, match="shard-000001.tar: .* the index says"):
        shards(folder)
    path.unlink()
    with pytest.raises(UserError, match="shard-000001.tar is missing"):
        shards(folder)


def test_a_tar_that_is_cut_while_it_is_read_raises(folder):
    opened = shards(folder)
    path = folder / "shard-000001.tar"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataFormatError, match="cut off"):
        opened[5]


def broken(values: dict, *path: str | int, to: object) -> str:
    place = values
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = to
    return json.dumps(values)


@pytest.mark.parametrize(
    ("path", "to"),
    [
        (["format"], 2),
        (["count"], 6),
        (["source"], 3),
        (["classes"], 3),
        (["published"], {"train": "many"}),
        (["tars"], 3),
        (["tars"], []),
        (["tars", 0, "name"], "../../etc/passwd"),
        (["tars", 0, "keys"], ["a"]),
        (["tars", 0, "sizes", 0], [6]),
        (["tars", 0, "sizes", 0], [1 << 20, 1 << 20]),
        (["tars", 0, "sizes", 0], [0, 10]),
        (["tars", 0, "members", 0, 0], [-1, 5, 5]),
        (["tars", 0, "members", 0, 0], [0, 1 << 50, 5]),
        (["tars", 0, "members", 0, 0], ["a", 5, 5]),
        (["tars", 0, "members", 0, 0], [1 << 70, 5, 5]),
        (["tars", 0, "suffixes", 0], "depth.pkl"),
        (["tars", 0, "suffixes"], None),
    ],
    ids=str,
)
def test_an_index_that_is_not_one_is_refused(folder, path, to):
    file = folder / INDEX
    file.write_text(broken(json.loads(file.read_text()), *path, to=to))
    with pytest.raises(DataFormatError, match="index.json: no index of shards"):
        shards(folder)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[]", "null", "\xff"])
def test_an_index_that_is_no_json_object_is_refused(folder, text):
    (folder / INDEX).write_text(text, encoding="latin-1")
    with pytest.raises(DataFormatError, match="index.json"):
        shards(folder)


def test_a_sample_without_a_picture_is_refused(folder):
    file = folder / INDEX
    values = json.loads(file.read_text())
    place = values["tars"][0]["suffixes"].index("image.png")
    values["tars"][0]["members"][1][place] = [0, 0, 0]
    file.write_text(json.dumps(values))
    with pytest.raises(DataFormatError, match=r"shard-000000.tar, scene\.1/.*: has no picture"):
        shards(folder)[1]
