"""The journal: numbers come back bit for bit, torn lines are lost, killed evaluations go on."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from stepsight.evaluation.evaluate import evaluate
from stepsight.evaluation.jobs import ScoringPlan
from stepsight.evaluation.records import Identity
from stepsight.evaluation.scoring.journal import Journal, Record, TableKey, Usage

WHO = Identity("run-1", "c0ffee", "abc", 3, "split-8", 1000, 1000, 5e12, 640, {})


def record(place: int) -> Record:
    rows = {
        "abs_rel": torch.tensor(1 / 3 + place, dtype=torch.float64),
        "epe": torch.tensor(0.1, dtype=torch.float32),
        "silog": torch.tensor(math.nan),
        "confusion": torch.diag(torch.tensor([place, 0, math.pi], dtype=torch.float64)),
        "hits": torch.tensor([[0, -1], [1 << 40, 0]]),
    }
    key = TableKey("depth-affine", "score", 2, 4, "median")
    return Record(place, f"scene/{place} é", {key: rows}, {key: Usage(1 / 3, (16, 24), 0.1)})


def assert_equal(found: Record, expected: Record) -> None:
    assert (found.place, found.key) == (expected.place, expected.key)
    assert found.usage == expected.usage
    assert found.tables.keys() == expected.tables.keys()
    for name, rows in expected.tables.items():
        for metric, value in rows.items():
            other = found.tables[name][metric]
            assert other.dtype == value.dtype and other.shape == value.shape
            torch.testing.assert_close(other, value, rtol=0, atol=0, equal_nan=True)


def test_a_record_comes_back_bit_for_bit():
    assert_equal(Record.of(record(7).line()), record(7))


def test_the_files_of_all_processes_are_read_and_a_torn_line_is_not(tmp_path):
    journals = [Journal(tmp_path, "depth", {"seed": 1}, rank) for rank in (0, 1)]
    journals[0].add([record(0), record(2)])
    journals[1].add([record(1)])
    (torn,) = tmp_path.glob("*.0.jsonl")
    torn.write_bytes(torn.read_bytes()[:-40])  # killed while it wrote record 2
    assert journals[1].records().keys() == {0, 1}
    journals[0].add([record(4)])
    found = Journal(tmp_path, "depth", {"seed": 1}).records()
    assert found.keys() == {0, 1, 4}
    assert_equal(found[4], record(4))


def test_another_evaluation_starts_anew_and_says_so(tmp_path):
    said: list[str] = []
    Journal(tmp_path, "depth", {"seed": 1}).add([record(0)])
    Journal(tmp_path, "flow", {"seed": 1}).add([record(0)])
    assert Journal(tmp_path, "depth", {"seed": 2}, say=said.append).records() == {}
    assert len(said) == 1 and "starting anew" in said[0]
    assert Journal(tmp_path, "depth", {"seed": 1}, say=said.append).records() == {}
    assert Journal(tmp_path, "flow", {"seed": 1}, say=said.append).records().keys() == {0}
    assert "1 images were scored before" in said[-1]


def test_a_journal_is_removed_with_its_folder(tmp_path):
    journal = Journal(tmp_path / "journal", "depth", {})
    assert journal.records() == {} and not (tmp_path / "journal").exists()
    journal.add([record(0)])
    journal.remove()
    assert not (tmp_path / "journal").exists()


class Power(KeyboardInterrupt):
    """The machine goes down."""


def run(pipeline: Any, source: Any, folder: Any, tasks: tuple[str, ...] = ("depth", "semantic")):
    plan = ScoringPlan([2], [2], 0, "ddim", 0, chunk_size=2)
    sources = {task: source for task in tasks}
    evaluate(folder, pipeline, sources, plan, WHO, folder / "records.jsonl")
    results = json.loads((folder / "results.json").read_text())
    return [{k: v for k, v in row.items() if k != "seconds_per_image"} for row in results]


def test_a_killed_evaluation_goes_on_from_its_last_image(lab, tmp_path, monkeypatch):
    pipeline, drawn = lab.pipeline(), []
    whole = run(pipeline, lab.held, tmp_path / "whole")
    sample, samples = pipeline.sample, lab.held.samples

    def counted(batch, task, **options):
        drawn.extend((task, key) for key in batch.keys if len(batch) == 2)  # pictures come singly
        return sample(batch, task, **options)

    def until(limit: int):
        def read(indices):
            if len(drawn) >= limit:
                raise Power
            return samples(indices)

        return read

    monkeypatch.setattr(pipeline, "sample", counted)
    monkeypatch.setattr(lab.held, "samples", until(8), raising=False)
    with pytest.raises(Power):  # in the second task
        run(pipeline, lab.held, tmp_path / "killed")
    monkeypatch.setattr(lab.held, "samples", samples, raising=False)
    assert len(drawn) == 8 and not (tmp_path / "killed" / "results.json").exists()
    assert run(pipeline, lab.held, tmp_path / "killed") == whole
    assert len(drawn) == len(set(drawn)) == 12, "an image was predicted twice"
    files = sorted(path.name for path in (tmp_path / "killed").iterdir())
    assert "journal" not in files and "evaluation.html" in files


def test_a_journal_that_was_killed_before_its_header_gets_one(tmp_path):
    journal = Journal(tmp_path, "depth", {"seed": 1})
    journal.add([record(0)])
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"")
    journal.add([record(3)])
    assert journal.records().keys() == {3}


def test_variants_of_a_sweep_have_journals_of_their_own(tmp_path):
    """Also where the name of one begins with that of another."""
    said: list[str] = []
    for name in ("depth.ddim", "depth.ddim.48px", "depth.ddim-2"):
        Journal(tmp_path, name, {"nfe": [1]}).add([record(0)])
    assert Journal(tmp_path, "depth.ddim", {"nfe": [1, 2]}, say=said.append).records() == {}
    assert said == [f"depth.ddim: {tmp_path} is of another evaluation; starting anew."]
    for name in ("depth.ddim.48px", "depth.ddim-2"):
        assert Journal(tmp_path, name, {"nfe": [1]}).records().keys() == {0}
