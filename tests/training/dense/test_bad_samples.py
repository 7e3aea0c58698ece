"""Training on a source of which some samples cannot be read: others take their place, the same
ones whoever reads them, and the run says which."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from stepsight.data.bad import QUARANTINE
from stepsight.data.table import settings_for
from stepsight.errors import DataFormatError, UserError
from stepsight.training import spec
from stepsight.training.ahead.prefetch import Prefetcher
from stepsight.training.loop import gradient

BAD = (3, 17)  # of 32
SKIP = {"on_bad": "skip", "bad_cap": 0.1}
FIELDS = ("depth", "flow")
KINDS = ("streamed", "banked", "latents")


class Damaged:
    """A source of which the samples `BAD` cannot be read."""

    def __init__(self, source, bad=BAD) -> None:
        self.source, self.bad = source, bad

    def __getattr__(self, name: str):
        return getattr(self.__dict__["source"], name)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int):
        if index in self.bad:
            raise DataFormatError(f"/data/{index}.png: damaged.")
        return self.source[index]

    def samples(self, indices):
        return [self[index] for index in indices]


@pytest.fixture
def begin(lab, tmp_path, monkeypatch):
    """A run on pictures of which some are damaged, kept in one of three ways."""

    def make(kind: str, folder: str = "run", bad=BAD, **changes):
        source = lab.Source(count=32, seed="folder")
        source.name = "folder"
        opened = {"train": {"folder": Damaged(source, bad)}, "eval": {"folder": lab.held}}
        cache = str(tmp_path / "cache") if kind == "latents" else ""
        own = {"latents": cache, "loss": "squared", "images": 32} | SKIP | changes
        config = lab.config(("depth", "flow"), **own)
        pictures = settings_for("folder", root="/data", size=(16, 16), stream=kind == "streamed")
        config = replace(config, data={"folder": pictures})
        monkeypatch.setattr(spec, "open_sources", lambda _, __, split: opened[split])
        monkeypatch.setattr(lab, "serving", nullcontext)
        return lab.begin(config, tmp_path / folder)

    return make


def quarantine(run) -> dict[int, str]:
    path = run.writer.path / QUARANTINE
    lines = map(json.loads, path.read_text().splitlines() if path.exists() else [])
    return {line["key"]: line["reason"] for line in lines}


def keys(run, steps: range) -> list[str]:
    """Of the pictures in some batches."""
    found = []
    for step in steps:
        draw = run.feed.draw(step)
        for rows in run.feed.micro_batches:
            found += run.feed.batch(draw, step, rows).keys
    run.feed.close()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_goes_on_without_what_cannot_be_read(begin, lab, kind, capfd):
    run = begin(kind)
    before = quarantine(run)
    run.train()
    assert [bool(row["loss"] > 0) for row in lab.rows(run.writer.path)] == [True] * 4
    assert before.keys() <= quarantine(run).keys() == set(BAD) and run.feed.bad.count == 2
    assert quarantine(run)[3] == "folder, sample 3: /data/3.png: damaged."


@pytest.mark.parametrize("kind", KINDS)
def test_by_default_it_stops_and_names_sample_file_and_way_out(begin, kind):
    reason = r"folder, sample (3|17): /data/\1.png: damaged. To go on .* --training.on_bad skip"
    with pytest.raises(DataFormatError, match=reason):
        begin(kind, on_bad="stop").train()


@pytest.mark.parametrize("kind", KINDS)
def test_more_than_the_cap_stop(begin, kind):
    reason = "folder: 2 of 32 items .* --training.bad_cap 0.01 lets 1 be skipped"
    with pytest.raises(UserError, match=reason):
        begin(kind, bad_cap=0.01).train()


@pytest.mark.parametrize("bad", [BAD, (0, 3, 17)], ids=["later", "the first"])
def test_replacements_depend_on_nothing_but_the_number_of_the_picture(begin, bad):
    """Not on who reads, how far ahead, in which parts, and from where on."""
    alone = keys(begin("streamed", "a", bad), range(12))
    assert not {f"synthetic-folder-{index}" for index in bad} & {*alone} and len(alone) == 96
    cut = begin("streamed", "b", bad, workers=2, micro_batch="4")
    assert len(cut.feed.micro_batches) == 2 and keys(cut, range(12)) == alone
    assert keys(begin("banked", "c", bad), range(12)) == alone
    assert keys(begin("streamed", "d", bad), range(7, 12)) == alone[56:]  # continues in the middle


def test_pictures_that_can_be_read_stay_where_they_were(begin):
    """Only the damaged ones change, and all of their places are filled."""
    whole = keys(begin("streamed", "a", bad=()), range(12))
    others = keys(begin("streamed", "b"), range(12))
    lost = {f"synthetic-folder-{index}" for index in BAD}
    assert [a for a in whole if a not in lost] == [
        b for a, b in zip(whole, others) if a not in lost
    ]


def test_a_cache_that_was_made_by_skipping_says_so_to_one_that_stops(begin):
    begin("latents", "a").train()
    run = begin("latents", "b").train()  # finds the marks, and what they were for
    assert quarantine(run).keys() == set(BAD)
    with pytest.raises(UserError, match=r"/data/3.png: damaged.*on_bad skip"):
        begin("latents", "c", on_bad="stop").train()


@pytest.mark.parametrize("loss", ["task", "squared"])
def test_a_batch_without_a_valid_entry_has_no_loss_and_no_gradient(begin, loss):
    """Rather than a division by zero."""
    run = begin("banked", bad=(), loss=loss).roughen()
    batch = run.feed.batch

    def invalid(*of):
        found = batch(*of)
        return replace(found, **{f"{n}_valid": torch.zeros_like(found.depth_valid) for n in FIELDS})

    run.feed.batch = invalid
    ready = Prefetcher(run.objective, run.feed, range(1)).take(0)
    assert gradient(run.learner, ready).tolist() == [0, 0]
    assert all(p.grad is None or not p.grad.any() for p in run.net.parameters())
