"""Loss-to-loss prediction: one loss of a model from another (Brandfonbrener et al. 2024,
arXiv:2411.12925).

    L1 = K (L0 - E0)^kappa + E1

E0 and E1 are what unlimited training would leave of each loss. They come from elsewhere, and where
from and how well known is kept with the result (`floors`); one that is not known is *fitted*, as
the authors do (`floored`). What forecasts beyond the pairs are worth is tried on the pairs
themselves (`backtest`).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stepsight.errors import UserError
from stepsight.scaling.fitting.form import Array, positive
from stepsight.scaling.fitting.quality import (
    AT_BOUND,
    LAW_R2,
    MIN_DECADES,
    SPARE_POINTS,
    Expected,
    Verdict,
    r_squared,
    stopped_at,
)
from stepsight.scaling.fitting.resampling import MIN_RUNS, Ends, percentiles
from stepsight.scaling.intervals import LEVEL
from stepsight.scaling.laws.backtest import Backtest
from stepsight.scaling.loss_to_loss.backtest import backtest, reaches
from stepsight.scaling.loss_to_loss.floored import FORMULA, MAX_KAPPA, PARAMETERS, relation_at
from stepsight.scaling.loss_to_loss.floors import Floor, Floors, Origin, checked
from stepsight.scaling.loss_to_loss.solving import Solution, solve, stretched
from stepsight.scaling.plain import plain

RESAMPLES = 1000  # cheap, and ends at 95 % of fewer depend on luck
ADVICE = " Leave these pairs out, or use an error such as 1 - delta1."
MAX_BEND = 0.25  # of kappa, that the local exponent may change by over the pairs of a law
FLOOR_END = 1e-6  # of the smallest loss, below which the search of a floor ends there
MIN_HITS = 0.5  # of the hidden pairs, that must have been inside their intervals


@dataclass(frozen=True)
class Relation:
    """A fitted relation and what it is worth. Unknown numbers are nan."""

    formula: str
    K: float
    kappa: float
    E0: float
    E1: float
    floors: dict[str, Origin]  # where E0 and E1 are known from
    deviations: dict[str, float]  # standard, of E0 and E1; none of one that was fitted
    intervals: dict[str, Ends]  # percentile bootstrap, with the floors' uncertainty
    level: float
    resampling: str  # what the bootstrap drew: pairs, runs, or none
    r2: float  # of y
    n: int
    x_range: tuple[float, float]
    warnings: tuple[str, ...]
    verdict: Verdict
    solution: Solution = field(repr=False, compare=False)
    backtest: Backtest | None = None  # None: too few pairs to hide any
    widening: float = 1.0  # of intervals beyond the pairs, by the back-test

    def predict(self, x: ArrayLike) -> Array:
        """y at `x` (any shape); at or below E0 it is E1."""
        return relation_at(self.solution.theta, np.asarray(x, dtype=float))

    def forecast(self, x: float) -> Expected:
        """One new y at `x`, with an interval that holds both what is unsure about the parameters
        and floors and the scatter of the pairs about the curve (`predictive`); beyond the pairs
        wider by what the back-test found. `reach` is how often the reducible part of x fits into
        that of the nearest pair, beyond the largest x the other way round.

        Raises:
            UserError: x is not above a known E0. One that was fitted only warns: it may be wrong.
        """
        if not x > self.E0 and self.floors["E0"] != "fitted":
            raise UserError(
                f"A loss of {x:g} is not above the {self.floors['E0']} floor of x, E0 = "
                f"{self.E0:g}, so nothing is predicted. Either the loss or the floor is wrong."
            )
        lo, hi = self.x_range
        below = float(reaches(lo, np.array(x), self.E0))
        reach = max(below, (x - self.E0) / (hi - self.E0))
        ends = self.solution.ends(x, self.level)
        if not lo <= x <= hi:
            ends = stretched(ends, self.widening)
        notes = self._beyond(x, below)
        return Expected(
            float(self.predict(x)), *ends, self.level, notes, reach, self._basis(reach > 1)
        )

    def _beyond(self, x: float, below: float) -> tuple[str, ...]:
        lo, hi = self.x_range
        if lo <= x <= hi:
            return ()
        beyond = f"extrapolating: x = {x:.4g} lies outside of the pairs ({lo:.4g} to {hi:.4g})"
        if not x > self.E0:
            return (f"{beyond} and below the fitted E0 = {self.E0:.4g}: state a floor",)
        share = (x - self.E0) / ((lo if x < lo else hi) - self.E0)
        notes = [f"{beyond}, its reducible part is {share:.2g} times that of the nearest"]
        if self.backtest and below > self.backtest.reach:
            notes.append(
                f"{below:.2g} times beyond the pairs; the back-test tried {self.backtest.reach:.2g}"
            )
        return tuple(notes)

    def _basis(self, beyond: bool) -> str:
        """What an interval rests on."""
        if not len(self.solution.draws):
            return "no interval: no resamples"
        unsure = [f"{k} +-{v:.2g}" for k, v in self.deviations.items() if v > 0]
        floors = f", floors drawn ({', '.join(unsure)})" if unsure else ""
        basis = f"{len(self.solution.draws)} resamples of {self.resampling}{floors}, scatter"
        if not beyond:
            return basis
        if self.backtest is None:
            return f"{basis}; not back-tested, too few pairs to hide any"
        wider = f"{self.widening:.2g} times as wide" if self.widening > 1 else "not widened"
        tried = f"{self.backtest.hits} of {self.backtest.of} hidden pairs were inside"
        return f"{basis}; {wider}, as {tried}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON: nan and infinity become None; draws and residuals stay behind."""
        row = {key: value for key, value in vars(self).items() if key != "solution"}
        return plain(row | {"backtest": self.backtest and vars(self.backtest)})


