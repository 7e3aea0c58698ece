"""What holds for every task of the table. A new row is picked up by itself if `batch_of`
knows its truth.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.errors import UserError
from stepsight.seeding import generator
from stepsight.tasks.base import Task
from stepsight.tasks.config import TABLE
from stepsight.tasks.table import build_task, build_tasks
from stepsight.types import IGNORE, Batch

SIZES = [(16, 16), (13, 21), (8, 30), (1, 5)]
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "depth": [
        {"space": space, "range": limits, "merge_by": merge_by}
        for space in ("log", "inverse", "linear")
        for limits, merge_by in (("quantile", "median"), ("metric", "mean"))
    ],
    "flow": [{}, {"scale": 7.0, "cost_volume": False, "merge_by": "median"}],
    "semantic": [{}, {"classes": 9, "encoding": "bits"}],
}
CASES = [
    pytest.param(name, options, id=f"{name}-{'-'.join(map(str, options.values()))}")
    for name in TABLE
    for options in VARIANTS.get(name, [{}])
]
BASELINES = {
    "depth": {"constant", "mean_map"},
    "flow": {"zero_flow", "oracle_mean_flow", "constant", "mean_map"},
    "amodal": {"copied_mask", "bounding_box"},
    "semantic": {"constant", "prior_map"},
    "normals": {"constant", "mean_map"},
}


def make(name: str, options: dict[str, Any]) -> Task:
    return build_task(TABLE[name](**options))


def batch_of(size: tuple[int, int], rows: int = 3, classes: int = 7, valid: float = 0.7) -> Batch:
    """Random images and truths of every kind; about `valid` of the pixels count."""
    height, width = size
    draw = generator("task table", height, width, rows)

    def uniform(channels: int) -> Tensor:
        return torch.rand(rows, channels, height, width, generator=draw)

    amodal = uniform(1) < 0.5
    return Batch(
        image=2 * uniform(3) - 1,
        keys=[f"key{row}" for row in range(rows)],
        sources=["toys"] * rows,
        second=2 * uniform(3) - 1,
        depth=1.4 + 9 * uniform(1),
        depth_valid=uniform(1) < valid,
        flow=20 * uniform(2) - 10,
        flow_valid=uniform(1) < valid,
        labels=(classes * uniform(1))[:, 0].long().masked_fill(uniform(1)[:, 0] > valid, IGNORE),
        modal=amodal & (uniform(1) < 0.5),
        amodal=amodal,
        amodal_valid=uniform(1) < valid,
        normals=F.normalize(uniform(3) - 0.5, dim=1),
        normals_valid=uniform(1) < valid,
    )


def batch_for(task: Task, size: tuple[int, int], **more) -> Batch:
    return batch_of(size, classes=getattr(task, "classes", 7), **more)


def members_of(task: Task, count: int = 5, size: tuple[int, int] = (6, 9)) -> Tensor:
    """Different samples "e b c h w" of one target."""
    truth = torch.rand(1, 2, task.channels, *size, generator=generator("members", count)) * 2 - 1
    noise = torch.randn(count, *truth.shape[1:], generator=generator("noise", count))
    return truth + 0.3 * noise


# ---------------------------------------------------------------------------- the table


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_task_is_its_settings(name, options):
    task = make(name, options)
    settings = TABLE[name](**options)
    assert isinstance(task, TABLE[name]) and task.name == name
    assert all(getattr(task, f.name) == getattr(settings, f.name) for f in fields(settings))
    assert task.channels >= 1 and task.feature_channels >= 0
    assert isinstance(hash(task), int)


def test_tasks_keep_the_order_of_the_table_of_the_run():
    names = ["semantic", "depth", "flow"]
    assert list(build_tasks({name: TABLE[name]() for name in names})) == names


def test_an_unknown_task_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="tasks.semantics is unknown. Did you mean 'semantic'"):
        build_tasks({"semantics": TABLE["semantic"]()})


@pytest.mark.parametrize("name", TABLE)
def test_every_task_has_a_protocol_that_knows_its_main_metric(name):
    from stepsight.evaluation.measures import measure
    from stepsight.metrics.protocol import default_for

    task, batch = make(name, {}), batch_of((16, 16))
    truth = task.decode(task.encode(batch).x)
    rows = task.score(truth, batch, default_for(name).name)
    assert rows and all(len(value) == len(batch) for value in rows.values())
    assert measure(task.metric).higher_is_better == task.higher_is_better


# ---------------------------------------------------------------------------- encode and decode


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_truth_survives_encoding_and_decoding(name, options, size):
    task = make(name, options)
    batch = batch_for(task, size)
    target = task.encode(batch)
    assert target.x.shape == (3, task.channels, *size) and target.x.dtype == torch.float32
    assert target.valid.shape == (3, 1, *size) and target.valid.dtype == torch.bool
    assert target.x.isfinite().all()
    decoded = task.decode(target.x)
    assert decoded.task == name and decoded.values.shape[-2:] == size
    if name == "depth" and options["range"] == "quantile":
        return  # only up to scale, shift and clipping: see test_depth.py
    truth = task.truth(batch)
    assert decoded.values.shape == truth.shape
    here = target.valid.expand_as(truth)
    torch.testing.assert_close(
        decoded.values[here].float(), truth[here].float(), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize(("name", "options"), CASES)
def test_surplus_channels_of_a_shared_backbone_are_ignored(name, options):
    task = make(name, options)
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
    assert batch.amodal is not None and batch.amodal_valid is not None
    changes["amodal"] = batch.amodal ^ ~batch.amodal_valid
    return replace(batch, **changes)


@pytest.mark.parametrize("valid", [0.5, 0.0])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_pixels_that_do_not_count_have_no_influence(name, options, valid):
    task = make(name, options)
    clean = batch_for(task, (13, 21), valid=valid)
    expected, found = task.encode(clean), task.encode(spoiled(clean))
    assert torch.equal(expected.valid, found.valid) and found.x.isfinite().all()
    here = found.valid.expand_as(found.x)
    assert torch.equal(expected.x[here], found.x[here])
    if name != "amodal":  # whose invalid pixels hold another mask, not nonsense
        assert torch.equal(expected.x, found.x)
        assert torch.equal(task.statistics(clean), task.statistics(spoiled(clean)))


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_row_is_encoded_alone_as_in_a_batch(name, options):
    task = make(name, options)
    batch = batch_for(task, (12, 20))
    together = task.encode(batch)
    for row in range(3):
        alone = task.encode(row_of(batch, row))
        torch.testing.assert_close(alone.x[0], together.x[row], atol=1e-6, rtol=1e-6)


def row_of(batch: Batch, row: int) -> Batch:
    parts = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return Batch(**{k: None if v is None else v[row : row + 1] for k, v in parts.items()})


# ---------------------------------------------------------------------------- conditions


@pytest.mark.parametrize(("name", "options"), CASES)
def test_conditions_are_images_and_features_of_the_promised_size(name, options):
    task = make(name, options)
    batch = batch_for(task, (16, 24))
    condition = task.condition(batch)
    assert condition.images.shape == (3, 1 + len(task.asks), 3, 16, 24)
    assert torch.equal(condition.images[:, 0], batch.image)
    assert condition.images.abs().max() <= 1
    if task.feature_channels:
        assert condition.features is not None
        assert condition.features.shape[:2] == (3, task.feature_channels)
    else:
        assert condition.features is None


@pytest.mark.parametrize("name", TABLE)
def test_conditions_never_look_at_the_truth(name):
    task, batch = make(name, {}), batch_of((16, 16))
    inputs = Batch(batch.image, batch.keys, batch.sources)
    for asked in task.asks:
        setattr(inputs, asked, getattr(batch, asked))
    with_truth, without = task.condition(batch), task.condition(inputs)
    assert torch.equal(with_truth.images, without.images)
    if without.features is not None:
        assert with_truth.features is not None
        assert torch.equal(with_truth.features, without.features)


# ---------------------------------------------------------------------------- missing truth


@pytest.mark.parametrize(
    ("name", "call"),
    [
        (name, call)
        for name in TABLE
        for call in ("encode", "truth", "statistics", "score")
        if (name, call) != ("amodal", "statistics")  # which learns no baseline
    ],
)
def test_a_source_without_the_truth_is_named(name, call):
    task = make(name, {})
    batch = Batch(torch.zeros(2, 3, 8, 8), ["a", "b"], ["barefoot", "toys"])
    arguments = [batch]
    if call == "score":
        arguments = [task.decode(torch.zeros(2, task.channels, 8, 8)), batch, "any"]
    with pytest.raises(UserError, match=f"task {name} needs .*barefoot, toys does not have"):
        getattr(task, call)(*arguments)


# ---------------------------------------------------------------------------- merging


@pytest.mark.parametrize(("name", "options"), CASES)
def test_one_member_is_its_own_merge_and_claims_no_certainty(name, options):
    task = make(name, options)
    members = members_of(task, 1)
    merged, alone = task.merge(members), task.decode(members[0])
    assert merged.uncertainty is None
    torch.testing.assert_close(merged.values, alone.values, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_members_that_agree_merge_to_themselves_with_certainty(name, options, count):
    task = make(name, options)
    one = members_of(task, 1)[0]
    merged = task.merge(one.expand(count, -1, -1, -1, -1))
    torch.testing.assert_close(merged.values, task.decode(one).values, atol=1e-4, rtol=1e-4)
    assert merged.uncertainty is not None and merged.uncertainty.shape == (2, 1, 6, 9)
    assert 0 <= merged.uncertainty.min() and merged.uncertainty.max() < 1e-3


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_order_of_the_members_is_of_no_consequence(name, options):
    task = make(name, options)
    members = members_of(task, 5)
    expected = task.merge(members)
    assert expected.uncertainty is not None and expected.uncertainty.max() > 0.01
    for order in ([4, 3, 2, 1, 0], [2, 0, 4, 1, 3]):
        found = task.merge(members[order])
        assert found.uncertainty is not None
        torch.testing.assert_close(found.values, expected.values, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found.uncertainty, expected.uncertainty, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_images_are_merged_apart(name, options):
    task = make(name, options)
    members = members_of(task, 4)
    together = task.merge(members)
    for row in range(2):
        alone = task.merge(members[:, row : row + 1])
        torch.testing.assert_close(alone.values[0], together.values[row], atol=1e-5, rtol=1e-5)


# ---------------------------------------------------------------------------- trivial predictors


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_trivial_predictors_are_there_under_their_names(name, options):
    task = make(name, options)
    batch = batch_for(task, (12, 20))
    statistics = task.statistics(batch)
    assert statistics.ndim == 3 and statistics.shape[1:] == (12, 20)
    found = task.baselines(batch, statistics)
    assert found.keys() == BASELINES[name]
    for prediction in found.values():
        assert prediction.task == name
        assert prediction.values.shape == task.truth(batch).shape
        assert prediction.values.isfinite().all()
    learned = {"mean_map", "prior_map"} | ({"constant"} if name in ("flow", "semantic") else set())
    assert task.baselines(batch, None).keys() == BASELINES[name] - learned


@pytest.mark.parametrize("name", TABLE)
def test_statistics_of_batches_add_up(name):
    task, batch = make(name, {}), batch_of((8, 12), rows=4)
    parts = [task.statistics(row_of(batch, row)) for row in range(4)]
    torch.testing.assert_close(sum(parts), task.statistics(batch), check_dtype=False)


@pytest.mark.parametrize("name", ["depth", "flow", "semantic", "normals"])
def test_statistics_serve_images_of_another_size(name):
    task = make(name, {})
    statistics = task.statistics(batch_of((8, 12)))
    for prediction in task.baselines(batch_of((13, 21)), statistics).values():
        assert prediction.values.shape[-2:] == (13, 21) and prediction.values.isfinite().all()


# ---------------------------------------------------------------------------- other grids, pictures


@pytest.mark.parametrize(("name", "options"), CASES)
def test_values_on_their_own_grid_stay_and_constants_stay_constant(name, options):
    task = make(name, options)
    values = task.decode(torch.rand(2, task.channels, 6, 10) * 2 - 1).values
    torch.testing.assert_close(task.rescale(values, (6, 10)), values, atol=1e-5, rtol=1e-5)
    flat = values[:, :, :1, :1].expand(-1, -1, 6, 10)
    grown = task.rescale(flat, (13, 33))
    assert grown.shape == (*values.shape[:2], 13, 33) and grown.dtype == values.dtype
    spread = grown.float() - grown[:, :, :1, :1].float()
    assert spread.abs().max() < 1e-3 * max(1.0, float(grown.abs().max()))


@pytest.mark.parametrize(("name", "options"), CASES)
def test_pictures_are_pictures(name, options):
    task = make(name, options)
    batch = batch_for(task, (12, 20))
    for values in (task.truth(batch), task.decode(task.encode(batch).x).values):
        for like in (None, task.truth(batch)):
            picture = task.picture(values, batch, like)
            assert picture.shape == (3, 3, 12, 20) and picture.dtype == torch.uint8
            assert len(picture.unique()) > 3
