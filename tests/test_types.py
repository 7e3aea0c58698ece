"""The values that flow: moving them moves every tensor and nothing else."""

from __future__ import annotations

from dataclasses import fields

import torch

from stepsight.data.collate import collate
from stepsight.types import Batch, Condition, ModelInputs, Prediction, Sample, Target


def test_moving_reaches_every_tensor_and_keeps_the_rest():
    batch = Batch(torch.zeros(2, 3, 4, 4), keys=["a", "b"], sources=["s", "s"])
    batch.labels = torch.zeros(2, 4, 4, dtype=torch.int64)
    batch.extra = {"matte": torch.zeros(2, 1, 4, 4)}  # as other packages add it
    moved = batch.to("meta", non_blocking=True)
    assert moved is not batch and moved.keys == ["a", "b"] and moved.depth is None
    assert moved.image.is_meta and moved.labels is not None and moved.labels.is_meta
    assert moved.extra["matte"].is_meta
    assert not batch.image.is_meta and not batch.extra["matte"].is_meta
    assert len(moved) == 2


def test_every_value_can_be_moved():
    x = torch.zeros(1, 1, 2, 2)
    values = [
        Sample(torch.zeros(3, 2, 2, dtype=torch.uint8), "key", "source"),
        Condition(x[:, None]),
        Target(x, x.bool()),
        ModelInputs(None, x, None, None, torch.zeros(1, dtype=torch.int64)),
        Prediction("depth", x, x),
    ]
    for value in values:
        moved = value.to("meta")
        held = [getattr(moved, f.name) for f in fields(moved)]
        tensors = [one for one in held if isinstance(one, torch.Tensor)]
        assert tensors and all(one.is_meta for one in tensors)


def test_a_batch_offers_only_what_all_its_samples_have():
    image, one = torch.zeros(3, 1, 2, dtype=torch.uint8), torch.ones(1, 1, 2)
    samples = [Sample(image, "a", "s", depth=one), Sample(image, "b", "s", depth=2 * one)]
    batch = collate(samples)
    assert batch.depth is not None and batch.depth.tolist() == [[[[1, 1]]], [[[2, 2]]]]
    samples[1].depth = None
    assert collate(samples).depth is None