def relate(
    x: ArrayLike,
    y: ArrayLike,
    *,
    floor_x: Floor | None = None,
    floor_y: Floor | None = None,
    groups: Sequence[Hashable] | None = None,
    bootstrap: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Relation:
    """Fit the relation to pairs of losses or errors, `x` and `y` "n", positive.

    A floor that is not given is fitted. Intervals resample pairs, or with `groups` (one label a
    pair, e.g. its run) whole groups where there are at least three, and draw the floors as well as
    these are known. `bootstrap=0` gives none; the back-test is run all the same.

    Raises:
        UserError: a loss is not a positive number, or not above its floor.
    """
    xs, ys = (positive(name, values, ADVICE) for name, values in (("x", x), ("y", y)))
    assert xs.shape == ys.shape and 0 < level < 1
    if not len(xs):
        raise UserError("There are no pairs to relate.")
    floors = checked("x", xs, floor_x), checked("y", ys, floor_y)
    distinct, needed = len(np.unique(xs)), 2 + floors.count(None) + SPARE_POINTS
    found = solve(xs, ys, floors, groups, bootstrap if distinct >= needed else 0, seed)
    past, widening = backtest(xs, ys, floors, groups, level, seed)
    relation = Relation(
        FORMULA,
        *found.theta.tolist(),
        floors={
            name: floor.origin if floor else "fitted" for name, floor in zip(("E0", "E1"), floors)
        },
        deviations={
            name: value
            for name, value in zip(("E0", "E1"), found.deviations)
            if math.isfinite(value)
        },
        intervals=dict(zip(PARAMETERS, percentiles(found.draws, level))),
        level=level,
        resampling=found.resampling,
        r2=r_squared(ys, ys - relation_at(found.theta, xs)),
        n=len(xs),
        x_range=(float(xs.min()), float(xs.max())),
        warnings=(),
        verdict="too few points",
        solution=found,
        backtest=past,
        widening=widening,
    )
    if distinct < needed:
        return replace(relation, warnings=(f"too few pairs: {distinct} distinct x of {needed}",))
    denials = _denials(relation, xs, ys)
    notes = _warnings(relation, xs, ys, floors, groups is not None)
    verdict: Verdict = "improves but no law" if denials else "law"
    return replace(relation, warnings=(*denials, *notes), verdict=verdict)


def _denials(relation: Relation, x: Array, y: Array) -> list[str]:
    """Why it is no law: y does not rise with x beyond doubt, the search found no optimum within its
    bounds, R2 of y is below 0.9, the local exponent bends by a quarter above the floors, or most
    hidden pairs were missed."""
    found = []
    if not relation.kappa > AT_BOUND:
        found.append("y does not fall with x")
    elif relation.intervals["kappa"][0] <= 0:
        found.append("kappa may be zero: y need not fall with x")
    found += _unsettled(relation, x, y)
    if not relation.r2 >= LAW_R2:
        found.append(f"R2 {relation.r2:.2f} is below {LAW_R2:g}")
    bends = relation.solution.bends
    ((lo, hi),) = percentiles(bends[:, None], relation.level)
    if (lo > 0 or hi < 0) and abs(middle := float(np.median(bends))) > MAX_BEND:
        found.append(
            f"bends in logs above its floors: the exponent changes by {middle:+.0%} from the "
            "smallest x to the largest"
        )
    past = relation.backtest
    if past and past.hits < MIN_HITS * past.of:
        found.append(
            f"back-test: {past.hits} of {past.of} hidden pairs inside their "
            f"{relation.level:.0%} intervals"
        )
    return found


def _unsettled(relation: Relation, x: Array, y: Array) -> list[str]:
    """What keeps the parameters from being an optimum. A floor of 0 is one: losses end there."""
    found = [] if relation.solution.converged else ["the search did not converge"]
    for name, values in (("E0", x), ("E1", y)):
        fitted = relation.floors[name] == "fitted"
        if fitted and values.min() - getattr(relation, name) <= FLOOR_END * values.min():
            found.append(f"{name} is at its bound the smallest loss")
    if stopped_at(abs(relation.kappa), 0, MAX_KAPPA) == MAX_KAPPA:
        found.append(f"kappa is at its bound {MAX_KAPPA:g}: x hardly changes where y does")
    return found


def _warnings(
    relation: Relation, x: Array, y: Array, floors: Floors, grouped: bool
) -> tuple[str, ...]:
    notes = []
    decades = float(np.log10((x.max() - relation.E0) / (x.min() - relation.E0)))
    fitted = [name for name, origin in relation.floors.items() if origin == "fitted"]
    if fitted and decades < MIN_DECADES:
        notes.append(
            f"{' and '.join(fitted)} fitted over {decades:.1f} decades of reducible x: floors are "
            "barely identified under two, others fit as well and diverge outside of the pairs"
        )
    for name, floor in zip(("E0", "E1"), floors):
        if floor and floor.doubted and name in relation.deviations:
            notes.append(
                f"{name} ({floor.origin}) came without a deviation: +-"
                f"{relation.deviations[name]:.2g} by how far the pairs move it"
            )
    for name, values in (("E0", x), ("E1", y)):
        if name in fitted and stopped_at(getattr(relation, name) / values.min(), 0, 1) == 0:
            notes.append(f"{name} is at its bound 0")
    if grouped and relation.resampling == "pairs":
        notes.append(f"fewer than {MIN_RUNS} runs: intervals resample pairs")
    return tuple(notes)
