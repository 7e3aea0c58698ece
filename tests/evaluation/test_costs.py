"""What an answer costs: encoding once a view, and a light call for each call of each member."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import product
from statistics import median
from types import SimpleNamespace
from typing import Any

import pytest

from stepsight.config import from_dict
from stepsight.data.collate import collate
from stepsight.data.resize import resize_sample
from stepsight.evaluation.evaluate import evaluate
from stepsight.evaluation.jobs import ScoringPlan
from stepsight.evaluation.predictors import Model
from stepsight.evaluation.records import (
    Flops,
    Identity,
    answer_flops,
    cost_of,
    forward_flops,
    picture_flops,
)
from stepsight.evaluation.views import ProtocolView
from stepsight.models.config import SPLIT
from stepsight.scaling import records
from stepsight.scaling.flops import SplitShape, split_flops

WHO = Identity("run-1", "c0ffee", "abc", 3, "split-8", 1000, 1000, 5e12, 640, {})


def scores(task: str, **sizes: int) -> Any:
    """Of pictures that were worked at so many sizes, "sHxW"."""
    counts = {tuple(map(int, name[1:].split("x"))): count for name, count in sizes.items()}
    return SimpleNamespace(task=task, sizes=counts)


@pytest.mark.parametrize(
    ("views", "nfe", "seen"),
    [("none", 4, 1), ("mirror", 1, 1), ("mirror", 4, 2), ("mirror+shift", 5, 5)]
    + [("mirror+shift", 16, 8)],
)
@pytest.mark.parametrize("task", ["depth", "flow"])
def test_an_answer_is_encoded_once_a_view_for_all_calls_of_all_members(lab, task, views, nfe, seen):
    pipeline = lab.pipeline().sampling(views=views)
    cost = cost_of(pipeline, task)
    assert 0 < cost.call and 0 < cost.shared <= cost.encode
    found = answer_flops(pipeline, scores(task), nfe, 3)
    assert found == seen * cost.encode + 3 * nfe * cost.call


def test_of_several_sizes_it_is_the_mean(lab):
    pipeline = lab.pipeline()
    small, large = (cost_of(pipeline, "depth", size) for size in ((16, 16), (16, 32)))
    found = answer_flops(pipeline, scores("depth", s16x16=3, s16x32=1), 2, 1)
    first, second = (one.encode + 2 * one.call for one in (small, large))
    assert found == (3 * first + second) / 4 and second > first


def test_costs_are_those_of_the_closed_form(lab):
    """Of the picture, of what a task brings, and of looking again, which flow alone does."""
    pipeline = lab.pipeline()
    size, layout = SPLIT["split-8"], pipeline.layout
    parts = (size.channels, size.width, size.encoder, size.trunk, size.blocks, size.decoder)
    shape = SplitShape(
        *parts, layout.target, layout.cond, layout.labels + 1, layout.features, layout.looked
    )
    for task in pipeline.tasks:
        extra = task == "flow"
        expected = split_flops(shape, 16, 16, features=extra, looked=extra)
        assert cost_of(pipeline, task) == Flops(expected.encode, expected.call, expected.read)
        assert forward_flops(pipeline, task) == expected.encode + expected.call
    assert cost_of(pipeline, "flow").encode > cost_of(pipeline, "depth").encode
    assert cost_of(pipeline, "flow").call > cost_of(pipeline, "depth").call


def test_a_backbone_that_reads_all_at_once_shares_nothing(lab):
    config = lab.config(("depth", "normals"))
    pipeline = lab.pipeline(replace(config, model=replace(config.model, name="DiT-Ti/4")))
    cost = cost_of(pipeline, "depth")
    assert cost.shared == 0 and 0 < cost.encode < cost.call
    assert picture_flops([cost, cost], 1.5) == 2 * cost.encode + 3 * cost.call


def test_a_picture_is_read_once_for_all_tasks_and_passes(lab):
    flow = {"components": "separate", "cost_volume": False}
    config = from_dict({"model": {"name": "split-8"}, "tasks": {"depth": {}, "flow": flow}})
    pipeline = lab.pipeline(config)
    depth, both = cost_of(pipeline, "depth"), cost_of(pipeline, "flow")
    assert both == Flops(*(2 * part for part in depth))  # of two passes
    own = depth.encode - depth.shared
    assert picture_flops([depth, both], 2.0) == depth.shared + 3 * own + 6 * depth.call


def test_records_of_a_usual_evaluation_count_the_views_that_were_chosen(lab, tmp_path):
    pipeline = lab.pipeline()
    chosen = {"nfe": 2, "members": 1, "temperature": 0.0}
    views = {"depth": "mirror", "semantic": "none"}
    pipeline.chosen = {task: chosen | {"views": one} for task, one in views.items()}
    sources = {task: lab.held for task in views}
    plan = ScoringPlan([], [], 2, "ddim", 0, 8, usual=True)
    evaluate(tmp_path / "eval", pipeline, sources, plan, WHO, tmp_path / "records.jsonl")
    lines, _ = records.read(tmp_path / "records.jsonl")
    for task, seen in (("depth", 2), ("semantic", 1)):
        cost = cost_of(pipeline, task)
        found = {line.inference_flops for line in lines if line.task == task}
        assert found == {seen * cost.encode + 2 * cost.call}


@pytest.mark.slow
@pytest.mark.parametrize("way", [{}, {"views": "mirror", "temperature": 0.0}])
@pytest.mark.parametrize("images", [1, 8])
def test_a_sweep_charges_each_setting_what_it_takes_by_itself(lab, monkeypatch, images, way):
    """Of one picture alone and of several at a time; the median over settings within 10 %."""
    config = lab.config(("depth",))
    config = replace(config, model=replace(config.model, name="split-32"))
    pipeline = lab.pipeline(config, size=(64, 64)).sampling(**way)
    grid = [4, 1, 2], [1] if way else [1, 4]
    batch = collate([resize_sample(lab.held[i], (64, 64)) for i in range(images)])
    view = ProtocolView("none", None)

    def shared() -> dict[Any, float]:
        model = Model(pipeline, "depth", *grid, "ddim", chunk_size=8)
        if images == 1:
            return model.alone(batch, view)
        return {one.setting: one.seconds for one in model.estimates(batch, view, [(64, 64)])}

    def apart() -> dict[Any, float]:
        found = {}
        for nfe, members in product(*grid):
            model = Model(pipeline, "depth", [nfe], [members], "ddim", chunk_size=8)
            (one,) = model.estimates(batch, view, [(64, 64)])
            found[nfe, members] = one.seconds
        return found

    for room in ("pipeline.shared", "evaluation.predictors"):  # time that others do not stretch
        monkeypatch.setattr(f"stepsight.{room}.clock", lambda device: time.process_time())
    charged, took = {}, {}
    for _ in range(3):  # a busy core can spoil one look, an error in the charge spoils all
        rounds = [(shared(), apart()) for _ in range(8)]
        charged, took = (  # the least: what else runs on a core only ever adds
            {at: min(times[at] for times in each) for at in each[0]} for each in zip(*rounds)
        )
        misses = [abs(charged[at] / took[at] - 1) for at in took]
        if median(misses) < 0.1 and max(misses) < 0.3:
            break
    else:
        pytest.fail(f"charged {charged}, took {took}")
    if not way and images > 1:  # which a share of the largest ensemble would not be
        least, largest = took[1, 1], took[1, 4]
        assert least > 1.2 * largest / 4, "an encoding weighs more where it serves fewer members"
