"""Loss-to-loss prediction: one loss of a model from another (Brandfonbrener et al. 2024,
arXiv:2411.12925).

    L1 = K (L0 - E0)^kappa + E1

E0 and E1 are what unlimited training would leave of each loss. They come from elsewhere, and where
from is kept with the result: *measured* (the error of a codec's round trip, below which no model
that answers through it can fall) is a stronger statement than *law* (the floor of a fitted
scaling law). A floor that is not known is *fitted*, as the authors do (`floors`).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from stepsight.errors import UserError
from stepsight.scaling.compute_allocation.allocation import TrainingLaw
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
from stepsight.scaling.fitting.resampling import (
    MIN_RUNS,
    UNKNOWN,
    Ends,
    pairs,
    percentiles,
    predictive,
    resampled,
)
from stepsight.scaling.fitting.search import Problem, best_start, minimise, problem
from stepsight.scaling.intervals import LEVEL
from stepsight.scaling.loss_to_loss.floored import (
    FORMULA,
    MARGIN,
    MAX_KAPPA,
    PARAMETERS,
    TINY,
    Floored,
    relation_at,
    straight,
)
from stepsight.scaling.plain import plain

ADVICE = " Leave these pairs out, or use an error such as 1 - delta1."
Origin = Literal["given", "measured", "law", "fitted"]


class Floor(NamedTuple):
    """An irreducible loss, where it is known from, and how well."""

    value: float
    origin: Origin = "given"
    deviation: float = 0.0  # standard; bootstraps draw the floor anew


@dataclass(frozen=True)
class Relation:
    """A fitted relation and what it is worth. Unknown numbers are nan."""

    formula: str
    K: float
    kappa: float
    E0: float
    E1: float
    floors: dict[str, Origin]  # where E0 and E1 are known from
    intervals: dict[str, Ends]  # percentile bootstrap
    level: float
    resampling: str  # what the bootstrap drew: pairs, runs, or none
    r2: float  # of y
    n: int
    x_range: tuple[float, float]
    warnings: tuple[str, ...]
    verdict: Verdict
    residuals: tuple[float, ...]  # log y - log of the prediction, in the order of the pairs
    draws: tuple[tuple[float, ...], ...]  # parameters of the bootstrap

    def predict(self, x: ArrayLike) -> Array:
        """y at `x` (any shape); at or below E0 it is E1."""
        return relation_at(
            np.array([self.K, self.kappa, self.E0, self.E1]), np.asarray(x, dtype=float)
        )

    def forecast(self, x: float) -> Expected:
        """One new y at `x`, with an interval that holds both what is unsure about the parameters
        and the scatter of the pairs about the curve (`predictive`).

        Raises:
            UserError: x is not above a known E0. One that was fitted only warns: it may be wrong.
        """
        if not x > self.E0 and self.floors["E0"] != "fitted":
            raise UserError(
                f"A loss of {x:g} is not above the {self.floors['E0']} floor of x, E0 = "
                f"{self.E0:g}, so nothing is predicted. Either the loss or the floor is wrong."
            )
        ends = UNKNOWN
        if self.draws:
            free = 2 + sum(origin == "fitted" for origin in self.floors.values())
            curves = np.log(np.maximum(relation_at(np.array(self.draws), np.array(x)), TINY))
            ends = predictive(curves, np.array(self.residuals), free, self.level)
        return Expected(float(self.predict(x)), *ends, self.level, self._beyond(x))

    def _beyond(self, x: float) -> tuple[str, ...]:
        lo, hi = self.x_range
        if lo <= x <= hi:
            return ()
        beyond = f"extrapolating: x = {x:.4g} lies outside of the pairs ({lo:.4g} to {hi:.4g})"
        if not x > self.E0:
            return (f"{beyond} and below the fitted E0 = {self.E0:.4g}: state a floor",)
        share = (x - self.E0) / ((lo if x < lo else hi) - self.E0)
        return (f"{beyond}, its reducible part is {share:.2g} times that of the nearest",)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: nan and infinity become None; draws and residuals stay behind."""
        return plain({key: value for key, value in vars(self).items() if key not in _INSIDE})


_INSIDE = ("residuals", "draws")


def relate(
    x: ArrayLike,
    y: ArrayLike,
    *,
    floor_x: Floor | None = None,
    floor_y: Floor | None = None,
    groups: Sequence[Hashable] | None = None,
    bootstrap: int = 200,
    level: float = LEVEL,
    seed: int = 0,
) -> Relation:
    """Fit the relation to pairs of losses or errors, `x` and `y` "n", positive.

    A floor that is not given is fitted. Intervals resample pairs, or with `groups` (one label a
    pair, e.g. its run) whole groups where there are at least three. `bootstrap=0` gives none.

    Raises:
        UserError: a loss is not a positive number, or not above its floor.
    """
    xs, ys = (positive(name, values, ADVICE) for name, values in (("x", x), ("y", y)))
    assert xs.shape == ys.shape and 0 < level < 1
    if not len(xs):
        raise UserError("There are no pairs to relate.")
    floors = _below("x", xs, floor_x), _below("y", ys, floor_y)
    free, distinct = 2 + floors.count(None), len(np.unique(xs))
    needed = free + SPARE_POINTS
    units = _unit(xs), _unit(ys)
    known = tuple(floor and floor.value / unit for floor, unit in zip(floors, units))
    form = Floored(units=units, known=(known[0], known[1]))
    data = problem(form, xs[:, None] / units[0], ys / units[1])
    theta, draws = np.full(4, np.nan), np.empty((0, 4))
    resampler = pairs(data.v, groups)
    if distinct >= free:
        q = _solve(data, floors)
        theta = form.natural(q, data.u)[0]
        count = bootstrap if distinct >= needed else 0
        redrawn = resampled(
            data, resampler, count, seed, lambda kept: len(np.unique(xs[kept])) >= free
        )
        ends = _redrawn(data, len(redrawn.v), form, floors, np.random.default_rng((seed, 1)))
        redrawn = redrawn._replace(lower=ends[0], upper=ends[1])
        draws = form.natural(_solve(redrawn, floors, q), data.u)
    kind = "none" if not len(draws) else "pairs" if resampler.kind == "points" else resampler.kind
    curve = relation_at(theta, xs)
    relation = Relation(
        FORMULA,
        *theta.tolist(),
        floors={
            name: floor.origin if floor else "fitted" for name, floor in zip(("E0", "E1"), floors)
        },
        intervals=dict(zip(PARAMETERS, percentiles(draws, level))),
        level=level,
        resampling=kind,
        r2=r_squared(ys, ys - curve),
        n=len(xs),
        x_range=(float(xs.min()), float(xs.max())),
        warnings=(),
        verdict="too few points",
        residuals=tuple(np.log(ys / np.maximum(curve, TINY)).tolist()),
        draws=tuple(map(tuple, draws.tolist())),
    )
    if distinct < needed:
        return replace(relation, warnings=(f"too few pairs: {distinct} distinct x of {needed}",))
    notes = _warnings(relation, xs, ys, floors, groups is not None)
    return replace(relation, warnings=notes, verdict=_judge(relation))


