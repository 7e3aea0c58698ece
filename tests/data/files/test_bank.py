"""Banks: exact, resumable, shared, and refused when they are of something else."""

from __future__ import annotations

import copy
import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace

import numpy as np
import pytest

from stepsight.data.cache import store as store_module
from stepsight.data.cache.bank import Bank
from stepsight.data.resize import resize_sample
from stepsight.errors import DataFormatError, UserError
from stepsight.types import Sample

COUNT = 150  # two whole blocks and a part of one


class Fake:
    """Samples of native size 6 x 10 for a working size of 5 x 7, counting how often it is asked."""

    name, classes, quantities, size = "full", ("a", "b"), frozenset({"depth", "flow"}), (5, 7)
    categories = ("c",)

    def __init__(self, make, **changes):
        self.make, self.changes, self.asked = make, changes, []

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        self.asked.append(index)
        return replace(self.make(index), **self.changes)

    def samples(self, indices):
        return [self[index] for index in indices]


@pytest.fixture
def source(full_sample):
    return Fake(full_sample)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "deep" / "bank"


@pytest.fixture
def filled(source, folder):
    bank = Bank(source, folder, "v1", COUNT)
    bank.fill()
    return bank


def test_round_trip_is_exact(filled, source, assert_same):
    assert len(filled) == COUNT and filled.missing() == 0
    for index in (0, 63, 64, COUNT - 1):
        assert_same(filled[index], resize_sample(source[index], source.size))
    for index, sample in zip((9, 3, 9), filled.samples([9, 3, 9])):
        assert_same(sample, filled[index])


def test_each_sample_is_made_once(filled, source):
    assert sorted(source.asked) == sorted([0, *range(COUNT)])  # and the first for the layout
    Bank(source, filled.folder, "v1", COUNT).fill()
    assert len(source.asked) == COUNT + 1


@pytest.mark.parametrize("kept", ["second", "whole", "labels", "modal", "class_id", "depth"])
def test_absent_fields_stay_absent(full_sample, folder, assert_same, kept):
    names = {f.name for f in fields(Sample)} - {"image", "key", "source", "extra", kept}
    if kept == "depth":
        names.remove("depth_valid")
    source = Fake(full_sample, **dict.fromkeys(names))
    bank = Bank(source, folder, "v1", 3)
    bank.fill()
    assert_same(bank[2], resize_sample(source[2], source.size))


def test_samples_may_be_changed_without_harm(filled, assert_same):
    changed, before = filled[5], filled[5]
    for plane in (changed.image, changed.depth, changed.modal):
        plane.zero_()
    assert_same(filled[5], before)


def test_bank_is_a_source(filled, source):
    for name in ("name", "classes", "categories", "quantities", "size"):
        assert getattr(filled, name) == getattr(source, name)


def test_a_copy_for_another_process_maps_the_rows_again(filled, source, assert_same):
    assert filled.__reduce__()[1] == (source, filled.folder, "v1")  # nothing of the rows
    assert_same(copy.copy(filled)[3], filled[3])


def test_blank_rows_are_refused(source, folder):
    bank = Bank(source, folder, "v1", COUNT)
    assert bank.missing() == COUNT
    with pytest.raises(UserError, match="bank: row 7 is blank"):
        bank[7]


def test_resumes_after_an_interruption(source, folder, assert_same):
    bank = Bank(source, folder, "v1", COUNT)

    def stop(rows):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bank.fill(report=stop)
    assert bank.missing() == COUNT - 64
    source.asked.clear()
    again, counts = Bank(source, folder, "v1"), []
    again.fill(report=counts.append)
    assert source.asked == list(range(64, COUNT)) and counts == [64, 22]
    assert again.missing() == 0
    assert_same(again[100], resize_sample(source[100], source.size))


def test_rows_are_flagged_only_after_they_reached_the_disk(source, folder, monkeypatch):
    bank = Bank(source, folder, "v1", COUNT)

    def full_disk(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store_module.os, "fsync", full_disk)
    with pytest.raises(UserError, match="rows-00000.npy: cannot be written.*No space left"):
        bank.fill()
    assert bank.missing() == COUNT
    monkeypatch.undo()
    bank.fill()
    assert bank.missing() == 0


