"""Truth is per sample: who has a truth learns from it and is scored on it, whatever others lack."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rooms import write_rooms

from stepsight.data.buckets import cut
from stepsight.data.mixture import Mixture, Stream
from stepsight.data.table import SourcePart, having, settings_for
from stepsight.errors import UserError
from stepsight.evaluation.sources import pick_sources
from stepsight.report.console import Console
from stepsight.tasks.table import build_tasks
from stepsight.training.feed import Feed, open_banks, open_latents
from stepsight.training.fit import preflight
from stepsight.training.spec import match

ALL, SOME = frozenset({"depth", "labels"}), frozenset({"labels"})


@pytest.fixture
def rooms(lab, tmp_path):
    """A run on the folder of `write_rooms`, in which every other picture has no depth."""
    root = write_rooms(tmp_path / "rooms")

    def run(**options):
        config = lab.config(("depth", "semantic"))
        del config.data["scenes"]
        config.data["folder"] = settings_for("folder", root=str(root), size=(16, 24), **options)
        return preflight(config, tmp_path / "run")

    return run


@pytest.fixture
def partial(lab):
    """Synthetic samples, the first `few` of which have depth."""

    def make(few, count=32):
        source = lab.Source(count=count, quantities=ALL)
        source.truths = tuple(ALL if index < few else SOME for index in range(count))
        return source

    return make


@pytest.mark.parametrize("stream", [False, True])
def test_batches_are_of_pictures_with_the_same_truths(rooms, stream):
    spec = rooms(stream=stream)
    assert {one.tasks: one.length for one in spec.streams} == {
        ("depth", "semantic"): 9,
        ("semantic",): 9,
    }
    feed = Feed(spec, open_banks(spec), torch.device("cpu"), Console(enabled=False))
    seen: dict[tuple[str, ...], set[str]] = {}
    for step in range(8):
        draw = feed.draw(step)
        batch = feed.batch(draw, step, range(8))
        assert (batch.depth is not None) == ("depth" in draw.stream.tasks)
        assert batch.labels is not None
        seen.setdefault(draw.stream.tasks, set()).update(batch.keys)
    assert {key[-1] for key in seen["depth", "semantic"]} <= set("02468")
    assert {key[-1] for key in seen["semantic",]} <= set("13579")
    first = feed.leading("folder", 4, frozenset({"depth"}))
    assert [one.depth is None for one in first.samples(range(4))] == [False] * 4


def test_each_task_keeps_its_weight(lab, partial):
    """Half of the batches are for depth, however few pictures have it; none is too rare to draw."""
    config = lab.config(("depth", "semantic"))
    tasks = build_tasks(config.tasks)
    streams = match(tasks, {"scenes": partial(8)}, config)
    weights = {one.tasks: one.weight for one in streams}
    assert weights["depth", "semantic"] == pytest.approx(1 + 8 / 32)
    assert weights["semantic",] == pytest.approx(24 / 32)
    rare = match(tasks, {"scenes": partial(199, 200)}, config)
    assert min(Mixture(rare, 8, 0).counts(60).values()) >= 8
    assert {one.tasks: one.length for one in rare}["semantic",] == 1


def test_buckets_of_a_part(partial):
    stream = Stream(("depth",), "scenes", 1.0, 8).only(np.arange(8) < 4)
    native = [(16, 24), (24, 16)] * 4
    buckets = cut(stream, native, [(16, 24), (24, 16)], 0.01)
    assert [one.indices().tolist() for one in buckets] == [[0, 2], [1, 3]]
    assert [(one.length, one.weight) for one in buckets] == [(2, 0.5), (2, 0.5)]


def test_a_task_is_scored_on_the_pictures_that_have_its_truth(lab, partial):
    held, pipeline = partial(5), lab.pipeline(lab.config(("depth", "semantic")))
    picked = pick_sources(pipeline, {"scenes": held}, None)
    assert picked["semantic"] is held and isinstance(picked["depth"], SourcePart)
    assert len(picked["depth"]) == 5 and picked["depth"].quantities == ALL
    assert having(held, frozenset({"flow"})) is None
    other = lab.Source(quantities=ALL)
    other.truths = (frozenset({"depth"}), SOME) * 16
    assert having(other, ALL) is None  # no sample has both


def test_a_latent_cache_wants_every_truth(rooms, tmp_path):
    spec = rooms()
    with pytest.raises(UserError, match=r"keeps every truth .* \(depth: 9 of 18 pictures"):
        open_latents(spec, None)
