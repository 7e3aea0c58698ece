"""Floors: boxes by hand, mean flow, and maps that do not depend on how batches were cut."""

import pytest
import torch

from stepsight.metrics.trivial import (
    accumulate_mean_map,
    bounding_box,
    class_counts,
    mean_map,
    oracle_mean_flow,
    prior_map,
)
from stepsight.types import IGNORE


def test_bounding_box_matches_min_and_max(rng):
    modal = torch.rand(8, 1, 9, 7, generator=rng) < 0.04
    modal[0] = False
    for mask, box in zip(modal[:, 0], bounding_box(modal)[:, 0]):
        expected = torch.zeros_like(mask)
        if mask.any():
            (top, left), (bottom, right) = mask.nonzero().amin(0), mask.nonzero().amax(0)
            expected[top : bottom + 1, left : right + 1] = True
        assert torch.equal(box, expected)


def test_a_box_is_its_own_box(rng):
    box = bounding_box(torch.rand(4, 1, 9, 7, generator=rng) < 0.1)
    assert torch.equal(bounding_box(box), box)


def test_oracle_mean_flow(rng, valid, spoiled):
    flow = spoiled(torch.randn(3, 2, 5, 7, generator=rng), valid.expand(-1, 2, -1, -1))
    valid[1] = False
    mean = oracle_mean_flow(flow, valid)
    assert mean.shape == flow.shape and mean.dtype == flow.dtype
    assert not mean[1].any()
    for i in (0, 2):
        for c in range(2):
            expected = flow[i, c][valid[i, 0]].mean().expand(5, 7)
            torch.testing.assert_close(mean[i, c], expected)


def test_mean_map_of_two_uneven_batches(depths, valid):
    x = depths[0]
    parts = [accumulate_mean_map(x[cut], valid[cut]) for cut in (slice(0, 1), slice(1, 3))]
    total, count = (torch.stack(both).sum(0) for both in zip(*parts))
    whole = accumulate_mean_map(x, valid)
    torch.testing.assert_close((total, count), whole)
    found = mean_map(total, count)
    for y in range(5):
        for column in range(7):
            seen = x[:, 0, y, column][valid[:, 0, y, column]].double()
            torch.testing.assert_close(found[0, y, column], seen.mean())  # image 2 is all valid


def test_mean_map_falls_back_on_the_overall_mean():
    x = torch.tensor([[[[1.0, 5.0, float("nan")]]], [[[3.0, float("nan"), 7.0]]]])
    valid = torch.tensor([[[[True, True, False]]], [[[True, False, False]]]])
    assert mean_map(*accumulate_mean_map(x, valid)).flatten().tolist() == [2, 5, 3]


def test_prior_map():
    labels = torch.tensor([[[0, 2, IGNORE]], [[1, 2, IGNORE]], [[1, 0, IGNORE]]])
    counts = class_counts(labels, 3)
    assert counts[:, 0].tolist() == [[1, 1, 0], [2, 0, 0], [0, 2, 0]]
    assert prior_map(counts).tolist() == [[1, 2, 0]]  # overall all tie, so the first
    more = counts + class_counts(torch.tensor([[[2, 2, IGNORE]]]), 3)
    assert prior_map(more).tolist() == [[1, 2, 2]]


@pytest.mark.parametrize("cut", [1, 2])
def test_class_counts_add_up_over_batches(rng, cut):
    labels = torch.randint(0, 5, (3, 4, 6), generator=rng)
    parts = class_counts(labels[:cut], 5) + class_counts(labels[cut:], 5)
    assert torch.equal(parts, class_counts(labels, 5))
    assert torch.equal(parts.sum(0), torch.full((4, 6), 3))
