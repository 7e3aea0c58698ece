"""The table of fields: every field has a row, and a package's quantity goes through all rooms."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mattes import HEIGHT, ROWS, WIDTH, Mattes, assert_equal, made

import stepsight.data
from stepsight.data import fields
from stepsight.data.augment import augment, crop, flip, jitter, random_crop
from stepsight.data.cache.bank import Bank
from stepsight.data.check import check, facts_of, ranges_of
from stepsight.data.collate import collate
from stepsight.data.config import ScenesSettings, ShardsSettings
from stepsight.data.drawing import draw
from stepsight.data.fields import Field, present, register, with_values
from stepsight.data.plausible.ranges import Range
from stepsight.data.readers.config import FolderSettings
from stepsight.data.resize import resize_sample
from stepsight.data.scenes.source import Scenes
from stepsight.data.sharded.reading import Shards
from stepsight.data.sharded.writing import write_shards
from stepsight.errors import DataFormatError, UserError
from stepsight.seeding import numpy_generator
from stepsight.types import ADDED, Batch, Sample


@pytest.fixture(autouse=True)
def rows() -> Iterator[None]:
    """The rows of another package, while a test lasts."""
    register(*ROWS)
    yield
    for row in ROWS:
        fields._ROWS.pop(row.name, None)
        ADDED.discard(row.name)


# ---------------------------------------------------------------------------- the table


@pytest.mark.parametrize("kind", ["Sample", "Batch"])
def test_a_field_without_a_row_stops_the_import(kind):
    script = f"""
import dataclasses, stepsight.types as types
new = [("disparity", object, dataclasses.field(default=None))]
types.{kind} = dataclasses.make_dataclass("{kind}", new, bases=(types.{kind},))
import stepsight.data.collate
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 1
    assert f"AssertionError: {kind} and the table differ in {{'disparity'}}" in run.stderr


def test_a_row_of_another_meaning_is_refused():
    register(*ROWS)  # again, and equal
    for name in ("matte", "depth", "key"):
        with pytest.raises(UserError, match=f"'{name}' is registered twice"):
            register(Field(name, "ids"))
    assert fields.row_of("depth").kind == "map"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (Field("fog", "map", valid="fog_valid"), "'fog' needs its mask"),
        (Field("fog", "map", average=True), "'fog' needs its mask"),
        (Field("fog", "number"), "a number"),
        (Field("fog", "ids", suffixes=(".png",)), "no 'read'"),
    ],
)
def test_a_row_that_lacks_something_is_refused(row, message):
    with pytest.raises(UserError, match=message):
        register(row)
    assert "fog" not in fields.table()


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match="'fog' is no quantity that stepsight or an installed"):
        fields.row_of("fog")
    assert {"matte", "swirl", "corners"} <= fields.quantities()
    assert not {"matte_valid", "trimap", "clean", "image", "modal"} & fields.quantities()


# ---------------------------------------------------------------------------- samples


def test_an_added_quantity_reads_as_an_attribute():
    sample = made()
    assert sample.matte is sample.extra["matte"] and sample.corners is None
    with pytest.raises(AttributeError, match="Sample has no 'mate'"):
        _ = sample.mate
    again = with_values(sample, {"depth": None, "matte": None, "swirl": sample.swirl + 1})
    assert again.depth is None and again.matte is None and sample.matte is not None
    assert torch.equal(again.swirl, sample.swirl + 1)
    again.matte = sample.matte
    assert again.extra["matte"] is sample.matte
    again.matte = None
    assert "matte" not in again.extra


def test_it_travels_to_other_processes_and_devices():
    sample = made()
    assert_equal(pickle.loads(pickle.dumps(sample)), sample)
    moved = collate([sample]).to("meta")
    assert moved.matte.is_meta and moved.extra["clean"].is_meta and moved.image.is_meta


# ---------------------------------------------------------------------------- resize, augment


