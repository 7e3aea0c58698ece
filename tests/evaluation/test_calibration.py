"""A scale makes intervals cover what they say, also of images it was not fitted on."""

from __future__ import annotations

import math

import pytest
import torch

from stepsight.evaluation import calibration
from stepsight.evaluation.calibration import fit_calibration, scale_of
from stepsight.evaluation.evaluator import score
from stepsight.evaluation.predictors import Model
from stepsight.metrics import protocol as protocols
from stepsight.metrics.uncertainty import Case, coverage, gaussian_interval, half_width, moments
from stepsight.report.calibration import calibration_verdict


def cases(narrow: float, images: int, seed: int, members: int = 200):
    """Truth N(0, 1), members N(0, narrow^2), of images that differ in how much is scored."""
    draw = torch.Generator().manual_seed(seed)
    for _ in range(images):
        truth = torch.randn(1, 1, 40, 40, generator=draw, dtype=torch.float64)
        own = narrow * torch.randn(members, 1, 1, 40, 40, generator=draw, dtype=torch.float64)
        valid = torch.rand(1, 1, 40, 40, generator=draw) < 0.2 + 0.8 * torch.rand(
            (), generator=draw
        )
        yield Case(truth.abs(), valid, truth, own)


def covered(found, scale: float) -> float:
    """Of the 90 % interval, mean over images."""
    shares = []
    for case in found:
        mean, deviation = moments(case.members)
        interval = gaussian_interval(mean, scale * deviation, 0.9)
        shares.append(coverage(interval, case.truth, case.valid).item())
    return sum(shares) / len(shares)


@pytest.mark.parametrize("narrow", [0.25, 0.5, 2.0])
def test_the_scale_of_members_that_agree_too_much_is_found_and_holds_on_fresh_images(narrow):
    seen = list(cases(narrow, 12, seed=0))
    scale = scale_of([calibration._distances(case) for case in seen])
    assert scale == pytest.approx(1 / narrow, rel=0.03)
    assert covered(seen, scale) == pytest.approx(0.9, abs=1e-3)
    fresh = list(cases(narrow, 12, seed=1))
    assert covered(fresh, scale) == pytest.approx(0.9, abs=0.015)
    assert abs(covered(fresh, 1.0) - 0.9) > 0.05


def test_images_weigh_the_same_however_many_pixels_they_have():
    """Nine images of one pixel within reach 1, one of a thousand pixels beyond 5."""
    distances = [torch.tensor([1.0]).double()] * 9 + [torch.linspace(5, 6, 1000).double()]
    assert scale_of(distances) == pytest.approx(1 / half_width(0.9))
    assert scale_of(distances, level=0.95) == pytest.approx(5.5 / half_width(0.95), rel=1e-3)


def test_equal_members_are_never_wide_enough_unless_they_are_right():
    truth = torch.arange(10.0).reshape(1, 1, 2, 5)
    members = truth + torch.tensor([-1.0, 0.5, 1.0]).reshape(3, 1, 1, 1, 1)
    members[..., 0] = 0.1  # of which none is right, in two of ten pixels
    case = Case(truth, torch.ones_like(truth).bool(), truth, members)
    distances = calibration._distances(case)
    assert distances.isinf().sum() == 2 and scale_of([distances]) is None
    assert "20 % of the pixels" in calibration._reason([distances])
    members[..., 0] = truth[..., 0]
    distances = calibration._distances(case)
    assert (distances == 0).sum() == 2 and scale_of([distances]) is not None
    assert scale_of([]) is None and calibration._reason([]) == "no pixel is scored"
    assert scale_of([torch.zeros(5).double()]) is None


def test_a_large_image_is_thinned_without_moving_its_quantiles(monkeypatch):
    (case,) = cases(0.5, 1, seed=0)
    whole = calibration._distances(case)
    monkeypatch.setattr(calibration, "MOST", 400)
    part = calibration._distances(case)
    assert len(part) == 400 < len(whole)
    for share in (0.1, 0.5, 0.9):
        assert part.quantile(share).item() == pytest.approx(whole.quantile(share).item(), rel=0.03)


