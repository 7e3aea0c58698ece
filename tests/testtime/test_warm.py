"""Warm starts: which predictions are made, from what, and at what cost."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

from stepsight.data.collate import collate
from stepsight.pipeline.dense import DensePipeline
from stepsight.testtime.warm import STRENGTHS, can_start_warm, warm_starts


@pytest.fixture
def batch(lab):
    return collate(lab.held.samples(range(3)))


@pytest.fixture
def trajectories(monkeypatch):
    """What `DensePipeline.sample` was asked for and gave."""
    made: list[tuple[Any, dict[str, Any], torch.Tensor]] = []
    original = DensePipeline.sample

    def spy(self, batch, task, **options):
        drawn = original(self, batch, task, **options)
        made.append((batch, options, drawn))
        return drawn

    monkeypatch.setattr(DensePipeline, "sample", spy)
    return made


def test_every_way_is_tried_at_both_costs(lab, batch):
    pipeline = lab.pipeline(statistics=False)
    found = list(warm_starts(pipeline, batch, "depth", nfe=4, members=2))
    warm = {f"warm_{n}_from_{s:g}": (n, f"cold_{n}") for n in (2, 1) for s in STRENGTHS}
    expected = {"carried": (0, ""), "cold_2": (2, ""), "cold_1": (1, "")} | warm
    assert {one.name: (one.nfe, one.rival) for one in found if not one.extra} == expected
    moved = {name.replace("_from", "_moved_from") for name in warm} | {"carried_moved"}
    assert {one.name for one in found if one.extra == 1} == moved
    different = {one.prediction.x.sum().item() for one in found}
    assert len(different) == len(found)


def test_starts_are_predictions_of_the_second_frames(lab, batch, trajectories):
    pipeline = lab.pipeline(lab.config(tasks=("depth",)), statistics=False)
    list(warm_starts(pipeline, batch, "depth", nfe=2, members=2, seed=5, chunk_size=3))
    (before, first, drawn), *later = trajectories
    assert torch.equal(before.image, batch.second) and before.second is None
    assert first == {"nfe": 2, "members": 2, "seed": 5, "chunk_size": 3}
    start = pipeline.task("depth").merge(drawn).x
    strengths = []
    for frame, options, _ in later:
        assert frame is batch and (options["nfe"], options["members"]) == (1, 2)
        if "start" in options:
            assert torch.equal(options["start"], start)
            strengths.append(options["strength"])
    assert strengths == list(STRENGTHS) and len(later) == 1 + len(STRENGTHS)


def test_with_flow_a_start_follows_the_motion(lab, batch, monkeypatch):
    pipeline = lab.pipeline(statistics=False)
    shift = torch.tensor([3.0, 0.0])[:, None, None].expand(3, 2, 16, 16)
    original = DensePipeline.sample

    def known(self, batch, task, **options):
        if task == "flow":
            assert (options["nfe"], options["members"]) == (1, 1)
            return (shift / pipeline.task("flow").scale)[None]
        return original(self, batch, task, **options)

    monkeypatch.setattr(DensePipeline, "sample", known)
    still, moved, *_ = warm_starts(pipeline, batch, "depth", nfe=2, members=2)
    assert (still.name, moved.name, moved.extra) == ("carried", "carried_moved", 1)
    there, here = still.prediction.x, moved.prediction.x
    torch.testing.assert_close(here[..., :-3], there[..., 3:], rtol=0, atol=1e-4)


def test_a_sampler_is_not_asked_for_what_it_cannot_spend(lab, batch):
    heun = lab.pipeline(statistics=False).sampling(sampler="heun")
    found = list(warm_starts(heun, batch, "depth", nfe=5, members=1))
    assert {one.nfe for one in found} == {0, 1}  # 2 is no number of calls of Heun's


def test_only_images_alone_start_warm(lab, batch):
    pipeline = lab.pipeline(statistics=False)
    able = {name: can_start_warm(pipeline, task, batch) for name, task in pipeline.tasks.items()}
    assert able == {"depth": True, "flow": False, "amodal": False, "semantic": True}
    depth = pipeline.task("depth")
    assert not can_start_warm(pipeline, depth, replace(batch, second=None))
    assert not can_start_warm(pipeline.sampling(times=(1.0, 0.5)), depth, batch)
    together = copy(pipeline)
    together.layout = replace(pipeline.layout, places=2)
    assert not can_start_warm(together, depth, batch)
