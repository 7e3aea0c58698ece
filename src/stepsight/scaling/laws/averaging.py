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

from stepsight.scaling.fitting.quality import Expected, Verdict
from stepsight.scaling.intervals import PREDICTIVE
from stepsight.scaling.laws.backtest import Backtest
from stepsight.scaling.laws.fitted import At, Fit


@dataclass(frozen=True)
class Averaged:
    """A weighted mean of laws, in logs."""

    fits: dict[str, Fit]
    weights: dict[str, float]

    @property
    def best(self) -> Fit:
        """The one of the largest weight."""
        return self.fits[max(self.weights, key=self.weights.__getitem__)]

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
        """The weighted mean of the forecasts, and of their ends, in logs."""
        each = {name: self.fits[name].forecast(at, level) for name in self.weights}
        value, lo, hi = (
            math.exp(
                sum(w * math.log(getattr(each[name], end)) for name, w in self.weights.items())
            )
            for end in ("value", "lo", "hi")
        )
        notes = dict.fromkeys(note for said in each.values() for note in said.warnings)
        first = each[self.best.form]
        return Expected(value, lo, hi, level, tuple(notes), first.reach, first.basis)


def average(fits: Mapping[str, Fit]) -> Averaged:
    """Forms fitted to the same points, as `compare` returns them, weighted by the inverse square
    of their back-test's error; equally where none could be back-tested."""
    assert fits, "an average of something"
    tested = {name: fit for name, fit in fits.items() if fit.backtest is not None}
    worth = {
        name: 1.0 if fit.backtest is None else 1 / max(fit.backtest.error, 1e-6) ** 2
        for name, fit in (tested or dict(fits)).items()
    }
    total = sum(worth.values())
    return Averaged(dict(fits), {name: w / total for name, w in worth.items()})
