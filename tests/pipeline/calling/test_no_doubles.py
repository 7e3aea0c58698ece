"""A whole prediction holds no float64 on its device, as Apple's GPUs have none: on a make-believe
accelerator, whose answers are those of the CPU. Backbones, samplers and codecs are held to that
where they are held not to wait (`test_pipeline_waiting`)."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from dispatch import DEVICE, accelerated, counting, host_of

from stepsight.coding import build_network
from stepsight.config import from_dict
from stepsight.evaluation.predictors import Model
from stepsight.models.codec import Pixels
from stepsight.pipeline.dense import DensePipeline
from stepsight.seeding import generator
from stepsight.tasks.config import TABLE
from stepsight.tasks.table import build_tasks
from stepsight.types import Batch, Prediction

ALONE = {"image"}  # whose classes the others do not have
TASKS = [*sorted({*TABLE} - ALONE)]


def pipeline_of(tasks: dict) -> DensePipeline:
    config = from_dict({"model": {"name": "split-8"}, "tasks": tasks})
    built = build_tasks(config.tasks)
    net = build_network(config, built, Pixels()).eval().requires_grad_(False)
    draw = generator("no doubles")
    for parameter in net.parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=draw))
    return DensePipeline(net, built, config, dict.fromkeys(built, (16, 24)))


def batch_of() -> Batch:
    first, second = torch.rand(2, 2, 3, 30, 44, generator=generator("pictures")) * 2 - 1
    modal = torch.rand(2, 1, 30, 44, generator=generator("masks")) > 0.5
    classes = torch.tensor([1, 0])
    return Batch(first, ["a", "b"], ["t"] * 2, second=second, modal=modal, class_id=classes)


def plainly(method: Any) -> Any:
    """A method without inference mode, of which the make-believe device has no tensors."""
    return method.__wrapped__


def check(pipeline: DensePipeline, task: str, stable: bool = True, **how: object) -> None:
    """From pictures to coloured answers; stable: that do not follow the last bits."""
    options = {"nfe": 3, "members": 3, "seed": 1} | how

    def answered(predict, batch: Batch) -> Prediction:
        found = predict(batch, task, **options)
        found.picture = pipeline.tasks[task].picture(found.values, batch)
        return found

    expected = answered(pipeline.predict, batch_of())
    with accelerated(), torch.no_grad(), counting() as found:
        pipeline.net.to(DEVICE)
        plain = partial(plainly(DensePipeline.predict), pipeline)
        pipeline.sample = partial(plainly(DensePipeline.sample), pipeline)  # type: ignore
        answer = answered(plain, batch_of().to(DEVICE))
    assert not found.doubles, found.doubles[:5]
    if stable:
        torch.testing.assert_close(host_of(answer.x), expected.x, atol=5e-5, rtol=1e-3)


@pytest.mark.parametrize("task", TASKS)
def test_tasks(task):
    check(pipeline_of({task: {}}), task)


def test_generated_pictures():
    check(pipeline_of({"image": {"classes": 3}}), "image", members=1)


@pytest.mark.parametrize("rule", ["published", "mean", "medoid"])
def test_rules_of_merging(rule):
    pipeline, stable = pipeline_of({"depth": {"merge_by": rule}}), rule != "published"
    check(pipeline, "depth", stable, nfe=1, members=3 if stable else 2)


def test_views_and_starts():
    pipeline = pipeline_of({"depth": {}})
    check(pipeline.sampling(views="mirror+shift", temperature=0.0), "depth", members=1)
    pipeline = pipeline_of({"depth": {}})  # the other is on its device
    check(pipeline.sampling(starts="antithetic"), "depth")


def test_what_lies_on_the_host_is_answered_there():
    """So that metrics, which are float64, are computed where that is known."""
    pipeline = pipeline_of({"depth": {}})
    expected = pipeline.sample(batch_of(), "depth", nfe=2, members=2)
    with accelerated(), torch.no_grad():
        pipeline.net.to(DEVICE)
        sample = plainly(DensePipeline.sample)
        found = sample(pipeline, batch_of(), "depth", nfe=2, members=2)
        assert found.device.type == "cpu" and pipeline.device == DEVICE
    torch.testing.assert_close(found, expected, atol=5e-5, rtol=1e-3)


def test_scores_of_apples_gpus_are_made_on_the_host(monkeypatch):
    pipeline = pipeline_of({"depth": {}})
    model = Model(pipeline, "depth", [1], [1], "ddim", 0, 8)
    for name, where in (("mps", "cpu"), ("cuda", "cuda"), ("cpu", "cpu")):
        monkeypatch.setattr(DensePipeline, "device", torch.device(name))
        assert model.device.type == where
