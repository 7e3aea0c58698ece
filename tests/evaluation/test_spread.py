"""Uncertainty is scored where its protocol scores: not on what it leaves out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from stepsight.evaluation.evaluator import score
from stepsight.evaluation.predictors import Estimate, Model
from stepsight.evaluation.spread import uncertainty_rows
from stepsight.metrics.alignment.align import Space
from stepsight.metrics.protocol import default_for, get
from stepsight.tasks.semantic import Semantic
from stepsight.types import IGNORE, Batch, Prediction


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def answer(task, values, spread, members=None, **more):
    prediction = Prediction(task, values, values, spread)
    return Estimate((1, 2), prediction, values.shape[-2:], members=members, **more)


def batch(**truth):
    n = len(next(iter(truth.values())))
    return Batch(torch.zeros(n, 3, 4, 6), ["key"] * n, ["here"] * n, **truth)


def test_long_vectors_that_are_not_scored_have_no_uncertainty_either(rng):
    flow = torch.rand(1, 2, 4, 6, generator=rng)
    flow[..., 0] = 500.0
    valid = torch.ones(1, 1, 4, 6, dtype=torch.bool)
    short = valid.clone()
    short[..., 0] = False
    members = flow + torch.randn(3, 1, 2, 4, 6, generator=rng)
    members[..., 0] = 0.0
    spread = torch.rand(1, 1, 4, 6, generator=rng)
    given = batch(flow=flow, flow_valid=valid), batch(flow=flow, flow_valid=short)
    found = answer("flow", members.mean(0), spread, members)
    whole, part = (uncertainty_rows(found, one, get("raft-things"), "depth") for one in given)
    torch.testing.assert_close(whole, part)
    always = {"ause", "aurg", "spread", "spread_error", "coverage_90", "crps", "calibration"}
    assert whole.keys() == always
    wide = uncertainty_rows(replace(found, scale=2.0), given[0], get("raft-things"), "depth")
    assert wide.keys() == always | {"coverage_90_raw", "crps_calibrated", "calibration_raw"}


def test_a_scale_widens_intervals_and_leaves_raw_rows_and_the_order_of_pixels(rng):
    flow = torch.randn(3, 2, 24, 36, generator=rng)
    members = 0.3 * torch.randn(6, 3, 2, 24, 36, generator=rng)
    valid = torch.ones(3, 1, 24, 36, dtype=torch.bool)
    spread = torch.rand(3, 1, 24, 36, generator=rng)
    found = answer("flow", members.mean(0), spread, members)
    truth, rule = batch(flow=flow, flow_valid=valid), get("flow-epe")
    raw, wide = (
        uncertainty_rows(replace(found, scale=scale), truth, rule, "depth") for scale in (1.0, 3.8)
    )
    for name in ("ause", "aurg", "spread", "spread_error", "crps"):
        torch.testing.assert_close(wide[name], raw[name])
    for name in ("coverage_90", "calibration"):
        torch.testing.assert_close(wide[f"{name}_raw"], raw[name])
    assert (raw["coverage_90"] < 0.5).all() and (wide["coverage_90"] > 0.85).all()
    assert (wide["crps_calibrated"] < wide["crps"]).all()
    by_hand = (flow - members.mean(0)).abs() <= 1.6448536 * 3.8 * members.std(0)
    expected = by_hand.double().mean((1, 2, 3))
    torch.testing.assert_close(wide["coverage_90"], expected, atol=2e-3, rtol=0)


def test_objects_that_are_hardly_hidden_have_no_uncertainty_either(rng):
    amodal = torch.ones(2, 1, 4, 6, dtype=torch.bool)
    modal, valid = amodal.clone(), amodal.clone()
    modal[1, ..., :3] = False
    values, spread = torch.rand(2, 2, 1, 4, 6, generator=rng)
    given = batch(modal=modal, amodal=amodal, amodal_valid=valid)
    rows = uncertainty_rows(answer("amodal", values, spread), given, get("amodal-iou"), "depth")
    assert rows["ause"].isnan().tolist() == [True, False]


@pytest.mark.parametrize("given", ["log", "log1p"])
def test_depth_within_a_metre_is_fitted_however_it_is_given(rng, given: Space):
    truth = 0.2 + 3 * torch.rand(1, 1, 4, 6, generator=rng)
    valid = torch.ones_like(truth, dtype=torch.bool)
    members = truth * (1 + 0.2 * torch.rand(3, 1, 1, 4, 6, generator=rng))
    spread = members.std(0)
    there = batch(depth=truth, depth_valid=valid)
    rule = get("marigold-disparity")
    found = []
    ways: tuple[tuple[Space, Any], ...] = (("depth", torch.clone), (given, getattr(torch, given)))
    for space, way in ways:
        told = answer("depth", way(members.double().mean(0)), spread, way(members.double()))
        found.append(uncertainty_rows(told, there, rule, space))
    torch.testing.assert_close(*found)


def test_the_spread_is_its_mean_over_the_scored_pixels(rng):
    labels = torch.randint(0, 3, (1, 4, 6), generator=rng)
    labels[..., 0] = IGNORE
    spread = torch.rand(1, 1, 4, 6, generator=rng)
    found = answer("semantic", torch.zeros(1, 1, 4, 6).long(), spread)
    rows = uncertainty_rows(found, batch(labels=labels), get("semantic-miou"), "depth")
    assert rows["spread"].item() == pytest.approx(spread[..., 1:].mean().item(), rel=1e-6)
    assert "calibration" not in rows  # without members nobody knows how many agree


def test_the_probabilities_of_one_answer_are_its_uncertainty(rng):
    """Against one-hot loops, on a grid twice as fine as the one that was worked on."""
    chances = torch.rand(2, 3, 2, 3, generator=rng)
    chances = chances / chances.sum(1, keepdim=True)
    fine = chances.repeat_interleave(2, 2).repeat_interleave(2, 3)
    values = fine.argmax(1, keepdim=True)
    labels = torch.randint(0, 3, (2, 4, 6), generator=rng)
    labels[:, 0] = IGNORE
    inside = labels != IGNORE
    found = answer("semantic", values, None, chances=chances)
    rows = uncertainty_rows(found, batch(labels=labels), get("semantic-miou"), "depth")
    onehot = F.one_hot(torch.where(inside, labels, 0), 3).movedim(-1, 1)
    squares = (fine.double() - onehot).square().sum(1)
    stated = fine.amax(1).double()
    for i in range(2):
        assert rows["brier"][i].item() == pytest.approx(squares[i][inside[i]].mean().item())
        expected = (1 - stated[i][inside[i]]).mean().item()
        assert rows["spread"][i].item() == pytest.approx(expected)
    total = rows["calibration"].sum((0, 1))
    right = (values[:, 0] == labels)[inside].sum().item()
    assert total.tolist() == pytest.approx([36, stated[inside].sum().item(), right])
    assert {"ause", "aurg", "spread_error"} < rows.keys()


@pytest.mark.parametrize("true, expected", [(0, 0.0), (1, 2.0)])
def test_the_brier_score_of_classes_is_0_to_2(true, expected):
    sure = F.one_hot(torch.zeros(1, 4, 6).long(), 3).movedim(-1, 1).float()
    found = answer("semantic", torch.zeros(1, 1, 4, 6).long(), None, chances=sure)
    truth = batch(labels=torch.full((1, 4, 6), true))
    rows = uncertainty_rows(found, truth, get("semantic-miou"), "depth")
    assert rows["brier"].item() == expected


def test_a_mask_without_members_is_unsure_by_its_probability(rng):
    amodal = torch.rand(1, 1, 4, 6, generator=rng) < 0.5
    truth = batch(modal=amodal & False, amodal=amodal, amodal_valid=torch.ones_like(amodal))
    values = torch.rand(1, 1, 4, 6, generator=rng)
    rule = get("amodal-iou")
    assert uncertainty_rows(answer("amodal", values, None), truth, rule, "depth") == {}
    own = uncertainty_rows(answer("amodal", values, None, chances=values), truth, rule, "depth")
    spread = (values * (1 - values)).sqrt()
    torch.testing.assert_close(
        own, uncertainty_rows(answer("amodal", values, spread), truth, rule, "depth")
    )


@pytest.mark.parametrize("task", ["amodal", "semantic"])
def test_a_model_states_probabilities_at_any_number_of_members(lab, task):
    model = Model(lab.pipeline(), task, [1], [1, 3], "ddim", keep=True)
    (scores,) = score(model, lab.Source(count=2, seed="held"), [default_for(task)], range(2))
    one, three = (scores.uncertainty[1, members] for members in (1, 3))
    assert one.keys() == three.keys() > {"brier", "calibration", "ause", "spread_error"}
    assert not torch.equal(one["brier"], three["brier"])


def test_the_probabilities_of_classes_are_one_hot_ones_normalised():
    task = Semantic(classes=3)
    x = torch.tensor([1.0, -1.0, -1.0, 0.0, 0.0, -1.0, -2.0, -3.0, -1.5]).reshape(3, 3, 1, 1)
    found = task.chances(x)
    assert found is not None
    expected = [[1, 0, 0], [0.5, 0.5, 0], [1 / 3] * 3]
    torch.testing.assert_close(found[:, :, 0, 0], torch.tensor(expected))
    assert Semantic(classes=3, encoding="bits").chances(x) is None


def test_classes_in_other_encodings_are_calibrated_by_the_members_that_agree(rng):
    labels = torch.randint(0, 3, (2, 4, 6), generator=rng)
    members = torch.randint(0, 3, (4, 2, 1, 4, 6), generator=rng)
    values = members[0]
    found = answer("semantic", values, torch.rand(2, 1, 4, 6, generator=rng), members)
    rows = uncertainty_rows(found, batch(labels=labels), get("semantic-miou"), "depth")
    shares = F.one_hot(members[:, :, 0], 3).double().mean(0)
    squares = (shares - F.one_hot(labels, 3)).square().sum(-1)
    torch.testing.assert_close(rows["brier"], squares.mean((1, 2)))
    sums = rows["calibration"]
    share = (members == values).double().mean(0)
    right = (values[:, 0] == labels).sum((1, 2)).double()
    assert sums[..., 0].sum(1).tolist() == [24, 24]
    torch.testing.assert_close(sums[..., 1].sum(1), share.sum((1, 2, 3)))
    torch.testing.assert_close(sums[..., 2].sum(1), right)


def test_masks_are_calibrated_by_their_probability(rng):
    amodal = torch.rand(1, 1, 4, 6, generator=rng) < 0.5
    truth = batch(modal=amodal & False, amodal=amodal, amodal_valid=torch.ones_like(amodal))
    values = torch.rand(1, 1, 4, 6, generator=rng)
    rows = uncertainty_rows(answer("amodal", values, values), truth, get("amodal-iou"), "depth")
    totals = rows["calibration"].sum((0, 1))
    expected = [24.0, values.double().sum().item(), float(amodal.sum())]
    assert totals.tolist() == pytest.approx(expected, rel=1e-6)


def test_outlines_and_probabilities_of_masks(rng):
    amodal = torch.zeros(1, 1, 4, 6, dtype=torch.bool)
    amodal[..., 3:] = True
    valid = torch.ones_like(amodal)
    given = batch(modal=amodal, amodal=amodal, amodal_valid=valid)
    rule, spread = get("pix2gestalt-per-object"), torch.rand(1, 1, 4, 6, generator=rng)
    right, unsure = amodal.float(), torch.full((1, 1, 4, 6), 0.3)
    rows = uncertainty_rows(answer("amodal", right, spread), given, rule, "depth")
    assert rows["edge_f1"].item() == 1 and rows["brier"].item() == 0
    rows = uncertainty_rows(answer("amodal", unsure, spread), given, rule, "depth")
    assert rows["edge_f1"].item() == 0
    assert rows["brier"].item() == pytest.approx((0.3**2 + 0.7**2) / 2)


def test_outlines_of_classes_are_judged_where_all_around_is_labelled(rng):
    labels = torch.zeros(1, 6, 8, dtype=torch.long)
    labels[..., 4:] = 2
    moved = labels.roll(2, dims=-1)  # the outline is two pixels off, and there is a second one
    spread = torch.rand(1, 1, 6, 8, generator=rng)
    rule = get("semantic-miou")
    scores = []
    for ignored in (False, True):
        truth = labels.clone()
        truth[..., :2] = IGNORE if ignored else truth[..., :2]
        told = answer("semantic", moved[:, None], spread)
        scores.append(uncertainty_rows(told, batch(labels=truth), rule, "depth")["edge_f1"].item())
    # Predicted edges: columns 1, 2, 5, 6; true ones: 3, 4. Within a pixel: 2, 5; 3, 4. Of those
    # judged beside ignored columns, 5, 6 and 3, 4: 5; 4.
    assert scores == pytest.approx([2 * 0.5 * 1 / 1.5, 0.5])
