"""Merging entry by entry, and the medoid: known answers, slow counts, degenerate members."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from stepsight.ensemble import (
    mean,
    median,
    medoid,
    merge_directions,
    most_central,
    spread,
    vote,
)
from stepsight.ensemble.reduce import comparators


def test_median_averages_the_two_middle_values():
    assert median(torch.tensor([4.0, 1.0, 2.0, 9.0])) == 3.0
    assert median(torch.tensor([4.0, 1.0, 9.0])) == 4.0
    assert mean(torch.tensor([4.0, 1.0, 1.0])) == 2.0


def test_spread_is_torch_s_deviation_and_zero_for_one():
    members = torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(spread(members, mean(members), "mean"), members.std(dim=0))
    assert spread(members[:1], members[0], "mean").count_nonzero() == 0
    assert spread(torch.tensor([0.0, 1.0, 5.0]), torch.tensor(1.0), "median") == 1.0


def test_vote_elects_the_majority():
    ballots = torch.tensor([[1, 2, 0], [1, 2, 3], [1, 3, 3], [2, 3, 0]])[:, None, None]
    labels, share = vote(ballots, 4)
    assert labels.tolist() == [[[1, 2, 0]]]  # ties go to the lowest class
    torch.testing.assert_close(share, torch.tensor([[[0.75, 0.5, 0.5]]]))


def test_vote_equals_a_slow_count():
    ballots = torch.randint(0, 5, (7, 2, 6, 4), generator=torch.Generator().manual_seed(0))
    labels, share = vote(ballots, 5)
    for place in ((0, 0, 0), (1, 5, 3), (1, 2, 1)):
        counts = torch.bincount(ballots[(slice(None), *place)], minlength=5)
        assert labels[place] == counts.argmax() and share[place] * 7 == counts.max()


def test_directions_merge_on_the_sphere():
    angle = torch.tensor([-0.3, 0.1, 0.2])
    normals = torch.stack([angle.sin(), torch.zeros(3), angle.cos()], dim=1)[:, None, :, None, None]
    merged, uncertainty = merge_directions(normals)
    torch.testing.assert_close(merged.norm(dim=1), torch.ones(1, 1, 1))
    expected = torch.atan2(angle.sin().sum(), angle.cos().sum())
    torch.testing.assert_close(torch.atan2(merged[0, 0], merged[0, 2]).squeeze(), expected)
    torch.testing.assert_close(
        uncertainty.squeeze(), (angle - expected).abs().mean() / torch.pi, rtol=1e-3, atol=1e-4
    )


def test_opposite_directions_leave_a_unit_vector():
    up = torch.tensor([0.0, 0.0, 1.0])[:, None, None]
    merged, uncertainty = merge_directions(torch.stack([up, -up])[:, None])
    assert merged.norm() == 1 and uncertainty.item() == pytest.approx(0.5)


@pytest.mark.parametrize("count", range(1, 11))
def test_comparators_sort_every_row_of_zeros_and_ones(count: int):
    """And hence every row there is (the 0-1 principle, Knuth, section 5.3.4, theorem Z)."""
    for row in product((0, 1), repeat=count):
        values = list(row)
        for low, high in comparators(count):
            values[low], values[high] = sorted((values[low], values[high]))
        assert values == sorted(row)


@pytest.mark.parametrize("count", [1, 2, 7, 16, 33])
def test_median_equals_a_sorted_one(count: int):
    members = torch.randn(count, 3, 4, 5, generator=torch.Generator().manual_seed(count))
    ordered = members.sort(dim=0).values
    assert torch.equal(median(members), (ordered[(count - 1) // 2] + ordered[count // 2]) / 2)


def test_medoid_is_the_member_nearest_to_the_others():
    members = torch.randn(5, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    members[3, 0] = members[:, 0].mean(dim=0)
    members[1, 1] = members[:, 1].mean(dim=0)
    members[4] += 10
    found = medoid(members)
    assert torch.equal(found, torch.stack([members[3, 0], members[1, 1]]))
    total = (members[:, None] - members[None]).flatten(3).norm(dim=3).sum(dim=1)
    assert torch.equal(most_central(members), total.argmin(dim=0))


def test_medoid_may_count_entries_that_differ():
    rows = [[0, 0, 0, 0, 90], [1, 1, 0, 0, 0], [0, 0, 2, 2, 0]]
    labels = torch.tensor(rows, dtype=torch.float32)[:, None]
    assert most_central(labels, norm=0).tolist() == [0]  # however far, one entry
    assert most_central(labels).tolist() == [1]


def test_medoid_of_one_and_of_two_is_the_first():
    members = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(medoid(members[:1]), members[0])
    assert torch.equal(medoid(members), members[0])


def test_spread_about_a_medoid_is_that_of_the_others():
    members = torch.tensor([1.0, 2.0, 4.0])
    assert spread(members, torch.tensor(2.0), "medoid") == pytest.approx((5 / 2) ** 0.5)