def translate(law: TrainingLaw, relation: Relation) -> TrainingLaw:
    """The law of the other loss, on the data that the relation leads to (the paper's appendix).

    alpha kappa, beta kappa, A K^(1 / (alpha kappa)), B K^(1 / (beta kappa)), E1. Exact for the
    Kaplan form, whose A and B are scales of N and D; G and the optimal model stay as they are. In
    the Chinchilla form A and B carry their exponents, and become K A^kappa and K B^kappa: exact
    where one of the two terms outweighs the other, in between an approximation.

    Raises:
        UserError: kappa or K is not positive, so that no falling law comes out.
    """
    K, kappa = relation.K, relation.kappa
    if not (K > 0 and kappa > 0):
        raise UserError(f"A relation with K = {K:g}, kappa = {kappa:g} translates no law.")
    alpha, beta = law.alpha * kappa, law.beta * kappa
    if law.form == "kaplan":
        A, B = law.A * K ** (1 / alpha), law.B * K ** (1 / beta)
    else:
        A, B = K * law.A**kappa, K * law.B**kappa
    return replace(law, E=relation.E1, A=A, alpha=alpha, B=B, beta=beta)


def _unit(values: Array) -> float:
    """A power of two near the mean: dividing by it, a known floor stays what it is."""
    return 2.0 ** round(math.log2(values.mean()))


def _below(name: str, values: Array, floor: Floor | None) -> Floor | None:
    if floor and not 0 <= floor.value < values.min():
        raise UserError(
            f"--floor-{name} {floor.value:g} ({floor.origin}) must lie between 0 and the smallest "
            f"{name}, {values.min():g}: a loss below its floor shows that the floor is wrong."
        )
    if floor and not 0 <= floor.deviation < math.inf:
        raise UserError(f"--floor-{name}: a deviation of {floor.deviation:g} is none.")
    return floor


def _solve(data: Problem, floors: Sequence[Floor | None], near: Array | None = None) -> Array:
    """Inner parameters "b 4": straight lines in logs where both floors are known, else searches,
    from `near` if that is given."""
    if None not in floors:
        e0, e1 = np.atleast_2d(data.lower)[:, 2:].T
        return straight(e0, e1, data.u, data.v, data.weights)
    if near is None:
        return best_start(data).q
    return minimise(data, np.repeat(near, len(data.v), axis=0)).q


def _redrawn(
    data: Problem,
    count: int,
    form: Floored,
    floors: Sequence[Floor | None],
    rng: np.random.Generator,
) -> tuple[Array, Array]:
    """Bounds "count 4" each, which hold floors that could be the true ones, below all values."""
    lower, upper = (np.tile(ends, (count, 1)) for ends in (data.lower, data.upper))
    least = data.u.min(), data.v.min()
    for place, (floor, unit, end) in enumerate(zip(floors, form.units, least), start=2):
        if floor:
            drawn = rng.normal(floor.value, floor.deviation, size=count) / unit
            lower[:, place] = upper[:, place] = np.clip(drawn, 0, end * (1 - MARGIN))
    return lower, upper


def _judge(relation: Relation) -> Verdict:
    """law: R2 of y of at least 0.9, kappa positive and its interval above zero."""
    rises = relation.kappa > 0 and not relation.intervals["kappa"][0] <= 0
    return "law" if rises and relation.r2 >= LAW_R2 else "improves but no law"


def _warnings(
    relation: Relation, x: Array, y: Array, floors: Sequence[Floor | None], grouped: bool
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
        if floor and floor.origin == "law" and not floor.deviation:
            notes.append(f"{name} is the floor of a fitted law, taken as exact by the intervals")
    for name, values in (("E0", x), ("E1", y)):
        near = stopped_at(getattr(relation, name) / values.min(), 0, 1)
        if name in fitted and near is not None:
            notes.append(f"{name} is at its bound {'the smallest loss' if near else '0'}")
    if stopped_at(abs(relation.kappa), 0, MAX_KAPPA) == MAX_KAPPA:
        notes.append(f"kappa is at its bound {MAX_KAPPA:g}: x hardly changes where y does")
    if not relation.kappa > AT_BOUND:
        notes.append("y does not fall with x")
    if grouped and relation.resampling == "pairs":
        notes.append(f"fewer than {MIN_RUNS} runs: intervals resample pairs")
    return tuple(notes)
