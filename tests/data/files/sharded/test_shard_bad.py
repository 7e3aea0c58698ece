"""Sharding a set of which some samples cannot be read."""

from __future__ import annotations

import json

import pytest
from toys import COUNT, Toys, shards

from stepsight.cli.main import main
from stepsight.data.bad import QUARANTINE
from stepsight.data.sharded.writing import write_shards
from stepsight.errors import DataFormatError, UserError


class Damaged(Toys):
    """Toys of which samples 1 and 4 cannot be read."""

    def __getitem__(self, index):
        if index in (1, 4):
            raise DataFormatError(f"/data/{index}.png: damaged.")
        return super().__getitem__(index)


@pytest.fixture
def damaged(full_sample):
    return Damaged(full_sample)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_cannot_be_read_is_left_out_listed_and_counted(
    damaged, toys, tmp_path, assert_same, workers
):
    out = tmp_path / "out"
    options = {"split": "train", "per_shard": 3, "workers": workers, "on_bad": "skip"}
    index = write_shards(damaged, out, bad_cap=0.5, **options)
    assert len(index) == index.about["count"] == COUNT - 2 and index.about["skipped"] == 2
    notes = map(json.loads, (out / QUARANTINE).read_text().splitlines())
    assert {note["key"]: note["reason"] for note in notes} == {
        n: f"toys, sample {n}: /data/{n}.png: damaged." for n in (1, 4)
    }
    opened = shards(out)
    for place, number in enumerate((0, 2, 3, 5, 6)):
        assert_same(toys.rows[number], opened[place])
    assert len(write_shards(damaged, out, **options)) == COUNT - 2  # finished already


def test_by_default_the_first_stops(damaged, tmp_path):
    with pytest.raises(DataFormatError, match="sample 1: /data/1.png.*--on-bad skip"):
        write_shards(damaged, tmp_path, split="train", per_shard=3)


def test_too_many_stop_and_what_was_begun_is_finished_with_a_higher_cap(damaged, tmp_path):
    options = {"split": "train", "per_shard": 3, "on_bad": "skip"}
    with pytest.raises(UserError, match=r"toys: 2 of 7 items .* --bad-cap 0.1 lets 1 be skipped"):
        write_shards(damaged, tmp_path, bad_cap=0.1, **options)
    assert len(write_shards(damaged, tmp_path, bad_cap=0.3, **options)) == COUNT - 2


def test_a_tar_of_nothing_is_refused(damaged, tmp_path):
    with pytest.raises(UserError, match="nothing that shard-000001.tar is to hold can be read"):
        write_shards(damaged, tmp_path, split="train", per_shard=1, on_bad="skip", bad_cap=1.0)


def test_the_command_says_how_many(tmp_path, capsys):
    from PIL import Image

    pictures = tmp_path / "set" / "images"
    pictures.mkdir(parents=True)
    for number in range(4):
        Image.new("RGB", (8, 6), (number, 0, 0)).save(pictures / f"{number}.png")
    (pictures / "2.png").write_bytes(b"no picture")
    command = ["data", "shard", "folder", str(tmp_path / "set"), "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert "2.png" in (said := capsys.readouterr().err) and "--on-bad skip" in said
    assert main([*command, "--on-bad", "skip"]) == 0
    assert "1 samples that cannot be read are left out: see" in capsys.readouterr().out
