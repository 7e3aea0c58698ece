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
from numpy.typing import ArrayLike, NDArray

from stepsight.errors import UserError
from stepsight.scaling.compute_allocation.allocation import TrainingLaw
from stepsight.scaling.loss_to_loss.floors import (
    COARSE,
    GRID,
    MARGIN,
    MAX_KAPPA,
    TINY,
    relation_at,
    solve,
)
from stepsight.scaling.plain import plain

Array = NDArray[np.float64]
Origin = Literal["given", "measured", "law", "fitted"]
Verdict = Literal["law", "no law", "too few pairs"]

LEVEL = 0.95
PARAMETERS = ("K", "kappa", "E0", "E1")
SPARE_PAIRS = 2  # distinct x beyond the number of parameters
MIN_RUNS = 3  # fewer say nothing of the scatter between runs
MIN_DECADES = 2.0  # of reducible loss, below which floors are barely identified
LAW_R2 = 0.9
AT_BOUND = 1e-3


class Floor(NamedTuple):
    """An irreducible loss, where it is known from, and how well."""

    value: float
    origin: Origin = "given"
    deviation: float = 0.0  # standard; bootstraps draw the floor anew


@dataclass(frozen=True)
class Forecast:
    """What to expect of one new pair. Unknown ends are nan."""

    at: float
    value: float
    lo: float
    hi: float
    level: float
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Relation:
    """A fitted relation and what it is worth. Unknown numbers are nan."""

    formula: str
    K: float
    kappa: float
    E0: float
    E1: float
    floors: dict[str, Origin]  # where E0 and E1 are known from
    intervals: dict[str, tuple[float, float]]  # percentile bootstrap
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

    def forecast(self, x: float) -> Forecast:
        """One new y at `x`, with an interval that holds both what is unsure about the parameters
        and the scatter of the pairs about the curve, widened by sqrt(n / (n - k)).

        Raises:
            UserError: x is not above a known E0. One that was fitted only warns: it may be wrong.
        """
        if not x > self.E0 and self.floors["E0"] != "fitted":
            raise UserError(
                f"A loss of {x:g} is not above the {self.floors['E0']} floor of x, E0 = "
                f"{self.E0:g}, so nothing is predicted. Either the loss or the floor is wrong."
            )
        lo = hi = math.nan
        if self.draws:
            free = 2 + sum(origin == "fitted" for origin in self.floors.values())
            scatter = np.array(self.residuals) * math.sqrt(self.n / max(self.n - free, 1))
            curves = np.array([relation_at(np.array(draw), np.array(x)) for draw in self.draws])
            tail = (1 - self.level) / 2
            ends = np.quantile(np.outer(curves, np.exp(scatter)), [tail, 1 - tail])
            lo, hi = ends.tolist()
        return Forecast(float(x), float(self.predict(x)), lo, hi, self.level, self._beyond(x))

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


FORMULA = "y = K (x - E0)^kappa + E1"
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
    xs, ys = _positive("x", x), _positive("y", y)
    assert xs.shape == ys.shape and 0 < level < 1
    floors = tuple(_below(*one) for one in (("x", xs, floor_x), ("y", ys, floor_y)))
    free = 2 + floors.count(None)
    origins: dict[str, Origin] = {
        name: floor.origin if floor else "fitted" for name, floor in zip(("E0", "E1"), floors)
    }
    distinct = len(np.unique(xs))
    enough = distinct >= free + SPARE_PAIRS
    known = tuple(floor.value if floor else None for floor in floors)
    theta = solve(xs, ys, known, GRID) if distinct >= free else np.full(4, np.nan)
    blocks, kind = _blocks(len(xs), groups)
    rng = np.random.default_rng(seed)
    count = bootstrap if enough else 0
    draws = [_draw(xs, ys, floors, free, theta, blocks, rng) for _ in range(count)]
    tail = 100 * (1 - level) / 2
    ends = np.percentile(draws, [tail, 100 - tail], axis=0).T if draws else np.full((4, 2), np.nan)
    intervals = {name: (float(lo), float(hi)) for name, (lo, hi) in zip(PARAMETERS, ends)}
    curve = relation_at(theta, xs)
    found = Relation(
        FORMULA,
        *theta.tolist(),
        floors=origins,
        intervals=intervals,
        level=level,
        resampling=kind if draws else "none",
        r2=_r2(ys, curve),
        n=len(xs),
        x_range=(float(xs.min()), float(xs.max())),
        warnings=(),
        verdict="too few pairs",
        residuals=tuple(np.log(ys / np.maximum(curve, TINY)).tolist()),
        draws=tuple(tuple(draw.tolist()) for draw in draws),
    )
    if not enough:
        needed = free + SPARE_PAIRS
        return replace(found, warnings=(f"too few pairs: {distinct} distinct x of {needed}",))
    notes = _warnings(found, xs, ys, floors, groups is not None)
    return replace(found, warnings=notes, verdict=_judge(found))


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


