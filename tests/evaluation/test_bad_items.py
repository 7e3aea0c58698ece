"""Images that cannot be read, and answers that are no numbers."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import Any

import pytest
import torch

from stepsight.data.bad import QUARANTINE, BadItems
from stepsight.errors import DataFormatError, UserError
from stepsight.evaluation.evaluate import evaluate
from stepsight.evaluation.evaluator import score
from stepsight.evaluation.jobs import ScoringPlan
from stepsight.evaluation.predictors import Model
from stepsight.evaluation.records import Identity
from stepsight.evaluation.results import metrics_of
from stepsight.evaluation.scoring import items
from stepsight.metrics.protocol import default_for, get
from stepsight.results import read_results
from stepsight.signals import Preempted
from stepsight.testtime.sweep import sweep

WHO = Identity("run-1", "c0ffee", "abc", 3, "split-8", 1000, 1000, 5e12, 640, {})


@pytest.fixture
def damaged(lab) -> Any:
    """A source of six images, of which those in `broken` cannot be read."""

    class Damaged(lab.Source):
        broken: frozenset[int] = frozenset()

        def __getitem__(self, index: int) -> Any:
            if index in self.broken:
                raise DataFormatError(f"picture-{index}.png: it is damaged.")
            return super().__getitem__(index)

    def make(*broken: int, count: int = 6) -> Any:
        source = Damaged(count=count, seed="held")
        source.broken = frozenset(broken)
        return source

    return make


def scores_of(pipeline: Any, source: Any, task: str = "flow", **options: Any) -> Any:
    model = Model(pipeline, task, [1], [1, 2], "ddim", chunk_size=4, keep=True)
    (found,) = score(model, source, [default_for(task)], range(len(source)), **options)
    return found


def test_one_damaged_image_stops_everything_and_is_named(lab, damaged):
    with pytest.raises(DataFormatError, match=r"sample 4: picture-4.png.*--on-bad skip"):
        scores_of(lab.pipeline(), damaged(4))


@pytest.mark.parametrize("broken", [(0,), (3, 5), (0, 1, 2, 3)])
def test_skipped_images_are_absent_and_the_others_score_as_ever(lab, damaged, broken):
    pipeline, bad = lab.pipeline(), BadItems("skip", 0.7)
    whole, found = scores_of(pipeline, damaged()), scores_of(pipeline, damaged(*broken), bad=bad)
    good = [i for i in range(6) if i not in broken]
    assert found.indices == good and found.keys == [whole.keys[i] for i in good]
    assert [*found.skipped] == [f"sample {i}" for i in broken] and bad.count == len(broken)
    for setting, rows in whole.settings.items():
        for name, value in rows.items():
            torch.testing.assert_close(found.settings[setting][name], value[good], equal_nan=True)


def test_too_many_of_them_are_refused(lab, damaged):
    with pytest.raises(UserError, match=r"2 of 6 items cannot be read, and --bad-cap 0.01"):
        scores_of(lab.pipeline(), damaged(1, 2), bad=BadItems("skip"))
    with pytest.raises(UserError, match="none of 2 images can be scored"):
        scores_of(lab.pipeline(), damaged(0, 1, count=2), bad=BadItems("skip", 1.0))


def run(pipeline: Any, source: Any, folder: Any, bad: BadItems | None = None) -> list[Any]:
    plan = ScoringPlan([2], [2], 0, "ddim", 0, chunk_size=2, bad=bad or BadItems("skip", 0.5))
    sources = {task: source for task in ("depth", "semantic")}
    return evaluate(folder, pipeline, sources, plan, WHO, folder / "records.jsonl")


def test_what_was_skipped_stands_in_every_file(lab, damaged, tmp_path):
    pipeline, source = lab.pipeline(), damaged(1)
    run(pipeline, source, tmp_path)
    found = read_results(tmp_path / "results.json")
    assert [(row.n, row.expected, row.skipped) for row in found] == [(5, 6, ("sample 1",))] * 2
    assert all("partial: 5 of 6" in str(row.label) for row in found)
    assert "5 of 6 images, 1 bad ones skipped" in (tmp_path / "evaluation.html").read_text()
    (note,) = map(json.loads, (tmp_path / QUARANTINE).read_text().splitlines())
    assert (note["source"], note["key"]) == ("scenes", "sample 1")
    assert "picture-1.png" in note["reason"]
    lines = (tmp_path / "records.jsonl").read_text().splitlines()
    assert {json.loads(line)["images"] for line in lines} == {5}
    run(pipeline, damaged(), tmp_path)  # the file was repaired
    assert not (tmp_path / QUARANTINE).exists()
    assert "skipped" not in json.loads((tmp_path / "results.json").read_text())[0]


def test_a_resumed_evaluation_agrees(lab, damaged, tmp_path, monkeypatch):
    pipeline, source = lab.pipeline(), damaged(1)
    run(pipeline, source, tmp_path / "whole")
    asked = iter(["", "", "SIGTERM"])
    monkeypatch.setattr("stepsight.evaluation.evaluator.requested", lambda: next(asked, ""))
    with pytest.raises(Preempted, match="SIGTERM: 3 of 6 images of depth are scored, and kept in"):
        run(pipeline, source, tmp_path / "again")
    assert not (tmp_path / "again" / "results.json").exists()
    run(pipeline, source, tmp_path / "again")
    for name in ("results.json", "per_sample.csv", "records.jsonl", QUARANTINE):
        one, other = ((tmp_path / part / name).read_text() for part in ("whole", "again"))
        assert untimed(one) == untimed(other), name


def untimed(text: str) -> str:
    return re.sub(r'"(seconds(_per_image)?|time)": [^,}]*', "", text)


def test_a_sweep_pairs_the_common_images(lab, damaged, tmp_path):
    plan = ScoringPlan([1, 2], [1], 0, "ddim", 0, chunk_size=4, bad=BadItems("skip", 0.5))
    sweep(tmp_path, lab.pipeline(), {"depth": damaged(0)}, plan, WHO, tmp_path / "records.jsonl")
    claims = json.loads((tmp_path / "claims.json").read_text())
    assert max(claim["n"] for claim in claims) <= 5 and (tmp_path / "films/depth.json").exists()
    assert len((tmp_path / QUARANTINE).read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("task", "policy"),
    [
        ("depth", "stop"),
        ("depth", "skip"),
        ("flow", "skip"),
        ("amodal", "skip"),
        ("semantic", "skip"),
    ],
)
def test_answers_that_are_no_numbers_count_as_wrong_and_are_named(lab, tmp_path, task, policy):
    pipeline = lab.pipeline()
    sample, (whole,) = pipeline.sample, [scores_of(pipeline, lab.held, task)]

    def broken(batch: Any, task: str, **options: Any) -> torch.Tensor:
        drawn = sample(batch, task, **options)
        drawn[:, [key.endswith("-2") for key in batch.keys], ..., :3] = math.nan
        return drawn

    pipeline.sample = broken
    found = scores_of(pipeline, lab.held, task, bad=BadItems(policy))
    assert found.failed == ["synthetic-held-2"] and not found.skipped and whole.failed == []
    metric = pipeline.task(task).metric
    before, now = (metrics_of(one.settings[1, 1], one.protocol)[metric] for one in (whole, found))
    assert math.isnan(now) or now < before
    plan = ScoringPlan([1], [2], 0, "ddim", 0, chunk_size=4)
    (row,) = evaluate(tmp_path, pipeline, {task: lab.held}, plan, WHO, tmp_path / "r.jsonl")
    assert "no numbers for synthetic-held-2" in str(row.label) and row.n == 6


def test_angles_of_an_answer_that_is_no_number_are_the_largest():
    rows = {"n": torch.full((2,), 3.0), "angles": torch.tensor([[1.0, 2.0, 0.0]] * 2)}
    found = items._mistaken(rows, torch.tensor([False, True]))
    assert found["angles"].tolist() == [[1, 2, 0], [0, 0, 3]]


def test_a_protocol_that_takes_no_such_answer_still_scores_the_others(lab):
    """Aligned in log space, which refuses what is not positive."""
    pipeline = lab.pipeline()
    sample = pipeline.sample

    def broken(batch: Any, task: str, **options: Any) -> torch.Tensor:
        drawn = sample(batch, task, **options)
        drawn[:, [key.endswith("-1") for key in batch.keys]] = math.nan
        return drawn

    pipeline.sample = broken
    model = Model(pipeline, "depth", [1], [1], "ddim")
    (found,) = score(model, lab.held, [get("depth-affine-log", "depth")], range(6))
    values = found.settings[1, 1]["abs_rel"]
    assert values.isnan().tolist() == [i in (1, 5) for i in range(6)]  # 5: no valid pixel


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_an_answer_that_a_metric_cannot_take_is_a_failure_of_its_image_alone(lab, value):
    """Depth that is not positive, as of a hardly trained model, aligned in log space."""

    model = Model(lab.pipeline(), "depth", [1], [1], "ddim", chunk_size=4)
    protocols, estimates = [get("depth-affine-log", "depth")], model.estimates
    (whole,) = score(model, lab.held, protocols, range(6))

    def partly(batch: Any, *arguments: Any) -> Any:
        spoilt = torch.tensor([key.endswith("-2") for key in batch.keys]).view(-1, 1, 1, 1)
        for estimate in estimates(batch, *arguments):
            values = torch.where(spoilt, value, estimate.prediction.values)
            yield replace(estimate, prediction=replace(estimate.prediction, values=values))

    object.__setattr__(model, "estimates", partly)  # it is frozen
    (found,) = score(model, lab.held, protocols, range(6))
    assert found.failed == ["synthetic-held-2"] and not found.skipped and whole.failed == []
    now, before = (one.settings[1, 1]["abs_rel"] for one in (found, whole))
    assert now[2].isnan() and not before[2].isnan()
    rest = [0, 1, 3, 4, 5]
    torch.testing.assert_close(now[rest], before[rest], equal_nan=True)


@pytest.mark.slow
def test_a_run_ends_with_its_report_although_an_image_is_damaged(lab, damaged, tmp_path):
    """Validation, tuning, evaluation and sweep all meet it."""
    lab.held = damaged(1)
    settings: dict[str, Any] = {"evaluate": True, "images": 16, "on_bad": "skip", "bad_cap": 0.5}
    config = lab.config(["depth"], **settings, validate_every=8)
    run = lab.fit(config, tmp_path / "run")
    (row,) = read_results(run / "eval" / "results.json")
    assert (row.n, row.skipped) == (5, ("sample 1",))
    assert "1 bad ones skipped" in (run / "report.html").read_text()
    for part in ("eval", "sweep"):
        assert "picture-1.png" in (run / part / QUARANTINE).read_text()
    assert {line["n"] for line in lab.rows(run, "val")} == {3}
    with pytest.raises(UserError, match=r"picture-1.png.*--training.on_bad skip"):
        lab.fit(lab.config(["depth"], images=16, validate_every=8), tmp_path / "stop")
