"""Draws that differ in calls and members alone share what they have in common."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from stepsight.data.collate import collate
from stepsight.pipeline.shared import Shared


def counted(monkeypatch, net) -> dict[str, int]:
    """How often a network encodes and is called."""
    made = {"encode": 0, "forward": 0}
    for name in made:
        usual = getattr(net, name)

        def counting(*given, _name=name, _usual=usual, **more):
            made[_name] += 1
            return _usual(*given, **more)

        monkeypatch.setattr(net, name, counting)
    return made


@pytest.mark.parametrize("task", ["depth", "flow"])
@pytest.mark.parametrize("views", ["none", "mirror"])
@pytest.mark.parametrize("spacing", ["trailing", "leading"])  # which begins elsewhere each time
def test_shared_draws_are_those_made_apart(lab, task, views, spacing):
    config = lab.config((task,))
    levels = {"schedule": "scaled_linear", "sampling_shift": 1.0, "spacing": spacing}
    diffusion = replace(config.diffusion, **levels)
    pipeline = lab.pipeline(replace(config, diffusion=diffusion)).sampling(views=views)
    batch, shared = collate(lab.held.samples(range(3))), Shared(pipeline.device)
    for nfe, members in ((1, 4), (2, 4), (4, 2), (1, 2)):
        how = {"nfe": nfe, "members": members, "chunk_size": 4}
        apart = pipeline.sample(batch, task, **how)
        assert torch.equal(pipeline.sample(batch, task, **how, shared=shared), apart)


def test_a_picture_is_encoded_once_a_view_and_the_start_answered_once(lab, monkeypatch):
    pipeline = lab.pipeline().sampling(views="mirror", temperature=1.0)
    batch, made = collate(lab.held.samples(range(2))), counted(monkeypatch, pipeline.net)
    shared = Shared(pipeline.device)
    for nfe in (1, 2, 4):
        pipeline.sample(batch, "depth", nfe=nfe, members=2, chunk_size=2, shared=shared)
    assert made == {"encode": 2, "forward": 2 * (1 + 1 + 3)}  # chunks x calls
    for nfe in (1, 2, 4):
        pipeline.sample(batch, "depth", nfe=nfe, members=2, chunk_size=2)
    assert made == {"encode": 2 + 1 + 2 + 2, "forward": 2 * (5 + 7)}


def test_seconds_are_charged_to_each_draw_that_uses_them(monkeypatch):
    times = iter(range(100))
    monkeypatch.setattr("stepsight.pipeline.shared.clock", lambda device: float(next(times)) ** 2)
    shared = Shared(torch.device("cpu"))
    assert shared.once("view", 0, lambda: "seen") == "seen"  # from 0 to 1
    assert shared.once("start", 0, lambda: "answer") == "answer"  # from 4 to 9
    assert (shared.spent, shared.lent) == ({"view": 1.0, "start": 5.0}, 0.0)
    shared.begin()
    assert shared.once("view", 0, lambda: "anew") == "seen"
    assert shared.once("view", 1, lambda: "other") == "other"  # from 16 to 25
    assert (shared.spent, shared.lent) == ({"view": 10.0}, 1.0)
