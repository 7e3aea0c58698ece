"""Data sets in tar shards: exact, resumable, readable by webdataset, and safe when damaged."""

from __future__ import annotations

import json
import pickle
import tarfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from toys import COUNT, PER_SHARD, Toys, shards

import stepsight.data
from stepsight.data.config import ScenesSettings, ShardsSettings
from stepsight.data.fields import QUANTITIES
from stepsight.data.scenes.source import Scenes
from stepsight.data.sharded.index import INDEX
from stepsight.data.sharded.reading import Shards
from stepsight.data.sharded.writing import PARTS, write_shards
from stepsight.errors import DataFormatError, UserError
from stepsight.types import Sample


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ---------------------------------------------------------------------------- the round trip


def test_every_sample_comes_back_exactly(toys, folder, assert_same):
    opened = shards(folder)
    assert len(opened) == COUNT
    for truth, back in zip(toys.rows, opened.samples(range(COUNT))):
        assert_same(truth, back)
    assert (opened.name, opened.classes, opened.categories) == (
        "toys",
        toys.classes,
        tuple("abcdefg"),
    )
    assert opened.quantities == QUANTITIES and opened.published == {"train": 9}


def test_groups_and_sizes_are_known_without_reading(folder):
    opened = shards(folder)
    assert opened.groups == [range(0, 3), range(3, 6), range(6, 7)]
    assert opened.sizes == [(6 + n % 2, 10) for n in range(COUNT)]


def test_only_what_is_asked_for_is_read(toys, folder):
    settings = ShardsSettings(root=str(folder))
    for asked, there in {
        frozenset({"depth"}): {"image", "depth", "depth_valid"},
        frozenset({"class_id"}): {"image", "class_id"},
        frozenset({"flow", "order"}): {
            "image",
            "second",
            "flow",
            "flow_valid",
            "occluded",
            "order",
        },
        frozenset({"whole"}): {"image", "whole", "modal", "amodal", "amodal_valid"},
        frozenset(): {"image"},
    }.items():
        opened = Shards(settings, "train", asked)
        assert opened.quantities == asked
        sample = opened[1]
        held = {name for name, value in vars(sample).items() if value is not None}
        assert held - {"key", "source", "extra"} == there


def test_a_reader_travels_to_other_processes_without_its_open_files(toys, folder, assert_same):
    opened = shards(folder)
    opened[5]
    there = pickle.loads(pickle.dumps(opened))
    assert_same(there[5], toys.rows[5])


def test_splits_lie_in_folders_side_by_side(toys, tmp_path, full_sample, assert_same):
    write_shards(Toys(full_sample, 2), tmp_path / "v", split="val", per_shard=9)
    write_shards(toys, tmp_path / "t", split="train", per_shard=PER_SHARD)
    train, val, both = (shards(tmp_path, split) for split in ("train", "val", "all"))
    assert (len(train), len(val), len(both)) == (7, 2, 9)
    assert val.groups == [range(0, 2)] and val.sizes == [(6, 10), (7, 10)]
    assert both.groups[-1] == range(7, 9)
    assert_same(val[1], toys.rows[1])
    with pytest.raises(UserError, match="no split 'test'"):
        shards(tmp_path, "test")
    other = Toys(full_sample, 1)
    other.name = "others"
    write_shards(other, tmp_path / "o", split="test", per_shard=1)
    with pytest.raises(UserError, match="differ in source: others, toys"):
        shards(tmp_path, "val")


def test_samples_can_be_kept_smaller_and_as_jpeg(toys, tmp_path):
    write_shards(toys, tmp_path / "s", per_shard=9, size=(4, 8), quality=90)
    opened = shards(tmp_path / "s", "all")
    assert opened.sizes == [(4, 8)] * COUNT
    sample = opened[0]
    assert sample.image.shape == (3, 4, 8) and sample.depth is not None
    assert sample.depth.shape == (1, 4, 8)
    with tarfile.open(tmp_path / "s" / "shard-000000.tar") as tar:
        assert sum(name.endswith(".image.jpg") for name in tar.getnames()) == COUNT


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_webdataset_reads_the_tars(toys, folder):
    autodecode = pytest.importorskip("webdataset.autodecode")
    tariterators = pytest.importorskip("webdataset.tariterators")
    decode = autodecode.Decoder([autodecode.imagehandler("rgb8")])
    found = []
    for number in range(3):
        with (folder / f"shard-{number:06d}.tar").open("rb") as stream:
            files = tariterators.tar_file_expander([{"url": stream.name, "stream": stream}])
            found += [decode(one) for one in tariterators.group_by_keys(files)]
    assert [one["json"]["key"] for one in found] == [sample.key for sample in toys.rows]
    assert len({one["__key__"] for one in found}) == COUNT
    for one, truth in zip(found, toys.rows):
        np.testing.assert_array_equal(one["image.png"], truth.image.permute(1, 2, 0).numpy())
        np.testing.assert_array_equal(one["depth.npy"], truth.depth.numpy())
        np.testing.assert_array_equal(one["labels.npy"], truth.labels.numpy())


