"""Rows on disk: in shards, laid out once by whoever is first, and refused when damaged or others'.

That banks resume, share the work and survive a kill is tested in test_bank.py.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest

from stepsight.data.cache import store as module
from stepsight.data.cache.store import Store
from stepsight.errors import DataFormatError, UserError

ROW = np.dtype([("number", np.int64), ("cells", np.float16, (2, 3))], align=True)
COUNT = 21  # five whole shards and a part of one, with four rows a shard
MADE_OF = {"source": "toys", "size": [2, 3], "nested": {"scale": 3.0, "on": True}}


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 2)
    monkeypatch.setattr(module, "SHARD", 4)


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "deep" / "store"


def lay_out(folder: Path, count: int = COUNT, **changes) -> Store:
    return Store(folder, "cache", MADE_OF | changes, count, lambda: ROW)


def rows_of(block: range) -> np.ndarray:
    rows = np.zeros(len(block), ROW)
    rows["number"] = block
    rows["cells"] = np.arange(6).reshape(2, 3) + np.array(block)[:, None, None]
    return rows


def fill(store: Store, rank: int = 0, world: int = 1, stop: int | None = None) -> list[range]:
    blocks = store.blank_blocks(rank, world, stop)
    for block in blocks:
        store.write(block, rows_of(block))
    return blocks


def test_rows_lie_in_files_of_a_shard_each(folder):
    fill(lay_out(folder))
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["done.npy", *(f"rows-{i:05d}.npy" for i in range(6)), "store.json"]
    for number in range(6):  # plain numpy files, to be read by anything
        held = np.load(folder / f"rows-{number:05d}.npy")
        assert held.dtype == ROW
        assert held["number"].tolist() == list(range(4 * number, min(4 * number + 4, COUNT)))
    assert np.load(folder / "done.npy").tolist() == [1] * COUNT


@pytest.mark.parametrize(
    "indices",
    [
        [0],
        [3, 4],
        [20, 0, 7, 8, 20],
        [13, 12, 15],
        list(range(COUNT)),
        list(range(COUNT))[::-1],
        [],
    ],
)
def test_rows_are_read_in_the_order_asked_whatever_shard_they_lie_in(folder, indices):
    fill(lay_out(folder))
    store = Store(folder, "cache", MADE_OF)
    found = store.read(np.array(indices, dtype=int))
    assert found.dtype == ROW and found["number"].tolist() == indices
    for row, index in zip(found, indices):
        assert np.array_equal(row["cells"], rows_of(range(index, index + 1))[0]["cells"])


def test_what_is_read_is_a_copy(folder):
    store = lay_out(folder)
    fill(store)
    for indices in ([2, 3], [3, 4]):  # in one shard, and across two
        store.read(np.array(indices))["number"] = -1
        assert store.read(np.array(indices))["number"].tolist() == indices


def test_blocks_are_shared_out_and_end_where_told(folder):
    store = lay_out(folder)
    shares = [store.blank_blocks(rank, 3, None) for rank in range(3)]
    assert sorted(i for share in shares for block in share for i in block) == list(range(COUNT))
    assert shares[1][:2] == [range(2, 4), range(8, 10)]
    assert fill(store, stop=5) == [range(0, 2), range(2, 4), range(4, 5)]
    assert store.missing() == COUNT - 5
    with pytest.raises(UserError, match="row 5 is blank; fill the cache first"):
        store.read(np.array([4, 5]))
    assert fill(store)[0] == range(4, 6)  # a block that was cut off is made anew, as a whole
    assert store.missing() == 0 and fill(store) == []


def test_rows_written_by_one_are_seen_by_another_that_was_open(folder):
    writer = lay_out(folder)
    reader = Store(folder, "cache", MADE_OF)
    assert reader.missing() == COUNT
    fill(writer)
    assert reader.missing() == 0 and reader.read(np.array([17]))["number"] == 17


def test_of_those_that_begin_at_once_one_lays_out_and_all_have_its_rows(folder):
    together = Barrier(6)

    def begin(rank: int) -> Store:
        def row_type() -> np.dtype:
            together.wait(timeout=30)  # all have found the folder missing
            return ROW

        return Store(folder, "cache", MADE_OF, COUNT, row_type)

    with ThreadPoolExecutor(6) as pool:
        stores = list(pool.map(begin, range(6)))
        list(pool.map(lambda rank: fill(stores[rank], rank, 6), range(6)))
    assert [store.missing() for store in stores] == [0] * 6
    assert stores[0].read(np.arange(COUNT))["number"].tolist() == list(range(COUNT))
    assert [path.name for path in folder.parent.iterdir()] == ["store"]  # none is left aside


def test_the_row_type_is_asked_for_only_when_it_is_laid_out(folder):
    lay_out(folder)

    def never() -> np.dtype:
        raise AssertionError

    assert Store(folder, "cache", MADE_OF, COUNT, never).dtype == ROW


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"source": "others"}, "is of source 'toys', not 'others'"),
        ({"size": [4, 3]}, r"is of size \[2, 3\], not \[4, 3\]"),
        ({"nested": {"scale": 3.5, "on": True}}, r"nested \{'scale': 3.0.*, not \{'scale': 3.5"),
        ({"more": 1}, "more None, not 1"),
        ({"source": "a", "size": [1, 1]}, r"source 'toys', not 'a'; size .*not \[1, 1\]"),
    ],
)
def test_another_description_is_refused_and_only_what_differs_is_named(folder, changes, said):
    fill(lay_out(folder))
    with pytest.raises(UserError, match=said) as caught:
        lay_out(folder, **changes)
    message = str(caught.value)
    assert message.startswith(f"{folder}: this cache is of")
    assert "another folder, or remove this one" in message
    assert [key for key in MADE_OF if f"{key} " in message.split(" Name ")[0]] == [
        key for key in MADE_OF if key in changes
    ]


def test_another_kind_or_count_is_refused(folder):
    lay_out(folder)
    with pytest.raises(UserError, match="is of kind 'cache', not 'bank'"):
        Store(folder, "bank", MADE_OF)
    with pytest.raises(UserError, match="this cache has 21 rows, not 20"):
        lay_out(folder, 20)


def test_tuples_are_the_lists_they_are_read_back_as(folder):
    lay_out(folder, size=(2, 3), nested={"grid": (0, 0)})
    assert len(lay_out(folder, size=(2, 3), nested={"grid": (0, 0)})) == COUNT


@pytest.mark.parametrize("name", ["done.npy", "rows-00000.npy", "rows-00004.npy"])
@pytest.mark.parametrize("damage", ["short", "empty", "missing", "pickle"])
def test_a_damaged_file_is_named(folder, name, damage):
    fill(lay_out(folder))
    path = folder / name
    if damage == "missing":
        path.unlink()
    elif damage == "pickle":
        np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    else:
        os.truncate(path, path.stat().st_size // 2 if damage == "short" else 0)
    with pytest.raises(DataFormatError, match=f"{name}: damaged"):
        Store(folder, "cache", MADE_OF).read(np.arange(COUNT))  # later shards are opened when read


@pytest.mark.parametrize("text", ["", "{", "[]", "7", json.dumps({"format": 1})])
def test_a_damaged_description_is_refused(folder, text):
    lay_out(folder)
    (folder / "store.json").write_text(text)
    with pytest.raises(UserError, match=str(folder)):
        lay_out(folder)


def test_a_file_that_cannot_be_written_is_named_and_its_rows_stay_blank(folder):
    store = lay_out(folder)
    (folder / "rows-00001.npy").unlink()
    fill(store, stop=4)
    with pytest.raises(UserError, match="rows-00001.npy"):
        fill(store)
    assert store.missing() == COUNT - 4
