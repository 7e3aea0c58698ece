"""Forecasts: dated before, scored after, on runs of that size and amount alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from stepsight.errors import DataFormatError
from stepsight.scaling.ladders.forecast import (
    LOSS,
    ForecastTarget,
    append_forecasts,
    by_quantity,
    forecasts,
    read_forecasts,
    scored,
)
from stepsight.scaling.records import ScalingRecord

PLACE = (3_000_000, 128_000)
BEFORE, AFTER = "2026-01-01T00:00:00+00:00", "2999-01-01T00:00:00+00:00"


def law(params: float, images: float) -> float:
    return 0.1 + 40 * params**-0.5 + 30 * images**-0.6


@pytest.fixture
def measured(record):
    """Records of a run: its loss follows the law, AbsRel twice of it, and delta1 1 less it."""

    def of(params: int, images: int, noise: float = 0.0, **more) -> Iterator[ScalingRecord]:
        loss = law(params, images) * np.exp(noise)
        place = {"run": f"{params}-{images}", "params_active": params, "params_total": params}
        common = place | {"images_seen": images, "training_flops": 384.0 * params * images}
        common |= {"time": BEFORE, "size": "64x64", "inherited_flops": 0.0, "samples": 32768} | more
        yield record(metric="abs_rel", value=2 * loss, loss=loss, **common)
        yield record(metric="delta1", value=1 - loss, lower_is_better=False, loss=loss, **common)

    return of


@pytest.fixture
def ladder(measured) -> list[ScalingRecord]:
    rng = np.random.default_rng(0)
    return [
        one
        for params in (60_000, 200_000, 350_000, 750_000, 1_300_000)
        for images in (4_000, 8_000, 16_000, 32_000)
        for one in measured(params, images, 0.005 * rng.standard_normal())
    ]


def test_quantities_are_apart_and_losses_count_once(ladder, measured):
    found = by_quantity([*ladder, *measured(60_000, 4_000, inherited_flops=1e12)])
    sizes = {(one.metric, one.tuned): len(rows) for one, rows in found.items()}
    assert sizes == {
        ("loss", False): 20,
        ("abs_rel", False): 20,
        ("delta1", False): 20,
        ("loss", True): 1,
        ("abs_rel", True): 1,
        ("delta1", True): 1,
    }


def test_a_point_that_was_measured_again_counts_once(ladder, measured):
    again = list(measured(60_000, 4_000, 0.5, time=AFTER))
    for quantity, rows in by_quantity([*again, *ladder]).items():
        assert len(rows) == 20, quantity
        assert rows[[one.run for one in rows].index("60000-4000")].time == AFTER


def test_the_forecast_is_dated_and_holds_the_outcome(ladder, measured, tmp_path):
    made = list(forecasts(ladder, ForecastTarget("larger", *PLACE), bootstrap=60))
    assert [one.metric for one in made] == [LOSS, "abs_rel", "delta1"]
    path = tmp_path / "out" / "forecasts.jsonl"
    append_forecasts(path, made)
    assert read_forecasts(path) == made
    assert made[0].points == 20 and made[0].runs == 20 and made[0].reach > 9
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


def test_an_outcome_that_is_not_as_forecast_is_outside(ladder, measured):
    made = list(forecasts(ladder, ForecastTarget("larger", *PLACE), bootstrap=60))
    settled, _ = scored(made, [*measured(*PLACE, noise=0.7, time=AFTER)])
    assert [one.inside for one in settled] == [False] * 3 and settled[0].error < -0.3


def test_too_few_points_make_no_forecast(ladder):
    few = [one for one in ladder if one.params_active == 60_000]
    assert list(forecasts(few, ForecastTarget("larger", *PLACE), bootstrap=20)) == []


def test_points_that_saw_fewer_samples_make_no_forecast_worse(ladder, measured):
    few = [
        one
        for params in (60_000, 200_000, 350_000)
        for one in measured(params, 8_000, 0.8, samples=16, run=f"few-{params}")
    ]
    target = ForecastTarget("larger", *PLACE)
    full, mixed = (list(forecasts(rows, target, bootstrap=20)) for rows in (ladder, ladder + few))
    assert [one.points for one in mixed] == [one.points for one in full]
    assert [one.value for one in mixed] == [one.value for one in full]


def test_what_parameters_and_images_do_not_settle_has_no_forecast(ladder, measured):
    tuned = [
        one
        for budget in (1e12, 2e12)
        for params in (60_000, 200_000, 350_000, 750_000)
        for images in (4_000, 8_000, 16_000)
        for one in measured(params, images, inherited_flops=budget, run=f"{params}{images}{budget}")
    ]
    assert list(forecasts(tuned, ForecastTarget("larger", *PLACE), bootstrap=20)) == []


def test_a_line_cut_short_is_left_out_and_the_next_one_is_whole(ladder, tmp_path):
    made = list(forecasts(ladder, ForecastTarget("larger", *PLACE), bootstrap=20))
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
