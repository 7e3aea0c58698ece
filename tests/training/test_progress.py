"""Where a run stands is what its checkpoints hold: nothing is saved and not restored."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields, replace
from typing import Any

import pytest

from stepsight import checkpoint
from stepsight.report.console import Console
from stepsight.training.progress import Progress

CHANGED: dict[str, Any] = {
    "step": 3,
    "images_seen": 24,
    "training_flops": 1.5e9,
    "inherited_flops": 2.5e12,
    "best": -0.25,
    "losses": {"depth": 0.5},
    "loss_bins": {"depth": [0.1, 0.2, 0.3, 0.4]},
    "parent": "teacher-0001",
    "skipped": 4,
    "skipped_in_row": 1,
    "norms": [0.5, 0.25],
    "rewinds": 1,
    "rate": 0.5,
    "scale": 1024.0,
    "scaled": 7,
    "pending": {"loss": {"depth": [0.5]}, "usage": {}},
    "ledger": [{"what": "rewound", "step": 2}],
}


def test_every_field_has_a_changed_value():
    assert CHANGED.keys() == {field.name for field in fields(Progress)}
    assert all(asdict(Progress())[name] != value for name, value in CHANGED.items())


@pytest.fixture(scope="module")
def run(laboratory, tmp_path_factory):
    """A run of one step, to save again and again."""
    lab = laboratory()
    return lab.train(lab.config(("depth",), images=8, keep=20), tmp_path_factory.mktemp("run"))


def same(progress: Progress, other: Progress) -> bool:
    """Of noise levels that no image had the loss is NaN."""
    return repr(asdict(progress)) == repr(asdict(other))


@pytest.mark.parametrize("name", CHANGED)
def test_a_changed_field_survives_saving_and_resuming(run, name):
    progress = replace(run.progress, **{name: CHANGED[name]})
    run.learner.save(run.feed, progress, run.writer, best=False)
    run.learner.saver.wait()
    saved = checkpoint.read(run.writer.path, prefer="last")
    again = run.learner.resume(saved, Console(enabled=False))
    assert same(again, progress) and getattr(again, name) == CHANGED[name]


def test_it_is_part_of_the_description_of_a_checkpoint(run):
    run.learner.save(run.feed, run.progress, run.writer, best=False)
    run.learner.saver.wait()
    path = checkpoint.resolve(run.writer.path, prefer="last") / "stepsight.json"
    meta = json.loads(path.read_text())
    assert same(Progress.of(meta), run.progress)
    facts = {"format", "sizes", "tasks", "codec", "precision", "samples", "run", "revision"}
    facts |= {"is_best", "tensors", "serial", "held", "ema_warmup"}
    assert meta.keys() == facts | {field.name for field in fields(Progress)}


def test_only_a_better_score_is_the_best():
    progress = Progress()
    assert not progress.improve(math.inf) and progress.best is None  # nothing was measured
    assert progress.improve(0.5) and not progress.improve(0.5) and not progress.improve(0.7)
    assert progress.improve(-1.0) and progress.best == -1.0