def test_it_is_resized_by_its_row():
    sample = made(points=True)
    sample.matte_valid[:, :2, :2] = True
    sample.matte_valid[:, 0, 2] = False
    small = resize_sample(sample, (3, 4))
    assert torch.allclose(small.matte[0, 0, 0], sample.matte[0, :2, :2].mean())
    assert torch.equal(small.matte_valid, sample.matte_valid[:, 1::2, 1::2])
    assert torch.equal(small.trimap, sample.trimap[1::2, 1::2])
    assert torch.equal(small.swirl, sample.swirl[:, 1::2, 1::2])
    assert small.clean.shape == (3, 3, 4) and small.clean.dtype == torch.uint8
    assert small.corners.tolist() == [[0, 0], [2, 3]]


def test_it_is_mirrored_and_cropped():
    sample = made(points=True)
    mirrored = flip(sample)
    for name in ("matte", "matte_valid", "trimap", "clean"):
        assert torch.equal(getattr(mirrored, name), getattr(sample, name).flip(-1)), name
    assert torch.equal(mirrored.swirl, sample.swirl.flip(-1) * torch.tensor([-1, 1])[:, None, None])
    assert mirrored.corners.tolist() == [[0, 6], [5, 0]]
    assert_equal(flip(mirrored), sample)
    window = crop(sample, 1, 2, 4, 5)
    assert torch.equal(window.matte, sample.matte[:, 1:5, 2:7]) and window.trimap.shape == (4, 5)
    assert window.corners.tolist() == []


def test_a_random_crop_keeps_some_of_its_mask_and_colours_change_with_the_image():
    sample = made()
    sample.matte_valid = torch.zeros_like(sample.matte_valid)
    sample.matte_valid[0, 0, 0] = True
    for number in range(20):
        assert random_crop(sample, 0.3, numpy_generator(number)).matte_valid.any()
    coloured = jitter(with_values(sample, {"clean": sample.image}), 0.5, numpy_generator(1))
    assert torch.equal(coloured.clean, coloured.image) and torch.equal(coloured.matte, sample.matte)
    whole = augment(sample, FolderSettings(jitter=0.2), (3, 4), 0, 0, mirrored=True)
    assert {tuple(value.shape[-2:]) for _, value in present(whole)} == {(3, 4)}


def test_it_is_collated_if_all_samples_have_it():
    samples = [made(n, points=True) for n in range(2)]
    samples[1].corners = torch.tensor([[1, 1]])
    batch = collate(samples)
    assert torch.equal(batch.matte, torch.stack([s.matte for s in samples]))
    assert batch.trimap.dtype == torch.int64 and batch.matte_valid.dtype == torch.bool
    assert torch.equal(batch.clean, torch.stack([s.clean for s in samples]).float() / 127.5 - 1)
    assert batch.corners.tolist() == [[[0, 1], [5, 7]], [[1, 1], [-1, -1]]]
    samples[1].matte = None
    assert isinstance(part := collate(samples), Batch)
    assert part.matte is None and part.trimap is not None


# ---------------------------------------------------------------------------- kept on disk


def test_a_bank_keeps_it(tmp_path):
    bank = Bank(Mattes(size=(3, 4)), tmp_path / "bank", "v1", 3)  # type: ignore[arg-type]
    bank.fill()
    for index in range(3):
        assert_equal(bank[index], resize_sample(made(index), (3, 4)))
    names = np.load(tmp_path / "bank" / "rows-00000.npy").dtype.names
    assert names == ("depth", "matte", "swirl", "image", "clean", "trimap", "masks", "key")


def test_a_bank_refuses_what_has_no_fixed_size(tmp_path):
    class Cornered(Mattes):
        def __getitem__(self, index: int) -> Sample:
            return made(index, points=True)

    with pytest.raises(UserError, match="corners has no fixed size"):
        Bank(Cornered(), tmp_path / "bank", "v1", 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [0, 2])
def test_shards_keep_it(workers, tmp_path):
    write_shards(Mattes(), tmp_path, per_shard=2, workers=workers)  # type: ignore[arg-type]
    opened = stepsight.data.open("shards", str(tmp_path))
    assert opened.quantities == {"depth", "matte", "swirl"}
    for index in range(3):
        assert_equal(opened[index], made(index))
    part = Shards(ShardsSettings(root=str(tmp_path)), "all", frozenset({"swirl"}))
    assert part.quantities == {"swirl"} and part[0].extra.keys() == {"swirl"}
    part = Shards(ShardsSettings(root=str(tmp_path)), "all", frozenset({"matte", "flow"}))
    assert part.quantities == {"matte"}
    assert part[0].extra.keys() == {"matte", "matte_valid", "trimap", "clean"}
    assert check(ShardsSettings(root=str(tmp_path)), workers=workers).ok


