"""Forecasts: dated before, scored after, on runs of that size and amount alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ladders import record

from stepsight.errors import DataFormatError
from stepsight.scaling.ladders.forecast import (
    LOSS,
    Forecast,
    ForecastTarget,
    append_forecasts,
    by_quantity,
    forecasts,
    read_forecasts,
    scored,
)
from stepsight.scaling.ladders.ways import Rehearsal, Ways
from stepsight.scaling.records import ScalingRecord

TARGET = ForecastTarget("larger", 3_000_000, 128_000)
PLACE = TARGET[1:]
AFTER = "2999-01-01T00:00:00+00:00"
OLD = Path(__file__).parents[3] / "docs" / "data" / "ladder-depth-forecasts.jsonl"


def law(params: float, images: float) -> float:
    return 0.1 + 40 * params**-0.5 + 30 * images**-0.6


def measured(params: int, images: int, noise: float = 0.0, **more) -> Iterator[ScalingRecord]:
    """Records of a run: its loss follows the law, AbsRel twice of it, and delta1 1 less it."""
    loss = law(params, images) * np.exp(noise)
    common = {"training_flops": 384.0 * params * images, "size": "64x64", "inherited_flops": 0.0}
    common |= {"samples": 32768} | more
    yield record(params, images, loss, 2 * loss, **common)
    yield record(params, images, loss, 1 - loss, metric="delta1", lower_is_better=False, **common)


@pytest.fixture(scope="module")
def ladder() -> list[ScalingRecord]:
    rng = np.random.default_rng(0)
    return [
        one
        for params in (60_000, 200_000, 350_000, 1_300_000)
        for images in (4_000, 8_000, 16_000, 32_000)
        for one in measured(params, images, 0.005 * rng.standard_normal())
    ]


@pytest.fixture(scope="module")
def small(ladder) -> list[ScalingRecord]:
    """Losses of the corners of the ladder, of which none can be hidden: quick to forecast from."""
    sizes, amounts = (60_000, 350_000, 1_300_000), (4_000, 16_000, 32_000)
    return [
        replace(one, value=None)
        for one in ladder
        if one.params_active in sizes and one.images_seen in amounts and one.metric == "abs_rel"
    ]


@pytest.fixture(scope="module")
def made(ladder) -> list[Forecast]:
    return list(forecasts(ladder, TARGET))


def test_quantities_are_apart_and_losses_count_once(ladder):
    found = by_quantity([*ladder, *measured(60_000, 4_000, inherited_flops=1e12)])
    sizes = {(one.metric, one.tuned): len(rows) for one, rows in found.items()}
    assert sizes == {
        ("loss", False): 16,
        ("abs_rel", False): 16,
        ("delta1", False): 16,
        ("loss", True): 1,
        ("abs_rel", True): 1,
        ("delta1", True): 1,
    }


def test_a_point_that_was_measured_again_counts_once(ladder):
    again = list(measured(60_000, 4_000, 0.5, time=AFTER))
    for quantity, rows in by_quantity([*again, *ladder]).items():
        assert len(rows) == 16, quantity
        assert rows[[one.run for one in rows].index("60000-4000")].time == AFTER


def test_experts_are_apart_from_dense_models_of_as_many_active_parameters():
    mixed = measured(60_000, 4_000, model="DiT-32x2/8-8E2A", params_total=200_000)
    kinds = [one.experts for one in by_quantity([*measured(60_000, 4_000), *mixed])]
    assert kinds == ["", "", "", "8E2A", "8E2A", "8E2A"]


def test_the_forecast_is_dated_and_holds_the_outcome(ladder, made, tmp_path):
    assert [one.metric for one in made] == [LOSS, "abs_rel", "delta1"]
    path = tmp_path / "out" / "forecasts.jsonl"
    append_forecasts(path, made)
    assert read_forecasts(path) == made
    assert made[0].points == 16 and made[0].runs == 16 and made[0].reach > 9
    settled, waiting = scored(made, ladder)
    assert not settled and waiting == made

    earlier = list(measured(*PLACE))  # measured before the forecast was made: no test of it
    assert scored(made, [*ladder, *earlier])[0] == []
    settled, waiting = scored(made, [*ladder, *measured(*PLACE, time=AFTER)])
    assert not waiting and [one.inside for one in settled] == [True] * 3
    assert [one.outcome for one in settled] == pytest.approx(
        [law(*PLACE), 2 * law(*PLACE), 1 - law(*PLACE)]
    )
    assert all(abs(one.error) < 0.03 and one.time == AFTER for one in settled)
    assert all(one.forecast.lo < one.forecast.value < one.forecast.hi for one in settled)


def test_the_forecast_says_how_it_was_made_and_what_that_was_worth(ladder, made):
    for one in made:
        assert one.of == 5 and 0 < one.hits <= 5  # the third with the largest product
        assert one.basis.startswith(("direct law; ", "two steps, "))
    flops = sum(one.training_flops for one in ladder if one.metric == "abs_rel")
    assert made[0].spent == pytest.approx(flops / (384.0 * np.prod(PLACE)))
    assert made[0].tested == pytest.approx(1_300_000 * 32_000 / (350_000 * 16_000))


def test_hits_among_rungs_within_the_rest_are_no_evidence(small, monkeypatch):
    within = Rehearsal(hits=3, of=3, reach=0.45, error=0.1, below=1.0, above=1.0)
    best = Ways.best
    monkeypatch.setattr(Ways, "best", lambda *given: (best(*given)[0], within))
    (one,) = forecasts(small, TARGET)
    assert (one.hits, one.of, one.tested) == (0, 0, 0.45)
    assert "no rung beyond the rest could be hidden; the widest of 3 misses" in one.basis


def test_an_outcome_that_is_not_as_forecast_is_outside(made):
    settled, _ = scored(made, [*measured(*PLACE, noise=0.7, time=AFTER)])
    assert [one.inside for one in settled] == [False] * 3 and settled[0].error < -0.3


def test_neither_another_run_nor_a_later_look_replaces_the_outcome(made):
    named = [replace(one, run="held-out/larger") for one in made]
    own = list(measured(*PLACE, run="larger", time="2998-01-01T00:00:00+00:00"))
    again = measured(*PLACE, noise=0.1, run="larger", time=AFTER)
    others = [
        one
        for moment in ("2997-01-01T00:00:00+00:00", AFTER)
        for one in measured(*PLACE, noise=0.7, run="larger_seed-1", seed=1, time=moment)
    ]
    settled, _ = scored(named, [*own, *again, *others])
    assert [one.outcome for one in settled] == [own[0].loss, own[0].value, own[1].value]


def test_too_few_points_make_no_forecast(ladder):
    few = [one for one in ladder if one.params_active == 60_000]
    assert list(forecasts(few, TARGET)) == []


def test_points_that_saw_fewer_samples_make_no_forecast_worse(small):
    few = [
        replace(one, value=None)
        for params in (60_000, 350_000, 1_300_000)
        for one in measured(params, 16_000, 0.8, samples=16, run=f"few-{params}")
    ]
    (full,), (mixed,) = (list(forecasts(rows, TARGET)) for rows in (small, small + few))
    assert full.points == 9 and full.of == 0 and np.isnan(full.tested)
    assert (mixed.points, mixed.value) == (full.points, full.value)


def test_what_parameters_and_images_do_not_settle_has_no_forecast():
    tuned = [
        one
        for budget in (1e12, 2e12)
        for params in (60_000, 200_000, 350_000, 750_000)
        for images in (4_000, 8_000, 16_000)
        for one in measured(params, images, inherited_flops=budget, run=f"{params}{images}{budget}")
    ]
    assert list(forecasts(tuned, TARGET)) == []


def test_seeds_of_one_place_bound_the_interval(small):
    """Two seeds a rung that differ by 30 % leave no interval narrower than that."""
    other = [replace(one, run=f"{one.run}-2", seed=1, loss=1.3 * one.loss) for one in small]
    (alone,), (both,) = (list(forecasts(rows, TARGET)) for rows in (small, small + other))
    assert both.points == 18 and both.runs == 18
    scatter = np.log(1.3) / np.sqrt(2)
    assert np.log(both.hi / both.lo) >= 2 * 1.64 * scatter > np.log(alone.hi / alone.lo)


def test_branches_of_one_trunk_count_as_one_run(small):
    """Sizes whose offsets all rungs share: taken as independent, they promise too much."""
    off = {size: 0.05 * sign for size, sign in zip((60_000, 350_000, 1_300_000), (1, -1, 1))}
    shared = [replace(one, loss=one.loss * np.exp(off[one.params_active])) for one in small]
    trunks = {one.run: str(one.params_active) for one in shared}
    (apart,), (grouped,) = (list(forecasts(shared, TARGET, trunks=t)) for t in ({}, trunks))
    assert np.log(grouped.hi / grouped.lo) > 1.2 * np.log(apart.hi / apart.lo)
    assert np.isnan(grouped.spent)  # branches pay for their own part alone, which they do not say


def test_lines_of_earlier_versions_are_read():
    old = read_forecasts(OLD)
    assert [one.metric for one in old] == ["loss", "abs_rel", "delta1", "delta2", "rmse"]
    assert {(one.basis, one.of, one.experts) for one in old} == {("", 0, "")}
    assert np.isnan(old[0].tested) and old[0].form == "chinchilla"


def test_a_line_cut_short_is_left_out_and_the_next_one_is_whole(made, tmp_path):
    path = tmp_path / "forecasts.jsonl"
    append_forecasts(path, made[:1])
    path.write_text(path.read_text() + '{"made": "2026')
    append_forecasts(path, made[1:])
    assert read_forecasts(path) == made


def test_a_ledger_that_is_none(tmp_path):
    assert read_forecasts(tmp_path / "none.jsonl") == []
    (tmp_path / "bad.jsonl").write_text('{"run": "x", "warnings": []}\n')
    with pytest.raises(DataFormatError, match="bad.jsonl:1: not a forecast"):
        read_forecasts(tmp_path / "bad.jsonl")
