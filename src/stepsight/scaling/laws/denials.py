"""What denies that a fit is a law, each as a sentence with its number.

A curve through the points is not enough: it has to be one that no other form beats by far, that the
points do not bend away from, that the search found inside of its ranges, and that would have
forecast its own upper end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from stepsight.scaling.fitting.form import MAX_SLOPE, LogForm
from stepsight.scaling.fitting.quality import DECISIVE, LAW_R2, MIN_DECADES
from stepsight.scaling.fitting.resampling import Ends
from stepsight.scaling.laws.backtest import Backtest, HiddenForecasts
from stepsight.scaling.laws.diagnosis import EXPONENT_AT_BOUND, NO_EXPONENT

FEWEST = 5  # hidden runs that say something
LEAST_HITS = 0.5  # of 90 % intervals that grew with what was missed before
MOST_MISSED = 2.5  # median error in deviations; normal errors have .67
ONE_SIDED, FAR_OFF = 0.9, 1.5  # share of errors of one sign; their median, in deviations
MOST_HELD_OUT = 0.25  # log error at the top quarter of the places, whatever the scatter


def of_fit(form: LogForm, r2: float, intervals: Mapping[str, Ends]) -> Iterator[str]:
    """The law itself; nan intervals say nothing."""
    if r2 < LAW_R2:
        yield f"no law: R2 of {r2:.2f} in log space, below {LAW_R2:g}"
    for name in form.exponents:
        lo, hi = intervals[name]
        if lo <= NO_EXPONENT:
            yield f"no law: {name} may be {max(lo, 0.0):.2g}, the input then does nothing"
        if hi >= MAX_SLOPE - EXPONENT_AT_BOUND:
            yield f"no law: the interval of {name} ends at {hi:g}, the end of the range searched"


def of_break(form: LogForm, params: Mapping[str, float], top: float) -> Iterator[str]:
    """A power law beyond a break needs as much room, up to x = `top`, as one without."""
    if not form.breaks:
        return
    decades = math.log10(top / params[form.breaks])
    if decades < MIN_DECADES - 1e-9:
        beyond = f"{decades:.1f} decades of x lie beyond the break at {params[form.breaks]:.3g}"
        yield f"no law: {beyond}, and the exponent there needs {MIN_DECADES:g}"


def of_rivals(own: float, rivals: Mapping[str, float]) -> Iterator[str]:
    """AICc beside that of other forms of the same points, none of them with fewer parameters, as
    losing to such is no lack of fit."""
    if rivals and own - (least := min(rivals.values())) > DECISIVE:
        name = min(rivals, key=rivals.__getitem__)
        yield f"no law: {name} fits far better (AICc lower by {own - least:.0f})"


def of_forecasts(
    tested: Backtest | None, trials: HiddenForecasts, held_out: float
) -> Iterator[str]:
    """What it forecast of its own upper end."""
    if held_out > MOST_HELD_OUT:
        yield f"no law: the points left out at the top were missed by {math.expm1(held_out):.0%}"
    if tested is None or len(np.unique(trials.run)) < FEWEST:
        return
    off = float(np.median(np.abs(trials.scores)))
    above = float(np.mean(trials.scores > 0))
    if tested.hits < LEAST_HITS * tested.of:
        yield f"no law: {tested.hits} of {tested.of} hidden points lie in their 90 % intervals"
    elif off > MOST_MISSED:
        yield f"no law: hidden points are missed by {off:.1f} times the deviation expected"
    elif max(above, 1 - above) >= ONE_SIDED and off > FAR_OFF:
        side, share = ("above", above) if above > 0.5 else ("below", 1 - above)
        text = f"{share:.0%} of {tested.of} hidden points lie {side} their forecast"
        yield f"no law: {text}, by {off:.1f} deviations"
