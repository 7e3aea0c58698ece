"""Adaptive budgets: who stops when, at what cost, and that the answer is that of a fixed budget."""

from __future__ import annotations

import math

import pytest
import torch

from stepsight.errors import UserError
from stepsight.pipeline.adaptive import picked, rounds, standard_error
from stepsight.testtime.outcomes import calibrated, rounds_spent
from stepsight.types import Batch, Prediction

TASKS = ("depth", "flow", "amodal", "semantic", "normals")


def pictures(count: int = 5, size: tuple[int, int] = (24, 32)) -> Batch:
    draw = torch.Generator().manual_seed(3)
    image, second = torch.rand(2, count, 3, *size, generator=draw) * 2 - 1
    modal = torch.rand(count, 1, *size, generator=draw) > 0.6
    keys = [f"image-{i}" for i in range(count)]
    return Batch(image, keys, ["test"] * count, second=second, modal=modal)


def between(pipeline, batch: Batch, task: str, members: int) -> float:
    """A tolerance that some of the images meet after two members, and some do not: between two of
    their errors, so that rounding decides nothing."""
    drawn = pipeline.sample(batch, task, nfe=1, members=members)
    errors = standard_error(pipeline.task(task).merge(drawn[:2]), 2)
    below, above = errors.sort().values[len(batch) // 2 - 1 : len(batch) // 2 + 1]
    return float(below + above) / 2


@pytest.mark.parametrize("task", TASKS)
def test_each_image_gets_what_its_number_of_members_gives(pipeline, task):
    batch = pictures()
    tolerance = between(pipeline, batch, task, members=6)
    found, spent = pipeline.predict_adaptively(
        batch, task, nfe=1, members=6, tolerance=tolerance, chunk_size=4
    )
    assert (spent == 2).any() and set(spent.tolist()) <= {2, 4, 6}
    assert (spent > 2).any()
    for count in set(spent.tolist()):
        fixed = pipeline.predict(batch, task, nfe=1, members=count)
        own = (spent == count).nonzero().flatten().tolist()
        assert found.uncertainty is not None and fixed.uncertainty is not None
        for mine, theirs in (
            (found.values, fixed.values),
            (found.x, fixed.x),
            (found.uncertainty, fixed.uncertainty),
        ):
            torch.testing.assert_close(mine[own], theirs[own], rtol=1e-4, atol=1e-4)


def test_an_image_does_not_mind_its_neighbours(pipeline):
    batch = pictures()
    options = {"nfe": 1, "members": 8, "tolerance": between(pipeline, batch, "flow", 2)}
    together, spent = pipeline.predict_adaptively(batch, "flow", **options)
    for i in range(len(batch)):
        alone, own = pipeline.predict_adaptively(picked(batch, [i]), "flow", **options)
        assert own.tolist() == spent[i : i + 1].tolist()
        torch.testing.assert_close(alone.values[0], together.values[i], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("tolerance", "expected"), [(0.0, 7), (math.inf, 2)])
def test_calls_are_those_of_the_members_spent(pipeline, tolerance, expected):
    rows = []
    hook = pipeline.net.register_forward_pre_hook(lambda net, given: rows.append(len(given[0])))
    batch = pictures()
    _, spent = pipeline.predict_adaptively(
        batch, "depth", nfe=3, members=7, tolerance=tolerance, chunk_size=4
    )
    hook.remove()
    assert spent.tolist() == [expected] * len(batch)
    assert sum(rows) == 3 * spent.sum()


def test_the_grid_is_that_of_the_image(pipeline):
    found, _ = pipeline.predict_adaptively(
        pictures(2, (40, 30)), "flow", nfe=1, members=2, tolerance=1.0
    )
    assert found.values.shape == (2, 2, 40, 30) and found.uncertainty is not None
    assert found.uncertainty.shape == (2, 1, 40, 30)


def test_one_member_says_nothing_of_its_error(pipeline):
    found, spent = pipeline.predict_adaptively(
        pictures(2), "depth", nfe=1, members=1, tolerance=1e9
    )
    assert spent.tolist() == [1, 1] and found.uncertainty is None
    alone = Prediction("depth", found.x, found.values)
    assert standard_error(alone, 1).tolist() == [math.inf, math.inf]


def test_the_standard_error_falls_as_the_root_of_the_members():
    x = torch.zeros(2, 1, 3, 3)
    spread = torch.stack([torch.full((1, 3, 3), 0.5), torch.full((1, 3, 3), 2.0)])
    found = Prediction("depth", x, x, spread)
    assert standard_error(found, 4).tolist() == [0.25, 1.0]


@pytest.mark.parametrize(
    ("members", "expected"),
    [(1, [1]), (2, [2]), (3, [2, 3]), (4, [2, 4]), (6, [2, 4, 6]), (16, [2, 4, 8, 16])],
)
def test_rounds_double(members, expected):
    assert rounds(members) == expected


def test_what_cannot_be_asked(pipeline):
    with pytest.raises(UserError, match="at least 1"):
        rounds(0)
    for tolerance in (-0.1, math.nan):
        with pytest.raises(UserError, match="tolerance"):
            pipeline.predict_adaptively(pictures(1), "depth", nfe=1, members=2, tolerance=tolerance)
    with pytest.raises(UserError, match="starts with 2"):
        calibrated(torch.rand(2, 4), [2, 4], 1.5)


def test_images_stop_at_the_first_round_that_suffices():
    errors = torch.tensor([[0.9, 0.2, 0.9], [0.1, 0.9, 0.9], [0.5, 0.5, 0.5]])
    assert rounds_spent(errors, 0.2).tolist() == [1, 0, 2]
    assert rounds_spent(errors, 0.0).tolist() == [2, 2, 2]
    assert errors[2].tolist() == [0.5, 0.5, 0.5]  # not written into


@pytest.mark.parametrize("target", [2.0, 3.0, 4.0, 5.5, 8.0])
def test_the_calibrated_tolerance_is_the_least_within_the_budget(target):
    counts = [2, 4, 8]
    errors = torch.rand(3, 41, generator=torch.Generator().manual_seed(1))
    spending = torch.tensor(counts, dtype=torch.float64)
    tolerance = calibrated(errors, counts, target)
    assert spending[rounds_spent(errors, tolerance)].mean() <= target
    if tolerance > 0:
        stricter = torch.nextafter(torch.tensor(tolerance), torch.tensor(0.0)).item()
        assert spending[rounds_spent(errors, stricter)].mean() > target


def test_rows_are_picked_from_all_fields():
    batch = pictures(4)
    part = picked(batch, [3, 1])
    assert part.keys == ["image-3", "image-1"] and len(part.sources) == 2 and part.flow is None
    assert part.modal is not None and batch.modal is not None
    assert torch.equal(part.modal, batch.modal[[3, 1]])
