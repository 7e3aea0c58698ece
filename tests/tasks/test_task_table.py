"""What holds for every task of the table: settings, encoding and decoding, conditions, refusals."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from stepsight.errors import UserError
from stepsight.metrics.protocol import default_for
from stepsight.tasks.config import TABLE
from stepsight.tasks.table import build_task, build_tasks
from stepsight.types import Batch

SIZES = [(16, 16), (13, 21), (8, 30), (1, 5)]


# ---------------------------------------------------------------------------- the table


def test_a_task_is_its_settings(case, task):
    name, options = case
    settings = TABLE[name](**options)
    assert task.channels >= 1 and task.feature_channels >= 0
    assert isinstance(hash(task), int)
    assert isinstance(task, TABLE[name]) and task.name == name
    assert all(getattr(task, f.name) == getattr(settings, f.name) for f in fields(settings))


def test_runs_and_label_rows_share_out_the_channels(task):
    """A run holds equal channels; rows tell the runs apart, or the classes, never both."""
    assert task.channels % task.splits == 0
    assert task.label_count == task.splits if task.splits > 1 else task.label_count >= 1


def test_tasks_keep_the_order_of_the_table_of_the_run():
    names = ["semantic", "depth", "flow"]
    assert list(build_tasks({name: TABLE[name]() for name in names})) == names


def test_an_unknown_task_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="tasks.semantics is unknown. Did you mean 'semantic'"):
        build_tasks({"semantics": TABLE["semantic"]()})


@pytest.mark.parametrize("name", TABLE)
def test_every_task_has_a_protocol_that_knows_its_main_metric(name, batch_of):
    from stepsight.measures import measure
    from stepsight.metrics.reduce import reduce

    task, batch = build_task(TABLE[name]()), batch_of((16, 16))
    protocol = default_for(name)
    rows = task.score(task.decode(task.encode(batch).x), batch, protocol.name)
    assert rows and all(len(value) == len(batch) for value in rows.values())
    assert task.metric in reduce(rows, protocol)
    assert measure(task.metric).better in ("higher", "lower")


# ---------------------------------------------------------------------------- encode and decode


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_truth_survives_encoding_and_decoding(task, batch_for, size):
    batch = batch_for(task, size)
    target = task.encode(batch)
    assert target.x.shape == (3, task.channels, *size) and target.x.dtype == torch.float32
    assert target.valid.shape == (3, 1, *size) and target.valid.dtype == torch.bool
    assert target.x.isfinite().all()
    decoded = task.decode(target.x)
    assert decoded.task == task.name and decoded.values.shape[-2:] == size
    if task.name == "depth" and task.range == "quantile":
        return  # only up to scale, shift and clipping: see test_each_task.py
    truth = task.truth(batch)
    assert decoded.values.shape == truth.shape
    here = target.valid.expand_as(truth)
    torch.testing.assert_close(
        decoded.values[here].float(), truth[here].float(), atol=1e-5, rtol=1e-4
    )


def test_surplus_channels_of_a_shared_backbone_are_ignored(task):
    x = torch.rand(2, task.channels, 4, 6) * 2 - 1
    wide = torch.cat([x, torch.full((2, 3, 4, 6), 9.0)], dim=1)
    assert torch.equal(task.decode(wide).values, task.decode(x).values)
    assert torch.equal(task.decode(wide).x, x)


GARBAGE = torch.tensor([float("nan"), float("inf"), -1e30, 0.0, -float("inf")])


def spoiled(batch: Batch) -> Batch:
    """The same batch with nonsense wherever its truth does not count."""
    changes: dict[str, Tensor] = {}
    for name in ("depth", "flow", "normals"):
        truth, valid = getattr(batch, name), getattr(batch, f"{name}_valid")
        filler = GARBAGE[torch.arange(truth.numel()) % len(GARBAGE)].reshape(truth.shape)
        changes[name] = torch.where(valid, truth, filler)
    assert batch.amodal is not None and batch.amodal_valid is not None and batch.whole is not None
    changes["amodal"] = batch.amodal ^ ~batch.amodal_valid
    changes["whole"] = torch.where(batch.amodal_valid, batch.whole, -batch.whole)
    return replace(batch, **changes)


@pytest.mark.parametrize("valid", [0.5, 0.0])
def test_pixels_that_do_not_count_have_no_influence(task, batch_for, valid):
    clean = batch_for(task, (13, 21), valid=valid)
    expected, found = task.encode(clean), task.encode(spoiled(clean))
    assert torch.equal(expected.valid, found.valid) and found.x.isfinite().all()
    here = found.valid.expand_as(found.x)
    assert torch.equal(expected.x[here], found.x[here])
    sample = torch.randn(expected.x.shape)
    assert torch.equal(task.loss(sample, clean), task.loss(sample, spoiled(clean)))
    if task.name != "amodal":  # whose invalid pixels hold another object, not nonsense
        assert torch.equal(expected.x, found.x)
        assert torch.equal(task.statistics(clean), task.statistics(spoiled(clean)))


def test_a_row_is_encoded_alone_as_in_a_batch(task, batch_for, row_of):
    batch = batch_for(task, (12, 20))
    together = task.encode(batch)
    for row in range(3):
        alone = task.encode(row_of(batch, row))
        torch.testing.assert_close(alone.x[0], together.x[row], atol=1e-6, rtol=1e-6)


# ---------------------------------------------------------------------------- conditions


def test_conditions_are_images_and_features_of_the_promised_size(task, batch_for):
    batch = batch_for(task, (16, 24))
    condition = task.condition(batch)
    assert condition.images.shape == (3, task.images, 3, 16, 24)
    assert task.images >= len(task.required_inputs)
    for first in condition.images[:, :1].unbind(1):
        assert torch.equal(first, batch.image)
    assert (condition.images.abs() <= 1).all()
    if task.feature_channels:
        assert condition.features is not None
        assert condition.features.shape[:2] == (3, task.feature_channels)
    else:
        assert condition.features is None


def test_conditions_never_look_at_the_truth(task, batch_of):
    batch = batch_of((16, 16))
    inputs = Batch(batch.image, batch.keys, batch.sources)
    for asked in task.required_inputs:
        setattr(inputs, asked, getattr(batch, asked))
    with_truth, without = task.condition(batch), task.condition(inputs)
    assert torch.equal(with_truth.images, without.images)
    if without.features is not None:
        assert with_truth.features is not None
        assert torch.equal(with_truth.features, without.features)


# ---------------------------------------------------------------------------- missing truth


@pytest.mark.parametrize("call", ["encode", "truth", "statistics", "loss", "score"])
def test_a_source_without_the_truth_is_named(task, call):
    if (task.name, call) == ("amodal", "statistics"):
        return  # which learns no baseline
    batch = Batch(torch.zeros(2, 3, 8, 8), ["a", "b"], ["barefoot", "toys"])
    arguments = [batch]
    if call == "score":
        protocol = default_for(task.name).name
        arguments = [task.decode(torch.zeros(2, task.channels, 8, 8)), batch, protocol]
    if call == "loss":
        arguments = [torch.zeros(2, task.channels, 8, 8), batch]
    with pytest.raises(UserError, match=f"task {task.name} .*needs .*barefoot, toys does not have"):
        getattr(task, call)(*arguments)
