"""Other ways of sampling and merging the same model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from stepsight.diffusion.config import resampled
from stepsight.errors import UserError
from stepsight.seeding import generator
from stepsight.tasks.merging import merge_rules
from stepsight.types import Batch

SIZE = (24, 32)
WAYS = [
    {"sampler": "heun"},
    {"sampler": "midpoint"},
    {"sampler": "unipc"},
    {"spacing": "karras"},
    {"schedule": "cosine"},
    {"times": (1.0, 0.9, 0.7, 0.3)},
    {"sampler": "ddim", "eta": 1.0},
]


@pytest.fixture(scope="module")
def batch() -> Batch:
    draw = generator("ways")
    image, second = (2 * torch.rand(2, 3, *SIZE, generator=draw) - 1 for _ in range(2))
    return Batch(image, ["a", "b"], ["toys"] * 2, second=second, modal=image[:, :1] > 0)


def spend(way: dict) -> int:
    return 3 if way.get("sampler") == "heun" else 4


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_copy_samples_as_asked_and_the_model_stays_as_it_was(way, pipeline, batch):
    nfe, calls = spend(way), []
    before = pipeline.sample(batch, "depth", nfe=nfe, members=1)
    other = pipeline.sampling(**way)
    hook = pipeline.net.register_forward_pre_hook(lambda *_: calls.append(1))
    found = other.sample(batch, "depth", nfe=nfe, members=1)
    hook.remove()
    assert len(calls) == nfe and found.isfinite().all()
    assert (found - before).abs().max() > 1e-3
    assert torch.equal(pipeline.sample(batch, "depth", nfe=nfe, members=1), before)
    assert other.net is pipeline.net and other.codec is pipeline.codec
    assert other.config == pipeline.config and other.tasks == pipeline.tasks
    assert other.diffusion.settings == resampled(pipeline.config.diffusion, **way)


def test_ways_add_up(pipeline, batch):
    other = pipeline.sampling(sampler="euler").sampling(spacing="karras").sampling(merge="median")
    at_once = pipeline.sampling(sampler="euler", spacing="karras", merge="median")
    assert other.diffusion.settings == at_once.diffusion.settings
    assert other.diffusion.settings.sampler == "euler"
    assert other.tasks == at_once.tasks
    asked = pipeline.sampling(spacing="karras").sample(
        batch, "depth", nfe=3, members=1, sampler="euler"
    )
    assert torch.equal(asked, at_once.sample(batch, "depth", nfe=3, members=1))


def test_nothing_asked_changes_nothing(pipeline, batch):
    same = pipeline.sampling()
    assert same.diffusion.settings == pipeline.config.diffusion and same.tasks == pipeline.tasks
    found, expected = (one.sample(batch, "flow", nfe=2, members=2) for one in (same, pipeline))
    assert torch.equal(found, expected)


# ---------------------------------------------------------------------------- merging


def test_a_rule_by_name_holds_for_all_tasks_that_have_it(pipeline):
    by = {name: task.merge_by for name, task in pipeline.tasks.items() if merge_rules(task)}
    assert by == {
        "depth": "median",
        "flow": "mean",
        "amodal": "mean",
        "semantic": "mean",
        "normals": "mean",
    }
    voted = pipeline.sampling(merge="vote").tasks
    changed = {name for name, task in voted.items() if task != pipeline.tasks[name]}
    assert changed == {"amodal", "semantic"} and voted["amodal"].merge_by == "vote"
    one = pipeline.sampling(merge={"depth": "mean"}).tasks
    assert one == pipeline.tasks | {"depth": replace(pipeline.tasks["depth"], merge_by="mean")}


def test_the_members_of_another_rule_are_the_same(pipeline, batch):
    other = pipeline.sampling(merge={"depth": "mean"})
    members = [one.sample(batch, "depth", nfe=1, members=5) for one in (pipeline, other)]
    assert torch.equal(*members)
    merged = [one.predict(batch, "depth", nfe=1, members=5).values for one in (pipeline, other)]
    assert not torch.equal(*merged)


@pytest.mark.parametrize("task", ["depth", "flow", "amodal", "semantic"])
def test_every_rule_that_is_offered_merges(task, pipeline, batch):
    rules = merge_rules(pipeline.tasks[task])
    assert len(rules) >= 3 and rules[0] == pipeline.tasks[task].merge_by
    for rule in rules:
        found = pipeline.sampling(merge=rule).predict(batch, task, nfe=1, members=3)
        assert found.values.float().isfinite().all() and found.uncertainty is not None


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ({"sampler": "eulr"}, "no sampler 'eulr'. Did you mean 'euler'"),
        ({"spacing": "karas"}, "no spacing 'karas'. Did you mean 'karras'"),
        ({"schedule": "cosin"}, "no schedule 'cosin'. Did you mean 'cosine'"),
        ({"merge": "medain"}, "no task here merges by 'medain'. Did you mean 'median'"),
        ({"merge": {"amodal": "published"}}, "amodal does not merge by 'published'"),
        ({"merge": {"normals": "medoid"}}, "normals does not merge by 'medoid'"),
        ({"merge": {"dept": "mean"}}, "no task dept to merge. Did you mean 'depth'"),
        ({"eta": 2.0}, "eta: 2.0"),
    ],
)
def test_ways_that_do_not_exist_are_refused(way, message, pipeline):
    with pytest.raises(UserError, match=message):
        pipeline.sampling(**way)