def _positive(name: str, values: ArrayLike) -> Array:
    array = np.asarray(values, dtype=float)
    assert array.ndim == 1
    if not len(array):
        raise UserError("There are no pairs to relate.")
    if bad := int(np.sum(~(np.isfinite(array) & (array > 0)))):
        raise UserError(
            f"{bad} of {len(array)} values of {name} are not positive numbers. Leave these pairs "
            "out, or use an error such as 1 - delta1."
        )
    return array


def _below(name: str, values: Array, floor: Floor | None) -> Floor | None:
    if floor and not 0 <= floor.value < values.min():
        raise UserError(
            f"--floor-{name} {floor.value:g} ({floor.origin}) must lie between 0 and the smallest "
            f"{name}, {values.min():g}: a loss below its floor shows that the floor is wrong."
        )
    if floor and not 0 <= floor.deviation < math.inf:
        raise UserError(f"--floor-{name}: a deviation of {floor.deviation:g} is none.")
    return floor


def _r2(y: Array, curve: Array) -> float:
    spread = np.sum((y - y.mean()) ** 2)
    return float(1 - np.sum((y - curve) ** 2) / spread) if spread else math.nan


def _blocks(n: int, groups: Sequence[Hashable] | None) -> tuple[list[NDArray[np.intp]], str]:
    """What is drawn together, as places, and its name."""
    labels = list(dict.fromkeys(groups or ()))
    if len(labels) < MIN_RUNS:
        return list(np.arange(n)[:, None]), "pairs"
    return [np.flatnonzero([own == label for own in groups or ()]) for label in labels], "runs"


def _draw(
    x: Array,
    y: Array,
    floors: Sequence[Floor | None],
    free: int,
    theta: Array,
    blocks: list[NDArray[np.intp]],
    rng: np.random.Generator,
) -> Array:
    """Parameters of pairs, and of floors, that could have been measured instead."""
    while True:
        chosen = [blocks[i] for i in rng.integers(len(blocks), size=len(blocks))]
        index = np.concatenate(chosen)
        if len(np.unique(x[index])) >= free:  # fewer do not determine a curve
            break
    known = tuple(_redrawn(floor, values, rng) for floor, values in zip(floors, (x, y)))
    return solve(x[index], y[index], known, COARSE, theta)


def _redrawn(floor: Floor | None, values: Array, rng: np.random.Generator) -> float | None:
    """A floor that could be the true one, below all values."""
    if floor is None:
        return None
    drawn = rng.normal(floor.value, floor.deviation)
    return float(np.clip(drawn, 0, values.min() * (1 - MARGIN)))


def _judge(found: Relation) -> Verdict:
    """law: R2 of y of at least 0.9, kappa positive and its interval above zero."""
    rises = found.kappa > 0 and not found.intervals["kappa"][0] <= 0
    return "law" if rises and found.r2 >= LAW_R2 else "no law"


def _warnings(
    found: Relation, x: Array, y: Array, floors: Sequence[Floor | None], grouped: bool
) -> tuple[str, ...]:
    notes = []
    decades = float(np.log10((x.max() - found.E0) / (x.min() - found.E0)))
    fitted = [name for name, origin in found.floors.items() if origin == "fitted"]
    if fitted and decades < MIN_DECADES:
        notes.append(
            f"{' and '.join(fitted)} fitted over {decades:.1f} decades of reducible x: floors are "
            "barely identified under two, others fit as well and diverge outside of the pairs"
        )
    for name, floor in zip(("E0", "E1"), floors):
        if floor and floor.origin == "law" and not floor.deviation:
            notes.append(f"{name} is the floor of a fitted law, taken as exact by the intervals")
    for name, values in (("E0", x), ("E1", y)):
        place = getattr(found, name) / values.min()
        if name in fitted and not AT_BOUND < place < 1 - AT_BOUND:
            notes.append(f"{name} is at its bound {'0' if place < 0.5 else 'the smallest loss'}")
    if abs(found.kappa) > MAX_KAPPA * (1 - AT_BOUND):
        notes.append(f"kappa is at its bound {MAX_KAPPA:g}: x hardly changes where y does")
    if not found.kappa > AT_BOUND:
        notes.append("y does not fall with x")
    if grouped and found.resampling == "pairs":
        notes.append(f"fewer than {MIN_RUNS} runs: intervals resample pairs")
    return tuple(notes)
