"""From scored strategies to statements: picks, adaptive budgets, paired comparisons."""

from __future__ import annotations

import math

import pytest
import torch

from stepsight.evaluation.statistics import stacked
from stepsight.metrics import protocol as protocols
from stepsight.scaling.intervals import Interval
from stepsight.testtime.outcomes import (
    StrategyScores,
    adaptive,
    chosen,
    comparison,
    joined,
    oracle,
    relative,
    table,
)

EPE, IOU = protocols.get("flow-epe"), protocols.get("amodal-iou")


def rows(values, metric: str = "epe") -> dict[str, torch.Tensor]:
    values = torch.as_tensor(values, dtype=torch.float64)
    return {"n": torch.ones_like(values), "union": torch.ones_like(values), metric: values}


def merges(errors: torch.Tensor, scores: torch.Tensor) -> list[StrategyScores]:
    """Merges of 2, 4, 8 members at 3 calls each."""
    return [
        StrategyScores(f"mean_of_{count}", 3, count, 3 * count, rows(score), errors=error)
        for count, error, score in zip((2, 4, 8), errors, scores)
    ]


@pytest.fixture
def draw():
    return torch.Generator().manual_seed(0)


def test_batches_are_joined_in_order():
    parts = [
        StrategyScores("a", 1, 2, 2, rows(v), errors=torch.tensor(v)) for v in ([1.0], [2.0, 3.0])
    ]
    whole = joined(parts)
    assert whole.rows["epe"].tolist() == [1.0, 2.0, 3.0]
    assert whole.errors is not None and whole.errors.tolist() == [1.0, 2.0, 3.0]


def test_every_image_has_the_candidate_it_picked():
    candidates = stacked([rows([1.0, 2.0]), rows([3.0, 4.0])])
    assert chosen(candidates, torch.tensor([1, 0]))["epe"].tolist() == [3.0, 2.0]


def test_the_oracle_follows_the_direction_of_the_metric():
    values = ([0.1, 0.9, math.nan], [0.5, 0.2, 0.3])
    lower = stacked([rows(v) for v in values])
    higher = stacked([rows(v, "iou") for v in values])
    assert oracle(lower, "flow", EPE).tolist() == [0, 1, 1]
    assert oracle(higher, "amodal", IOU).tolist() == [1, 0, 1]


def test_adaptive_budgets_keep_to_the_mean_cost(draw):
    errors = torch.rand(3, 400, generator=draw)
    scores = torch.rand(3, 400, generator=draw)
    fair, cheap = adaptive(merges(errors, scores))
    assert fair.spent is not None and cheap.spent is not None
    assert fair.spent.double().mean().item() == pytest.approx(3 * 4, rel=0.1)
    assert cheap.spent.double().mean().item() == pytest.approx(3 * 4, rel=0.1)
    assert (fair.name, fair.baseline, cheap.baseline) == ("adaptive", "mean_of_4", "mean_of_8")
    assert (fair.calls, fair.members) == (24, 8)
    tolerance = float(cheap.name.removeprefix("adaptive_at_"))
    early = errors[0] <= tolerance
    assert (cheap.spent[early] == 6).all() and (cheap.spent[~early] > 6).all()
    rounds = (cheap.spent // 3).log2().long() - 1
    expected = scores[rounds, torch.arange(400)].double()
    assert torch.equal(cheap.rows["epe"], expected)


def test_no_image_is_judged_by_a_tolerance_it_helped_to_choose(draw):
    errors, scores = torch.rand(2, 3, 40, generator=draw)
    (before, _) = adaptive(merges(errors, scores))
    errors[:, 1::2] *= 100  # the odd images: the tolerance for the even ones
    (after, _) = adaptive(merges(errors, scores))
    assert before.spent is not None and after.spent is not None
    assert not torch.equal(before.spent[::2], after.spent[::2])
    assert (after.spent[1::2] == 24).all()  # by the even images' tolerance none of them is done


def test_what_easy_images_leave_is_spent_on_hard_ones():
    """A third of the images needs all members, the others need no more than two: 4 on average."""
    hard = (torch.arange(60) // 2 % 3 == 0).double()
    errors = torch.stack([0.01 + hard, 0.01 + 0.8 * hard, 0.01 + 0.6 * hard]).float()
    scores = torch.stack([0.1 + hard, 0.1 + 0.7 * hard, 0.1 + 0.4 * hard])
    fixed = merges(errors, scores)
    fair = next(adaptive(fixed))
    assert fair.spent is not None
    assert torch.equal(fair.spent, torch.where(hard > 0, 24, 6))
    assert fair.spent.sum() == 60 * fixed[1].calls
    assert fair.rows["epe"].mean() < fixed[1].rows["epe"].mean()


def test_two_rounds_leave_nothing_to_choose(draw):
    errors, scores = torch.rand(2, 3, 8, generator=draw)
    assert list(adaptive(merges(errors, scores)[:2])) == []
    assert list(adaptive(merges(errors[:, :1], scores[:, :1]))) == []


def test_a_row_says_who_wins(draw):
    noise = 0.01 * torch.rand(30, generator=draw).double()
    spent = torch.tensor([16, 32])
    outcomes = [
        StrategyScores("median", 4, 8, 32, rows(1 + noise)),
        StrategyScores("better", 4, 8, 32, rows(0.9 + noise), "median"),
        StrategyScores("worse", 4, 8, 32, rows(1.2 + noise), "median", spent=spent),
        StrategyScores("same", 4, 8, 32, rows((1 + noise).flip(0)), "median"),
    ]
    found = {row.strategy: row for row in table("flow", outcomes, EPE)}
    assert found["better"].difference == pytest.approx(-0.1, abs=0.01)
    verdicts = {name: row.verdict for name, row in found.items()}
    assert verdicts == {"median": "", "better": "wins", "worse": "loses", "same": "undecided"}
    assert found["worse"].mean_calls == 24 and found["better"].mean_calls == 32
    assert found["better"].images == 30


@pytest.mark.parametrize(
    ("lo", "hi", "lower", "higher"),
    [
        (-0.2, -0.1, "wins", "loses"),
        (0.1, 0.2, "loses", "wins"),
        (-0.1, 0.1, "undecided", "undecided"),
        (math.nan, math.nan, "undecided", "undecided"),
    ],
)
def test_verdicts_need_the_whole_interval(lo, hi, lower, higher):
    change = Interval(0.0, lo, hi, 30)
    assert (comparison(change, False), comparison(change, True)) == (lower, higher)


def test_a_negated_metric_changes_the_other_way_round():
    ratio = Interval(0.8, 0.7, 0.9, 30)
    fell, rose = relative(ratio, 2.0), relative(ratio, -2.0)
    assert (fell.value, fell.lo, fell.hi) == pytest.approx((-0.2, -0.3, -0.1))
    assert (rose.value, rose.lo, rose.hi) == pytest.approx((0.2, 0.1, 0.3))
    assert comparison(fell, False) == comparison(rose, True) == "wins"
