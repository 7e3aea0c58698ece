"""The merge rules of every task: what each must give, and what holds for all of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args, get_type_hints

import pytest
import torch
from torch import Tensor

from stepsight.errors import UserError
from stepsight.tasks.config import TABLE
from stepsight.tasks.depth import Depth
from stepsight.tasks.flow import Flow
from stepsight.tasks.table import build_task

MERGED = [name for name, settings in TABLE.items() if hasattr(settings, "merge_by")]
VARIANTS = {"amodal": [{}, {"target": "rgb"}], "semantic": [{}, {"encoding": "palette"}]}
RULES = [
    (name, options, rule)
    for name in MERGED
    for options in VARIANTS.get(name, [{}])
    for rule in get_args(get_type_hints(TABLE[name])["merge_by"])
]
AVERAGES = [
    ("depth", {"range": "metric", "merge_by": "mean"}),
    ("depth", {"merge_by": "unaligned_mean"}),
    ("flow", {"merge_by": "mean"}),
    ("amodal", {"merge_by": "mean"}),
    ("semantic", {"merge_by": "mean"}),
]


def build(name: str, **options: Any) -> Any:
    """The task of that name: one of several classes, each with rules of its own."""
    return build_task(TABLE[name](**options))


@pytest.fixture(
    params=RULES, ids=lambda row: "-".join(map(str, (row[0], *row[1].values(), row[2])))
)
def ruled(request: pytest.FixtureRequest):
    name, options, rule = request.param
    return build(name, **options, merge_by=rule)


def test_every_rule_is_told_apart(members_of):
    """A rule that is accepted and not read would give what another gives."""
    for name in MERGED:
        rules = get_args(get_type_hints(TABLE[name])["merge_by"])
        members = 0.7 * members_of(build(name), 5)
        found = [build(name, merge_by=rule).merge(members).values.float() for rule in rules]
        for one in range(len(rules)):
            for other in range(one):
                assert not torch.allclose(found[one], found[other]), (
                    name,
                    rules[one],
                    rules[other],
                )


def test_one_member_is_the_answer_under_every_rule(ruled, members_of):
    members = 0.5 * members_of(ruled, 1).clamp(-1, 1)
    merged = ruled.merge(members)
    assert merged.uncertainty is None
    torch.testing.assert_close(merged.values, ruled.decode(members[0]).values)


def test_order_and_company_are_of_no_consequence_to_any_rule(ruled, members_of):
    members = members_of(ruled, 5)
    expected = ruled.merge(members)
    assert expected.uncertainty is not None
    assert expected.uncertainty.shape == (2, 1, 6, 9) and expected.uncertainty.min() >= 0
    tolerance: dict[str, Any] = {"atol": 1e-4, "rtol": 1e-4}
    if ruled.merge_by != "published":  # whose search, cut short, follows the order of the members
        found = ruled.merge(members[[2, 0, 4, 1, 3]])
        torch.testing.assert_close(found.values, expected.values, **tolerance)
        torch.testing.assert_close(found.uncertainty, expected.uncertainty, **tolerance)
    alone = ruled.merge(members[:, 1:])
    torch.testing.assert_close(alone.values[0], expected.values[1], **tolerance)
    torch.testing.assert_close(alone.uncertainty[0], expected.uncertainty[1], **tolerance)


def test_members_that_agree_are_certain_under_every_rule(ruled, members_of):
    one = members_of(ruled, 1)[0]
    merged = ruled.merge(one.expand(4, -1, -1, -1, -1))
    assert merged.uncertainty is not None and merged.uncertainty.max() < 1e-3


# ---------------------------------------------------------------------------- the theorem


@pytest.mark.parametrize(("name", "options"), AVERAGES)
@pytest.mark.parametrize("count", [2, 3, 8])
def test_plain_mean_is_no_worse_than_the_mean_member(name, options, count, batch_for, members_of):
    """In squared error, on every image: |mean x - y|^2 <= mean |x - y|^2 (Jensen)."""
    task = build(name, **options)
    truth = task.encode(batch_for(task, (6, 9), rows=2, valid=1.0)).x.double()
    members = members_of(task, count).double()
    members = members.clamp(-1, 1) if name == "amodal" else members
    merged = (task.merge(members).x - truth).square().flatten(1).mean(dim=1)
    alone = (members - truth).square().flatten(2).mean(dim=2).mean(dim=0)
    assert (merged <= alone + 1e-12).all() and (merged < alone).any()


# ---------------------------------------------------------------------------- one rule each


def index_of(x: Tensor, members: Tensor) -> list[int]:
    """Which member each image of `x` is."""
    return [
        next(e for e, member in enumerate(members[:, b]) if torch.equal(member, x[b]))
        for b in range(len(x))
    ]


@pytest.mark.parametrize("name", ["flow", "amodal", "semantic"])
def test_a_medoid_is_one_of_the_members(name, members_of):
    task = build(name, merge_by="medoid")
    members = members_of(task, 5)
    members = members.clamp(-1, 1) if name == "amodal" else members
    merged = task.merge(members)
    chosen = members[index_of(merged.x, members), torch.arange(2)]
    torch.testing.assert_close(merged.values, task.decode(chosen).values)


def test_the_medoid_leaves_the_odd_one_out(members_of):
    for name in MERGED:
        task = build(name, merge_by="medoid")
        base = members_of(task, 1)[0]
        near = base + 0.05 * torch.randn(4, *base.shape, generator=torch.Generator().manual_seed(0))
        merged = task.merge(torch.cat([-base[None], near])).values.float()
        assert (merged - task.decode(base).values).abs().mean() < 0.3 * (
            task.decode(-base).values.float() - task.decode(base).values
        ).abs().mean()


def test_a_mask_is_voted_by_the_members_masks():
    members = torch.tensor([0.9, 0.9, -0.1, -0.2, -0.3])[:, None, None, None, None]
    members = members.expand(5, 1, 1, 2, 2)
    assert (build("amodal").merge(members).values > 0.5).all()  # two are sure
    voted = build("amodal", merge_by="vote").merge(members)
    torch.testing.assert_close(voted.values, torch.full((1, 1, 2, 2), 0.4))
    assert voted.uncertainty is not None
    torch.testing.assert_close(voted.uncertainty, torch.full((1, 1, 2, 2), (0.4 * 0.6) ** 0.5))


def test_classes_are_voted_by_the_members_labels():
    sure, unsure = torch.tensor([1.0, -1, -1]), torch.tensor([-0.1, 0.0, -1])
    members = torch.stack([sure, unsure, unsure])[:, None, :, None, None]
    assert build("semantic", classes=3).merge(members).values.item() == 0
    voted = build("semantic", classes=3, merge_by="vote").merge(members)
    assert voted.values.item() == 1
    assert voted.uncertainty is not None and voted.uncertainty.item() == pytest.approx(1 / 3)


def test_unaligned_depth_keeps_the_members_scales():
    members = torch.stack([torch.linspace(-1, 1, 30), 3 * torch.linspace(-1, 1, 30) + 2])
    members = members.reshape(2, 1, 1, 5, 6)
    for rule in ("unaligned_mean", "unaligned_median"):
        merged = Depth(merge_by=rule).merge(members)
        torch.testing.assert_close(merged.x, members.mean(dim=0))
        assert merged.uncertainty is not None and merged.uncertainty.max() > 1
    aligned = Depth().merge(members).uncertainty
    assert aligned is not None and aligned.max() < 1e-5


def test_published_depth_spans_the_target_space(members_of):
    merged = Depth(merge_by="published").merge(members_of(Depth(), 4))
    low, high = merged.x.flatten(1).aminmax(dim=1)
    torch.testing.assert_close((low, high), (-torch.ones(2), torch.ones(2)))


def test_published_depth_refuses_metres():
    with pytest.raises(UserError, match="published.*metric"):
        Depth(range="metric", merge_by="published")


def test_the_rule_of_a_task_can_be_changed(members_of):
    members = members_of(Flow(), 5)
    changed = replace(Flow(), merge_by="median").merge(members).x
    torch.testing.assert_close(changed, members.sort(dim=0).values[2])
