"""Several forms of one law, averaged by what their forecasts of hidden points were worth.

Forms that fit the same points equally well part beyond them, and which one is right is not known.
A weighted mean of their forecasts errs less than the form that fits best, and its interval holds
the disagreement (stacking by predictive error: Wolpert 1992, Neural Networks 5:241; Yao et al.
2018, Bayesian Analysis 13:917).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stepsight.scaling.fitting.quality import Expected, Verdict
from stepsight.scaling.intervals import PREDICTIVE
from stepsight.scaling.laws.backtest import Backtest
from stepsight.scaling.laws.fitted import At, Fit

LEAST_ERROR = 1e-6  # log y: less is arithmetic


@dataclass(frozen=True)
class Averaged:
    """A weighted mean of laws, in logs."""

    fits: dict[str, Fit]
    weights: dict[str, float]

    @property
    def best(self) -> Fit:
        """The one of the largest weight, whose verdict, warnings and back-test speak for all."""
        fewest = {name: -len(self.fits[name].params) for name in self.weights}
        return self.fits[max(fewest, key=lambda name: (round(self.weights[name], 6), fewest[name]))]

    @property
    def form(self) -> str:
        return "average of " + ", ".join(self.weights)

    @property
    def formula(self) -> str:
        return " | ".join(f"{w:.0%} {self.fits[name].formula}" for name, w in self.weights.items())

    @property
    def n(self) -> int:
        return self.best.n

    @property
    def verdict(self) -> Verdict:
        return self.best.verdict

    @property
    def backtest(self) -> Backtest | None:
        return self.best.backtest

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.best.warnings

    def forecast(self, at: At, level: float = PREDICTIVE) -> Expected:
        """The mean in logs; each end is as far from it as those of the forms and the forms from
        each other, their mean squares added."""
        each = [self.fits[name].forecast(at, level) for name in self.weights]
        weights = np.array([*self.weights.values()])
        values, lows, highs = (np.log([[e.value, e.lo, e.hi] for e in each])).T
        middle = weights @ values
        apart = (values - middle) ** 2
        below, above = (
            math.sqrt(weights @ ((ends - values) ** 2 + apart)) for ends in (lows, highs)
        )
        notes = dict.fromkeys(note for said in each for note in said.warnings)
        listed = ", ".join(f"{name} {w:.0%}" for name, w in self.weights.items())
        basis = f"average of {listed}; of {self.best.form}: {self.best.forecast(at, level).basis}"
        value, lo, hi = (math.exp(end) for end in (middle, middle - below, middle + above))
        return Expected(value, lo, hi, level, tuple(notes), each[0].reach, basis)


def _missed(fits: Mapping[str, Fit]) -> dict[str, float]:
    """Median error of the forecasts that all forms made which made any: one that needs more points
    has fewer origins, and a lucky one would else count most."""
    made = {}
    for name, fit in fits.items():
        if fit.backtest is not None and fit.outlook is not None:
            trials = fit.outlook.trials
            keys = zip(trials.axis, trials.origin, trials.place, trials.run)
            made[name] = dict(zip(keys, np.abs(trials.error).tolist()))
    shared = set.intersection(*map(set, made.values())) if made else set()
    return {
        name: float(np.median([errors[key] for key in shared or errors]))
        for name, errors in made.items()
    }


def average(fits: Mapping[str, Fit]) -> Averaged:
    """Forms fitted to the same points, as `compare` returns them, each weighted by the inverse
    square of what its forecasts of hidden points missed by; those that could not be back-tested
    only where none could, and then equally. A form without an interval, for want of points, counts
    only where none has one."""
    assert fits, "an average of something"
    fitted = {name: fit for name, fit in fits.items() if np.isfinite(fit.natural).all()} or fits
    sure = {name: fit for name, fit in fitted.items() if fit.outlook is not None} or fitted
    missed = _missed(sure) or dict.fromkeys(sure, 1.0)
    worth = {name: max(error, LEAST_ERROR) ** -2 for name, error in missed.items()}
    total = sum(worth.values())
    return Averaged(dict(fits), {name: w / total for name, w in worth.items()})
