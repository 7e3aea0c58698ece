"""Occluding contours: a slow loop, shifted and scaled maps, and which of a run stays."""

import numpy as np
import pytest
import torch

from stepsight.metrics.masks.boundaries import (
    THRESHOLDS,
    boundary_recall_rows,
    boundary_rows,
    contour_rows,
)
from stepsight.metrics.protocol import get
from stepsight.tasks.table import score
from stepsight.types import Batch

EVERYWHERE = torch.ones(1, 1, 6, 8, dtype=torch.bool)


@pytest.fixture
def depths(rng):
    return tuple(1 + 0.3 * torch.rand(1, 1, 6, 8, generator=rng).double() for _ in range(2))


def neighbours():
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        yield [
            ((y, x), (y + dy, x + dx))
            for y in range(6)
            for x in range(8)
            if 0 <= y + dy < 6 and 0 <= x + dx < 8
        ]


def test_f1_matches_a_slow_loop_over_pairs_of_valid_pixels(depths, rng):
    valid = torch.rand(1, 1, 6, 8, generator=rng) < 0.8
    p, g = (x[0, 0].tolist() for x in depths)
    known = valid[0, 0].tolist()
    scores = []
    for t in np.linspace(1.05, 1.25, 10):
        shares = []
        for pairs in neighbours():
            pairs = [(a, b) for a, b in pairs if known[a[0]][a[1]] and known[b[0]][b[1]]]
            found, real = (
                {(a, b) for a, b in pairs if x[b[0]][b[1]] / x[a[0]][a[1]] > t} for x in (p, g)
            )
            hits = len(found & real)
            shares.append((hits / max(len(found), 1), hits / max(len(real), 1)))
        precision, recall = np.mean(shares, axis=0)
        scores.append(t * 2 * precision * recall / (precision + recall or 1))
    expected = sum(scores) / float(THRESHOLDS.sum())
    pred, truth = (torch.where(valid, x, torch.nan) for x in depths)
    found = boundary_rows(pred, truth, valid)["boundary_f1"]
    assert 0 < expected < 1 and found.tolist() == pytest.approx([expected])


def test_scale_does_not_matter_and_a_flat_map_has_no_contours(depths):
    depth = depths[0] ** 4  # contours of every relation at every threshold
    assert boundary_rows(7 * depth, depth, EVERYWHERE)["boundary_f1"].item() == pytest.approx(1)
    assert boundary_rows(torch.ones_like(depth), depth, EVERYWHERE)["boundary_f1"].item() == 0


def object_in(columns):
    mask = torch.zeros(1, 1, 6, 8, dtype=torch.bool)
    mask[..., columns] = True
    return mask


@pytest.mark.parametrize(
    "columns, recall",
    [
        (slice(0, 3), 1 / 4),  # the object's right edge, all of it, and none up, down or left
        (slice(0, 4), 0.0),  # a pixel beside it: the run's largest step alone is an outline
        (slice(0, 2), 0.0),
    ],
)
def test_of_adjoining_steps_the_largest_is_the_outline(columns, recall):
    disparity = torch.tensor([9.0, 8.9, 8.0, 2.0, 1.0, 1.0, 1.0, 1.0]).expand(1, 1, 6, 8)
    mask = object_in(columns)
    rows = boundary_recall_rows(disparity, mask, mask)
    assert rows["boundary_recall"].item() == pytest.approx(recall)
    assert rows["n"].item() == mask.sum()


def test_of_equal_steps_the_first_stays_and_rows_do_not_run_into_each_other():
    halves = 2.0 ** -torch.arange(8.0).expand(1, 1, 6, 8)
    mask = object_in(slice(6, 8))
    falls = boundary_recall_rows(halves, ~mask, ~mask)["boundary_recall"]
    assert falls.item() == 0  # the first of the run, in each row, is between columns 0 and 1
    first = object_in(slice(0, 1))
    assert boundary_recall_rows(halves, first, first)["boundary_recall"].item() == 1 / 4


def test_an_object_that_is_partly_hidden_is_left_out():
    whole, modal = object_in(slice(0, 3)), object_in(slice(0, 2))
    assert boundary_recall_rows(torch.ones(1, 1, 6, 8), modal, whole)["n"].item() == 0


@pytest.mark.parametrize("name", ["depth-pro-boundary", "depth-pro-boundary-recall"])
def test_disparity_and_depth_score_alike(depths, name):
    depth, truth = depths
    mask = object_in(slice(2, 5))
    batch = Batch(torch.zeros(1, 3, 6, 8), ["a"], ["toy"], modal=mask, amodal=mask)
    batch.depth, batch.depth_valid = truth, EVERYWHERE
    scores = score(depth, batch, get(name)), score(1 / depth, batch, get(name), given="disparity")
    torch.testing.assert_close(*scores)
    assert all(values.item() > 0 for values in scores[0].values())


@pytest.mark.parametrize("reach", [1, 2])
def test_contours_match_a_slow_loop_over_neighbours_within_reach(depths, rng, reach):
    valid = torch.rand(1, 1, 6, 8, generator=rng) < 0.8
    p, g = (x[0, 0].tolist() for x in depths)
    steps = torch.linspace(0.05, 0.25, 10).tolist()
    pairs = [
        ((y, x), (y + i, x + j))
        for y in range(reach, 6 - reach)
        for x in range(reach, 8 - reach)
        for i in range(-reach, reach + 1)
        for j in range(-reach, reach + 1)
        if i * i + j * j <= reach**2 and valid[0, 0, y, x] and valid[0, 0, y + i, x + j]
    ]
    expected = 0.0
    for t in steps:
        found, real = (
            {(a, b) for a, b in pairs if m[b[0]][b[1]] / m[a[0]][a[1]] > 1 + t} for m in (p, g)
        )
        expected += t * 2 * len(found & real) / max(1, len(found) + len(real)) / sum(steps)
    pred, truth = (torch.where(valid, x, torch.nan) for x in depths)
    scored = contour_rows(pred, truth, valid)[f"contour_f1_{reach}px"]
    assert 0 < expected < 1 and scored.tolist() == pytest.approx([expected])