# ---------------------------------------------------------------------------- writing


def test_the_index_tells_the_truth_about_the_files(folder):
    index = json.loads((folder / INDEX).read_text())
    assert index["source"] == "toys" and index["count"] == COUNT and index["split"] == "train"
    assert sorted(path.name for path in folder.iterdir()) == [INDEX] + [
        tar["name"] for tar in index["tars"]
    ]
    for tar in index["tars"]:
        data = (folder / tar["name"]).read_bytes()
        assert (len(data), sha256(data).hexdigest()) == (tar["bytes"], tar["sha256"])


def test_a_finished_folder_is_left_alone(toys, folder):
    before, toys.asked = content(folder), []
    write_shards(toys, folder, split="train", per_shard=PER_SHARD)
    assert content(folder) == before and toys.asked == []


@pytest.mark.parametrize("stop", [0, 2, 3, 4, 6])
def test_whoever_is_stopped_continues_with_the_first_missing_tar(
    stop, full_sample, folder, tmp_path
):
    class Stopping(Toys):
        def __getitem__(self, index: int) -> Sample:
            if index == stop:
                raise KeyboardInterrupt
            return super().__getitem__(index)

    out = tmp_path / "again"
    with pytest.raises(KeyboardInterrupt):
        write_shards(Stopping(full_sample), out, split="train", per_shard=PER_SHARD)
    with pytest.raises(UserError, match="found 0"):
        shards(out)
    later, told = Toys(full_sample), []
    write_shards(
        later, out, split="train", per_shard=PER_SHARD, report=lambda *now: told.append(now)
    )
    first = stop - stop % PER_SHARD
    assert later.asked == list(range(first, COUNT)) and told[-1] == (COUNT, COUNT)
    assert content(out) == content(folder)


def test_several_processes_write_the_same_bytes(toys, folder, tmp_path):
    write_shards(toys, tmp_path / "two", split="train", per_shard=PER_SHARD, workers=2)
    assert content(tmp_path / "two") == content(folder)


def test_a_folder_of_something_else_is_never_written_to(toys, folder, tmp_path):
    with pytest.raises(UserError, match="differ in split, per_shard"):
        write_shards(toys, folder, split="val", per_shard=2)
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.tex").write_text("years of work")
    with pytest.raises(UserError, match="not empty"):
        write_shards(toys, other, per_shard=2)
    assert [path.name for path in other.iterdir()] == ["chapter.tex"]
    begun = tmp_path / "begun"
    (begun / PARTS).mkdir(parents=True)
    (begun / PARTS / "plan.json").write_text("{}")
    with pytest.raises(UserError, match="holds shards"):
        write_shards(toys, begun, per_shard=2)
    with pytest.raises(UserError, match="cannot be written"):
        write_shards(toys, other / "chapter.tex" / "below", per_shard=2)


@pytest.mark.parametrize("workers", [0, 1])
def test_samples_that_cannot_be_read_stop_the_writing_by_name(workers, full_sample, tmp_path):
    class Broken(Toys):
        def __getitem__(self, index: int) -> Sample:
            raise DataFormatError("scene.png: damaged.")

    with pytest.raises(DataFormatError, match=r"^toys, sample 0: scene\.png: damaged\. To"):
        write_shards(Broken(full_sample), tmp_path / "b", per_shard=2, workers=workers)


def test_keys_that_are_not_unique_are_refused(toys, tmp_path):
    toys.rows[6] = replace(toys.rows[6], key=toys.rows[0].key)
    with pytest.raises(DataFormatError, match="1 keys are not unique, the first is scene.0"):
        write_shards(toys, tmp_path / "b", per_shard=2)
    assert not (tmp_path / "b" / INDEX).exists()


# ---------------------------------------------------------------------------- other sources


def test_worlds_come_back_exactly(tmp_path, assert_same):
    worlds = Scenes(ScenesSettings(level="easy", size=(16, 24), eval_count=3), "eval")
    write_shards(worlds, tmp_path / "s", per_shard=2)
    opened = shards(tmp_path / "s", "all")
    assert opened.categories == worlds.categories and opened.quantities == worlds.quantities
    for index in range(3):
        assert_same(worlds[index], opened[index])


@pytest.mark.parametrize(
    ("name", "root"),
    [("hypersim", "hypersim"), ("flyingchairs", "FlyingChairs"), ("pix2gestalt", "pix2gestalt")],
)
def test_real_samples_come_back_exactly(name, root, real_samples, tmp_path, assert_same):
    source = stepsight.data.open(name, str(real_samples(root)))
    write_shards(source, tmp_path / "s", per_shard=2)
    for index, back in enumerate(shards(tmp_path / "s", "all")):  # type: ignore[arg-type]
        assert_same(source[index], back)
