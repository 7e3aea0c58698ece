"""Depth edges: a step where it is, moved by one and by three pixels, and blurred."""

import pytest
import torch
import torch.nn.functional as F

from stepsight.metrics.masks.edges import depth_edges, edge_rows


def step(column, far=4.0, size=(9, 15)):
    """Near plane at 2 m left of `column`, far plane right of it."""
    depth = torch.full((1, 1, *size), 2.0)
    depth[..., column:] = far
    return depth


EVERYWHERE = torch.ones(1, 1, 9, 15, dtype=torch.bool)


def f1(pred, truth, valid=EVERYWHERE):
    return edge_rows(pred, truth, valid)["edge_f1"].item()


def test_a_step_is_an_edge_on_both_its_sides():
    edges = depth_edges(step(7), EVERYWHERE)
    assert edges[0, 0].any(0).nonzero().flatten().tolist() == [6, 7]
    assert torch.equal(edges.mT, depth_edges(step(7).mT, EVERYWHERE.mT))


@pytest.mark.parametrize("far,found", [(2 * 1.23, True), (2 * 1.21, False), (2 / 1.23, True)])
def test_an_edge_is_a_step_by_22_percent(far, found):
    assert depth_edges(step(7, far), EVERYWHERE).any().item() is found


def test_one_pixel_off_is_forgiven_and_four_are_not():
    assert f1(step(7), step(7)) == 1
    assert f1(step(8), step(7)) == 1
    assert f1(step(11), step(7)) == 0


def test_precision_and_recall_by_hand():
    two = step(7).where(torch.arange(15) < 12, torch.tensor(2.0))  # a second step, at 12
    assert f1(two, step(7)) == pytest.approx(2 / 3)  # precision 1/2, recall 1
    assert f1(step(7), two) == pytest.approx(2 / 3)  # precision 1, recall 1/2


def test_a_blurred_outline_loses():
    blurred = F.avg_pool2d(F.pad(step(7), (4, 4, 0, 0), mode="replicate"), (1, 9), stride=1)
    assert f1(blurred, step(7)) < 0.6


def test_without_edges_there_is_nothing_to_measure():
    flat = torch.full_like(step(7), 3.0)
    rows = edge_rows(flat, flat, EVERYWHERE)
    assert rows["edge_f1"].isnan() and rows["edges"] == 0
    assert f1(flat, step(7)) == 0 == f1(step(7), flat)


def test_holes_are_no_edges(spoiled):
    hole = EVERYWHERE.clone()
    hole[..., 2:5, 1:4] = False
    assert edge_rows(spoiled(step(7), hole), spoiled(step(7), hole), hole)["edge_f1"] == 1
    assert not edge_rows(step(7), step(7), ~EVERYWHERE)["edges"].any()
