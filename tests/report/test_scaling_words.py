"""What a report on scaling says of its laws, curves and numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ladders import grid, record, scattered

from stepsight.scaling.analysis.curves import curves, headline
from stepsight.scaling.analysis.laws import laws_of
from stepsight.scaling.analysis.words import (
    briefly,
    came_of,
    clean,
    count,
    forecast_basis,
    judgement,
    rehearsed,
    span,
)
from stepsight.scaling.ladders.forecast import ScoredForecast, read_forecasts

DATA = Path(__file__).parents[2] / "docs" / "data"


@pytest.mark.parametrize("seed", range(3))
def test_the_envelope_of_noise_is_never_a_clean_law(seed):
    (loss, _), _ = curves(scattered(seed))
    envelope = laws_of(loss, bootstrap=0).envelope
    assert envelope is None or not clean(envelope.fit)


def test_a_clean_law_is_called_clean():
    """Without noise and with one term, the envelope over four decades is a power law."""
    found = [record(n, 1000, 5 * n**-0.2, None) for n in np.geomspace(1e4, 1e8, 9).astype(int)]
    ((curve,), _) = curves(found)
    done = laws_of(curve, bootstrap=20)
    assert done.joint is None and done.envelope is not None
    fit = done.envelope.fit
    assert clean(fit) and fit.params["a"] == pytest.approx(0.2, abs=1e-3)
    assert judgement(fit).startswith("A clean law (R² 1.000")
    assert briefly(fit).startswith("y = A x^-a, a = 0.200 [0.200, 0.200]. A clean law")
    assert [one.against for one in done.laws] == ["training compute", "parameters at 1k images"]


def test_curves_keep_apart_what_no_law_goes_through():
    small, large = grid(), grid(size="32x32", run="wide", config="wide")
    names = [one.name for one in curves(small + large)[0]]
    assert "depth loss, 16x16" in names and "depth loss, 32x32" in names
    scenes, real = grid(), grid(dataset="nyu")
    found, _ = curves(scenes + real)
    assert [one.name for one in found] == [
        "depth loss",  # of the checkpoints, whatever they were measured on
        "depth AbsRel, ddim 4 x 2, scenes",
        "depth AbsRel, ddim 4 x 2, nyu",
    ]


def test_runs_with_fewer_samples_are_left_out_and_told():
    few = grid(samples=10, run="few", config="few")
    found, notes = curves(grid() + few)
    assert {len(one.errors) for one in found} == {9}
    assert notes[0] == "depth loss: left out 9 points with fewer distinct samples"


def test_the_headline_is_the_main_metric_in_the_fullest_setting():
    rare = [one for one in grid(nfe=1, members=1)][:4]
    other = grid(metric="delta1", lower_is_better=False)
    names = [one.name for one in headline(curves(grid() + rare + other)[0])]
    assert names == ["depth loss", "depth AbsRel, ddim 4 x 2"]


def test_forecasts_say_their_worth_and_outcomes_why_they_are_outside():
    """Of the forecasts of our own ladder, and of one as it is made today."""
    old = read_forecasts(DATA / "ladder-depth-forecasts.jsonl")[0]
    assert rehearsed(old) == "" and forecast_basis(old) == (
        "reaches 2.8 times the largest run; chinchilla"
    )
    now = replace(old, basis="direct law", hits=11, of=16, tested=2.0, spent=0.05)
    assert forecast_basis(now) == (
        "reaches 2.8 times the largest run; direct law; 90% intervals held 11 of 16 of the "
        "ladder's own hidden rungs, up to 2x; it is widened by what they missed; its ladder took "
        "0.05 times the target's training FLOPs"
    )
    middle = (now.value + now.lo) / 2
    assert came_of(ScoredForecast(now, middle, "", True)) == "50% of the way to the lower end"
    outside = 2 * now.hi - now.value
    assert came_of(ScoredForecast(now, outside, "", False)) == (
        "2 times as far off as the upper end: hidden rungs were forecast up to 2x alone; of these "
        "11 of 16 were inside"
    )
    assert came_of(ScoredForecast(old, outside, "", False)).endswith(
        "no rungs were hidden to try it on"
    )


def test_numbers_in_words():
    assert [count(x) for x in (999, 4096, 16_384, 1_612_345, 2e9)] == [
        *("999", "4.1k", "16.4k", "1.61M", "2G")
    ]
    assert span([4096, 65_536, 8192]) == "4.1k to 65.5k" and span([7.0]) == "7"