@pytest.mark.parametrize("task", ["depth", "flow"])
def test_a_fitted_scale_is_what_evaluation_calls_calibrated(lab, task):
    """The record against the one scoring loop, on the images it was fitted on: it is the least
    scale that covers 90 %. Every eighth image of the source has no truth, and is not counted."""
    pipeline, source = lab.pipeline(), lab.Source(count=7, seed="held")
    rule = protocols.default_for(task)
    record = fit_calibration(pipeline, source, task, range(7), rule, nfe=2, members=3)
    assert record is not None and record["scale"] > 0
    facts = {"nfe": 2, "members": 3, "temperature": 1.0, "level": 0.9, "images": 6}
    assert record.items() >= (facts | {"protocol": rule.id}).items()
    found = []
    for factor in (0.999, 1.001):
        pipeline.fitted = {task: record | {"scale": factor * record["scale"]}}
        model = Model(pipeline, task, [2], [3], "ddim", keep=True)
        (scores,) = score(model, source, [rule], range(7))
        found.append(scores.uncertainty[2, 3])
    below, above = (rows["coverage_90"].nanmean().item() for rows in found)
    assert below < 0.9 <= above < 0.95
    raw = found[0]["coverage_90_raw"].nanmean().item()
    assert raw == pytest.approx(record["coverage_raw"], abs=0.01) and raw != below


@pytest.mark.parametrize("task", ["amodal", "semantic"])
def test_probabilities_have_no_scale(lab, task):
    rule = protocols.default_for(task)
    found = fit_calibration(lab.pipeline(), lab.held, task, range(2), rule, nfe=1, members=2)
    assert found is None


def test_where_nothing_is_scored_there_is_no_scale_and_a_reason(lab):
    empty = [5]  # the image without truth
    rule = protocols.default_for("flow")
    record = fit_calibration(lab.pipeline(), lab.held, "flow", empty, rule, nfe=1, members=2)
    assert record is not None and record["scale"] is None and record["images"] == 0
    assert record["reason"] == "no pixel is scored" and record["coverage_raw"] is None


def intervals(share: float, rho: float = 0.3, **more: float):
    rows = {"coverage_90": share, "spread_error": rho} | more
    return {name: value + torch.linspace(-0.02, 0.02, 16) for name, value in rows.items()}


@pytest.mark.parametrize(
    "share, verdict",
    [(0.9, "calibrated"), (0.86, "calibrated"), (0.84, "too narrow"), (0.97, "too wide")],
)
def test_the_verdict_on_intervals_says_both_ways_of_being_wrong(share, verdict):
    told = calibration_verdict(intervals(share, coverage_90_raw=0.41))
    assert told is not None and told.verdict == verdict
    assert told.sentence.startswith(f"90 % intervals cover {100 * share:.1f} % [")
    assert f"on 16 images (raw members: 41.0 %): {verdict}. " in told.sentence
    assert told.sentence.endswith("The spread ranks errors weakly (Spearman 0.30).")


@pytest.mark.parametrize(
    "rho, word", [(-0.2, "hardly"), (0.2, "weakly"), (0.5, "moderately"), (0.8, "well")]
)
def test_the_verdict_says_how_well_the_spread_ranks(rho, word):
    told = calibration_verdict(intervals(0.9, rho))
    assert told is not None and f"ranks errors {word} (Spearman {rho:.2f})" in told.sentence
    assert "raw members" not in told.sentence


@pytest.mark.parametrize("error, verdict", [(0.006, "good"), (0.03, "fair"), (0.08, "poor")])
def test_the_verdict_on_probabilities_goes_by_their_calibration_error(error, verdict):
    sums = torch.zeros(2, 10, 3, dtype=torch.float64)
    sums[:, 4] = torch.tensor([100.0, 45.0, 45 + 100 * error])
    told = calibration_verdict({"brier": torch.tensor([0.0100, 0.0102]), "calibration": sums})
    assert told is not None and told.verdict == verdict
    assert told.sentence == (
        f"Stated probabilities are off by {100 * error:.1f} % (ECE), Brier 0.0101, "
        f"on 2 images: {verdict}."
    )


def test_nothing_is_said_of_what_was_not_measured():
    assert calibration_verdict({}) is None
    assert calibration_verdict({"ause": torch.rand(3), "spread_error": torch.rand(3)}) is None
    nothing = torch.full((3,), math.nan)
    assert calibration_verdict({"coverage_90": nothing}) is None
    empty = {"brier": nothing, "calibration": torch.zeros(3, 10, 3)}
    assert calibration_verdict(empty) is None
