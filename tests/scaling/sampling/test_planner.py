"""The planner: what it offers, what it refuses, and whether its intervals hold."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from stepsight.diffusion.config import DiffusionSettings
from stepsight.errors import UserError
from stepsight.pipeline.budget import sampling_options
from stepsight.scaling.sampling.interpolation import interpolate
from stepsight.scaling.sampling.planner import Budget, expect, plan
from stepsight.scaling.sampling.response_surface import ResponseSurface
from stepsight.scaling.sampling.sweeps import Cell

KEYS = set(
    "checkpoint sampler spacing schedule nfe members total_calls gflop_per_image ms_per_image "
    "latency_ms metric expected lo hi level measured temperature views".split()
)


def falling(t, n):
    return 0.1 + 0.2 / t + 0.1 / n


def test_budgets_are_read_or_refused():
    assert Budget.parse("16nfe") == (16.0, "nfe") and str(Budget.parse("50.5GFLOP")) == "50.5gflop"
    assert Budget.parse(" .5 ms") == (0.5, "ms")
    for text in ("16", "nfe", "16calls", "0nfe", "-3ms", "1e3ms", "nan ms"):
        with pytest.raises(UserError, match="16nfe"):
            Budget.parse(text)


@pytest.mark.parametrize("budget, cost", [("16nfe", 16), ("8gflop", 16), ("55ms", 16)])
def test_the_best_of_all_that_the_budget_buys(sweep, budget, cost):
    planned = plan(sweep(falling), "depth", budget)
    affordable = [(t, n) for t in range(1, 17) for n in range(1, 9) if t * n <= cost]
    best = min(affordable, key=lambda setting: falling(*setting))
    assert (planned.nfe, planned.members) == best
    assert planned.expected == pytest.approx(falling(*best), rel=0.01)
    assert planned.total_calls <= cost and planned.spent <= Budget.parse(budget).amount
    assert planned.gflop_per_image == pytest.approx(0.5 * planned.total_calls)
    assert planned.ms_per_image == pytest.approx(3 + 2 * planned.total_calls)
    assert planned.latency_ms == pytest.approx(7 + 3 * planned.total_calls)


def test_higher_may_be_better(sweep):
    cells = sweep(lambda t, n: 1 - falling(t, n), metric="iou", task="amodal")
    planned = plan(cells, "amodal", "8nfe")
    assert (planned.metric, planned.expected) == ("iou", pytest.approx(1 - falling(4, 2), rel=1e-3))
    assert planned.lo < planned.expected < planned.hi
    assert planned.cheapest.expected >= 0.98 * planned.expected


def test_the_cheapest_that_is_nearly_as_good(sweep):
    cells = sweep(lambda t, n: 0.2 + 0.1 * (t == 1) + 0.001 / n, nfe=(1, 2, 4), members=(1, 2, 4))
    cells = [replace(c, lo=c.value - 1e-6, hi=c.value + 1e-6) for c in cells]  # no luck in them
    planned = plan(cells, "depth", "128nfe", within=0.02)
    assert planned.total_calls > 4
    assert (planned.cheapest.nfe, planned.cheapest.members) == (2, 1)
    exact = plan(cells, "depth", "128nfe", within=0.0)
    assert exact.cheapest.expected == exact.expected == planned.expected


def test_equal_promises_go_to_the_cheaper_and_measured(sweep):
    planned = plan(sweep(lambda t, n: 0.2), "depth", "100nfe")
    assert (planned.nfe, planned.members, planned.measured) == (1, 1, True)


def test_families_compete(sweep):
    small = sweep(falling, checkpoint="small")
    large = sweep(lambda t, n: 0.8 * falling(t, n), checkpoint="large")
    large = [Cell(**(vars(c) | {"gflop_per_image": 8 * c.gflop_per_image})) for c in large]
    assert plan([*small, *large], "depth", "3gflop").checkpoint == "small"
    assert plan([*small, *large], "depth", "200gflop").checkpoint == "large"


def test_a_plan_carries_the_start_and_the_views_it_was_measured_with(sweep):
    cold = sweep(lambda t, n: 0.8 * falling(t, n), members=(1,), temperature=0.0, views="mirror")
    planned = plan([*sweep(falling), *cold], "depth", "8nfe")
    assert (planned.temperature, planned.views, planned.members) == ("0", "mirror", 1)
    assert "T 0 mirror views" in str(planned)
    used = sampling_options(planned, "depth", DiffusionSettings())
    assert (used["temperature"], used["views"], used["sampler"]) == (0.0, "mirror", "ddim")
    early = plan(sweep(falling), "depth", "8nfe")
    used = sampling_options(early, "depth", DiffusionSettings(temperature=0.0, views="mirror"))
    assert (used["temperature"], used["views"]) == (1.0, "none")


def test_a_plan_names_the_settings_without_a_number(sweep):
    cells = sweep(lambda t, n: math.nan if (t, n) == (4, 2) else falling(t, n))
    assert plan(cells, "depth", "16nfe").left_out == ["4 NFE x 2 members (value is no number)"]
    assert plan(sweep(falling), "depth", "16nfe").left_out == []
    cells = [Cell(**(vars(c) | {"latency_ms": math.nan} if c.nfe == 8 else vars(c))) for c in cells]
    assert len(plan(cells, "depth", "55ms").left_out) == 1 + 4


def test_samplers_spend_only_what_they_can(sweep):
    heun = ResponseSurface(sweep(falling, nfe=(1, 3, 7), sampler="heun"))
    assert {choice.nfe for choice in heun.choices()} == {1, 3, 5, 7}
    foreign = ResponseSurface(sweep(falling, nfe=(1, 3, 7), sampler="theirs"))
    assert {choice.nfe for choice in foreign.choices()} == {1, 3, 7}


def test_never_beyond_what_was_measured(sweep):
    cells = sweep(falling)
    assert all(c.nfe <= 16 and c.members <= 8 for c in ResponseSurface(cells).choices())
    assert plan(cells, "depth", "1000000nfe").total_calls == 128
    for outside in ((17, 1), (1, 9)):
        with pytest.raises(UserError, match="says nothing of NFE"):
            expect(cells, "depth", outside)


def test_nothing_between_where_the_doubt_is_unknown(sweep):
    cells = sweep(falling, nfe=(1, 8), members=(1, 4))
    assert all(choice.measured for choice in ResponseSurface(cells).choices())
    with pytest.raises(UserError, match="too little was measured"):
        expect(cells, "depth", (2, 2))


def test_refusals(sweep, cell):
    cells = sweep(falling, nfe=(2, 4), members=(2, 4))
    with pytest.raises(UserError, match=r"costs 4nfe \(ddim, NFE 2 x 2 members\)"):
        plan(cells, "depth", "3nfe")
    with pytest.raises(UserError, match="no task 'flow'"):
        plan(cells, "flow", "3nfe")
    with pytest.raises(UserError, match="no 'rmse'"):
        plan(cells, "depth", "3nfe", metric="rmse")
    with pytest.raises(UserError, match="no latency_ms of depth.*sweep again"):
        plan([cell(latency_ms=math.nan)], "depth", "3ms")


def test_json_has_the_keys_of_the_interface(sweep):
    found = json.loads(
        json.dumps(plan(sweep(falling), "depth", "16nfe").to_dict(), allow_nan=False)
    )
    assert KEYS | {"cheapest", "budget", "spent", "verdict"} <= found.keys()
    assert KEYS <= found["cheapest"].keys() and found["level"] == 0.9
    unknown = [Cell(**(vars(c) | {"lo": math.nan, "hi": math.nan})) for c in sweep(falling)]
    assert plan(unknown, "depth", "16nfe").to_dict()["lo"] is None


def test_intervals_add_up(sweep):
    cells = sweep(falling)
    land = ResponseSurface(cells)
    measured, same = land.choice((4, 2)), land.choice((4, 2), fresh=False)
    assert measured is not None and same is not None
    deviation = 0.1 * falling(4, 2) / 3.919928
    assert measured.hi - measured.expected == pytest.approx(1.644854 * math.sqrt(2) * deviation)
    assert same.lo == same.hi == measured.expected
    land = ResponseSurface(sweep(lambda t, n: falling(t, n) * (1.01 if t == 4 else 1)))
    between, known = land.choice((3, 3)), land.choice((3, 3), fresh=False)
    assert between is not None and known is not None
    assert between.hi - between.lo > known.hi - known.lo > 0


def test_the_better_predictor_is_used(sweep):
    smooth = ResponseSurface(sweep(falling)).choice((3, 3))
    assert smooth is not None and smooth.expected == pytest.approx(falling(3, 3), rel=1e-3)

    def ragged(t, n):
        return 0.3 - 0.02 * math.log2(t) * math.log2(n) + (0.1 if t >= 4 else 0.0)

    cells = sweep(ragged)
    local = ResponseSurface(cells).choice((3, 3), fresh=False)
    assert local is not None
    assert local.expected == pytest.approx(interpolate({c.setting: c.value for c in cells}, (3, 3)))


def measured(sweep_of, nfe, members, rng):
    """A sweep on fresh synthetic images: what makes an image hard is shared by all settings, and
    every member adds luck of its own."""
    images = 96
    hardness = np.exp(rng.normal(-0.125, 0.5, images))
    cells = []
    for t in nfe:
        luck = rng.normal(0, 0.1, (max(members), images))
        for n in members:
            errors = sweep_of(t, n) * hardness * (1 + luck[:n].mean(0))
            half = 1.959964 * errors.std(ddof=1) / math.sqrt(images)
            cells.append((t, n, errors.mean(), half))
    return cells


@pytest.mark.parametrize(
    "truth",
    [
        lambda t, n: 0.15 + 0.3 * t**-1.2 + 0.08 / n,
        lambda t, n: 0.10 + 0.09 * t**-0.3 + 0.12 * (1 - t**-0.5) / n,
        lambda t, n: 0.20 + 0.5 * math.exp(-(t - 1) / 1.5) + 0.05 / n,
    ],
    ids=["separable", "steps hurt alone", "elbow"],
)
def test_held_out_settings_of_fresh_images_fall_inside(truth, cell):
    rng, inside = np.random.default_rng(0), []
    for _ in range(4):
        known = measured(truth, (1, 2, 4, 8, 16), (1, 2, 4, 8), rng)
        land = ResponseSurface([cell(t, n, value=v, lo=v - h, hi=v + h) for t, n, v, h in known])
        for t, n, value, _ in measured(truth, (3, 6, 12), (3, 5, 6), rng):
            choice = land.choice((t, n))
            assert choice is not None
            inside.append(choice.lo <= value <= choice.hi)
    assert 0.8 <= np.mean(inside) <= 1.0