def test_without_the_package_its_files_are_refused_and_not_half_read(tmp_path):
    write_shards(Mattes(), tmp_path / "s", per_shard=2)  # type: ignore[arg-type]
    bank = Bank(Mattes(), tmp_path / "bank", "v1", 1)  # type: ignore[arg-type]
    bank.fill()
    for row in ROWS:
        fields._ROWS.pop(row.name)
    with pytest.raises(DataFormatError, match="has members .*matte.npy.* is a package missing"):
        stepsight.data.open("shards", str(tmp_path / "s"))
    with pytest.raises(UserError, match="'.*' is no quantity"):
        _ = bank[0]


# ---------------------------------------------------------------------------- read, checked, drawn


def test_a_folder_of_files_may_hold_it(tmp_path, capsys):
    matte = np.linspace(0, 1, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    matte[0, 0] = np.nan
    pictures = {"images": np.zeros((HEIGHT, WIDTH, 3)), "matte_valid": 255 * (matte > 0.5)}
    for name, values in pictures.items():
        (tmp_path / name).mkdir()
        write_png(tmp_path / name / "a.png", values.astype(np.uint8))
    (tmp_path / "matte").mkdir()
    np.save(tmp_path / "matte" / "a.npy", matte)
    source = stepsight.data.open("folder", str(tmp_path))
    assert source.quantities == {"matte"}
    sample = source[0]
    assert torch.equal(sample.matte[0, 1:], torch.from_numpy(matte[1:]))
    assert torch.equal(sample.matte_valid[0], torch.from_numpy(matte > 0.5))
    line = {"image": "images/a.png", "matte": "matte/a.npy"}
    (tmp_path / "all.jsonl").write_text(json.dumps(line))
    listed = stepsight.data.open("folder", str(tmp_path), list="all.jsonl")[0]
    assert torch.equal(listed.matte_valid[0], torch.from_numpy(np.isfinite(matte)))


def write_png(path: Path, pixels: np.ndarray) -> None:
    from PIL import Image

    Image.fromarray(pixels).save(path)


def test_it_is_checked_and_its_range_is_said():
    sample = made()
    ranges = ranges_of(sample)
    assert list(ranges) == ["depth", "matte", "swirl", "trimap"]
    known = sample.matte[sample.matte_valid]
    share = float(sample.matte_valid.float().mean())
    assert ranges["matte"] == Range(float(known.min()), float(known.max()), share)
    source = Mattes()
    assert facts_of(sample, source).findings == ()  # type: ignore[arg-type]
    before = facts_of(sample, source).digest  # type: ignore[arg-type]
    sample.matte = sample.matte + 1
    facts = facts_of(sample, source)  # type: ignore[arg-type]
    assert facts.findings == ("key 0: the matte leaves [0, 1]",) and facts.digest != before
    sample.matte = sample.matte[..., 1:]
    assert "matte has (6, 7) pixels" in facts_of(sample, source).findings[0]  # type: ignore[arg-type]
    empty = with_values(made(), {"matte_valid": torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)})
    assert "no valid matte" in facts_of(empty, source).findings[0]  # type: ignore[arg-type]


def test_it_is_drawn():
    pictures = {name: one.picture for name, one in draw(made(points=True)).items()}
    assert list(pictures) == ["image", "depth", "clean", "matte", "swirl"]
    assert all(p.dtype == torch.uint8 and p.shape == (3, HEIGHT, WIDTH) for p in pictures.values())
    assert len(pictures["matte"].unique()) > 4
    key, matte = draw(made())["matte"].key, made().matte
    assert key is not None and key.low == matte[made().matte_valid].min()


def test_worlds_do_not_have_it_and_say_nothing():
    scenes = Scenes(ScenesSettings(size=(8, 8)), "eval", frozenset({"matte", "depth"}))
    assert scenes.quantities == {"depth"}
    with pytest.raises(UserError, match="worlds have no quantity 'fog'"):
        Scenes(ScenesSettings(), "eval", frozenset({"fog"}))