def test_shares_are_disjoint_and_complete(full_sample, folder):
    sources = [Fake(full_sample) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        banks = list(pool.map(lambda s: Bank(s, folder, "v1", COUNT), sources))
        list(pool.map(lambda rank: banks[rank].fill(rank, 4), range(4)))
    asked = sorted(index for source in sources for index in source.asked)
    layouts = len(asked) - COUNT  # each may have looked at sample 0 before one of them won
    assert asked[layouts:] == list(range(COUNT)) and 1 <= layouts <= 4
    assert banks[0].missing() == 0
    assert [path.name for path in folder.parent.iterdir()] == ["bank"]  # no leftovers of the race


def test_another_fingerprint_size_or_count_is_refused_by_name(filled, source):
    with pytest.raises(UserError, match="is of fingerprint 'v1', not 'v2'.*another folder"):
        Bank(source, filled.folder, "v2")
    source.size = (5, 8)
    with pytest.raises(UserError, match=r"is of size \[5, 7\], not \[5, 8\]"):
        Bank(source, filled.folder, "v1", COUNT)
    source.size = (5, 7)
    with pytest.raises(UserError, match="has 150 rows, not 10"):
        Bank(source, filled.folder, "v1", 10)


def test_folders_that_hold_no_bank(source, tmp_path):
    with pytest.raises(UserError, match="none: holds no readable bank"):
        Bank(source, tmp_path / "none", "v1")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    with pytest.raises(UserError, match="other: holds no readable bank"):
        Bank(source, tmp_path / "other", "v1", COUNT)
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["thesis.txt"]
    (tmp_path / "empty").mkdir()
    assert Bank(source, tmp_path / "empty", "v1", COUNT).missing() == COUNT
    with pytest.raises(UserError, match="cannot make a bank here"):
        Bank(source, tmp_path / "other" / "thesis.txt" / "bank", "v1", COUNT)


@pytest.mark.parametrize("name", ["rows-00000.npy", "done.npy"])
@pytest.mark.parametrize("keep", [0, 9, 0.5])
def test_damaged_arrays(filled, source, name, keep):
    path = filled.folder / name
    os.truncate(path, int(keep * path.stat().st_size) if isinstance(keep, float) else keep)
    with pytest.raises(DataFormatError, match=f"{name}: damaged"):
        Bank(source, filled.folder, "v1")


@pytest.mark.parametrize("text", ["", "[]", "{", json.dumps({"format": 99})])
def test_damaged_description(filled, source, text):
    (filled.folder / "store.json").write_text(text)
    with pytest.raises(UserError, match=str(filled.folder)):
        Bank(source, filled.folder, "v1")


def test_pickled_arrays_are_not_loaded(filled, source):
    np.save(filled.folder / "rows-00000.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataFormatError, match="rows-00000.npy: damaged"):
        Bank(source, filled.folder, "v1")


def test_samples_unlike_the_first_are_named(full_sample, folder):
    class Uneven(Fake):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return replace(sample, depth=None, depth_valid=None) if index == 2 else sample

    bank = Bank(Uneven(full_sample), folder, "v1", 3)
    with pytest.raises(UserError, match="sample 2: unlike the first sample in depth, depth_valid"):
        bank.fill()


def test_values_that_do_not_fit_are_named(full_sample, folder):
    wide = Bank(Fake(full_sample, labels=full_sample().labels + 200), folder, "v1", 3)
    with pytest.raises(UserError, match="sample 0: labels does not fit uint8"):
        wide.fill()
    long = Bank(Fake(full_sample, key="k" * 129), folder.with_name("long"), "v1", 3)
    with pytest.raises(UserError, match="keys may have 128 bytes"):
        long.fill()


SCRIPT = """
import sys, time, torch
from stepsight.data.cache.bank import Bank
from stepsight.types import Sample

class Slow:
    name, classes, quantities, size = "slow", (), frozenset(), (4, 4)
    def __len__(self): return 1024
    def __getitem__(self, i): return Sample(torch.full((3, 4, 4), i % 251).byte(), str(i), "slow")
    def samples(self, indices):
        time.sleep(0.01)
        return [self[i] for i in indices]

rank, world = int(sys.argv[2]), int(sys.argv[3])
bank = Bank(Slow(), sys.argv[1], "v1", 1024)
bank.fill(rank, world, lambda rows: print(rows, flush=True))
while bank.missing():
    time.sleep(0.01)
assert all(bank[i].image.unique().tolist() == [i % 251] for i in range(1024))
print("complete", flush=True)
"""


@pytest.mark.slow
def test_processes_share_the_work_and_one_may_be_killed(tmp_path):
    script = tmp_path / "fill.py"
    script.write_text(textwrap.dedent(SCRIPT))

    def start(rank, world):
        command = [sys.executable, str(script), str(tmp_path / "bank"), str(rank), str(world)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    victim = start(0, 1)
    assert victim.stdout.readline() == "64\n"
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    both = [start(rank, 2) for rank in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert all(output.endswith("complete\n") for output in outputs)
    assert outputs[0].count("64") < 8  # of its 8 blocks the first was there already
