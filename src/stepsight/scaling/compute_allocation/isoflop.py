"""IsoFLOP profiles: for each compute budget the best size, and the power laws through the best.

Approach 2 of Hoffmann et al. 2022 (arXiv:2203.15556, sec. 3.2): a parabola of loss in log N through
the runs of one budget, whose lowest point gives N*, D* and the loss; then N* ~ C^a, D* ~ C^b.

Under a law E + A N^-alpha + B D^-beta the profile is a parabola only where alpha = beta. Otherwise
its sides differ, and the lowest point of the parabola lies beside that of the profile, the more the
wider the grid of sizes. Where the grid moves with the optimum that is a constant factor of N*;
where it does not, it is in the exponents too. Each profile therefore says by how much a cubic term
moves its N*, and a joint fit of the law should stand beside the exponents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stepsight.errors import UserError
from stepsight.scaling.fitting.form import Array, Form, positive
from stepsight.scaling.fitting.quality import MIN_DECADES
from stepsight.scaling.fitting.resampling import Ends, percentiles, widened
from stepsight.scaling.fitting.search import Problem, minimise
from stepsight.scaling.intervals import LEVEL
from stepsight.scaling.plain import plain

MIN_SIZES = 3  # distinct sizes that determine a parabola
SPARE_SIZES = 5  # from which on a cubic term can be judged
MIN_BUDGETS = 2
SUM_TOLERANCE = 0.02  # of a + b about 1
ROUNDING = 1e-9


@dataclass(frozen=True)
class Polynomial(Form):
    """Inner parameters are the coefficients, the constant first."""

    def curve(self, q: Array, u: Array) -> Array:
        return q @ self._powers(u).T

    def jacobian(self, q: Array, u: Array) -> Array:
        return np.repeat(self._powers(u)[None], len(q), axis=0)

    def bounds(self, u: Array, v: Array) -> tuple[Array, Array]:
        ends = np.full(len(self.parameters), np.inf)
        return -ends, ends

    def starts(self, u: Array, v: Array) -> Array:
        return np.zeros((1, len(self.parameters)))

    def _powers(self, u: Array) -> Array:
        return u ** np.arange(len(self.parameters))


@dataclass(frozen=True)
class IsoFlopProfile:
    """The runs of one budget and the lowest point of their parabola."""

    budget: float
    params: float  # N*; nan where the parabola has no lowest point
    samples: float  # D*
    loss: float
    n: int
    sizes: Ends  # smallest and largest N
    inside: bool  # whether N* lies between them
    shift: float  # relative change of N* by a cubic term; nan where that is not determined


@dataclass(frozen=True)
class Isoflop:
    """Profiles and the laws N* = G C^a, D* = H C^b through those whose optimum lies inside."""

    profiles: tuple[IsoFlopProfile, ...]
    a: float
    G: float
    b: float
    H: float
    intervals: dict[str, Ends]  # of a, G, b and H, residual bootstrap
    level: float
    budgets: tuple[float, float]  # of the profiles used
    warnings: tuple[str, ...]
    draws: tuple[tuple[float, ...], ...] = field(default=(), repr=False)  # a, log G, b, log H

    def params(self, budget: float) -> float:
        """N* at a budget."""
        return self.G * budget**self.a

    def samples(self, budget: float) -> float:
        """D* at a budget."""
        return self.H * budget**self.b

    def optimum(self, budget: float) -> dict[str, Any]:
        """N* and D* at a budget with their intervals, and how far beyond the profiles it lies."""
        a, log_g, b, log_h = np.reshape(self.draws, (-1, 4)).T
        sizes = np.exp([log_g + a * math.log(budget), log_h + b * math.log(budget)]).T
        ends = percentiles(sizes, self.level)
        return {
            "budget": budget,
            "params": self.params(budget),
            "samples": self.samples(budget),
            "params_interval": ends[0],
            "samples_interval": ends[1],
            "level": self.level,
            "reach": budget / self.budgets[1],
        }

    def to_dict(self) -> dict[str, Any]:
        """For JSON: nan and infinity become None; draws stay behind."""
        return plain({name: value for name, value in asdict(self).items() if name != "draws"})


def isoflop(
    budget: ArrayLike,
    params: ArrayLike,
    samples: ArrayLike,
    loss: ArrayLike,
    *,
    bootstrap: int = 200,
    level: float = LEVEL,
    seed: int = 0,
) -> Isoflop:
    """Profiles and laws of runs, columns "n": FLOPs, parameters, samples and loss, all positive.

    `budget` is the nominal one: runs of one profile hold the same number. Intervals redraw the
    residuals of every parabola (not what parabolas miss); `bootstrap=0` gives none, and nor do
    budgets of three runs alone, which leave no residuals.

    Raises:
        UserError: a number is not positive, or fewer than two budgets have an optimum.
    """
    columns = [positive(*column) for column in zip(_NAMES, (budget, params, samples, loss))]
    runs = _Runs(*columns)
    profiles = _profiles(runs)
    used = [profile.inside for profile in profiles]
    if sum(used) < MIN_BUDGETS:
        raise UserError(
            f"{sum(used)} of {len(used)} budgets have an optimum inside their range of sizes; a "
            f"law needs {MIN_BUDGETS}. Train larger and smaller models at the same budgets."
        )
    kept = _Runs(*(column[np.isin(runs.budget, runs.budgets[used])] for column in columns))
    ((a, log_g, b, log_h),) = _laws(kept, kept.loss[None]).tolist()
    draws = _laws(kept, _redrawn(kept, bootstrap, seed))
    ends = percentiles(np.where([False, True] * 2, np.exp(draws), draws), level)
    return Isoflop(
        profiles=tuple(profiles),
        a=a,
        G=math.exp(log_g),
        b=b,
        H=math.exp(log_h),
        intervals=dict(zip(("a", "G", "b", "H"), ends)),
        level=level,
        budgets=(float(kept.budgets[0]), float(kept.budgets[-1])),
        warnings=tuple(_warnings(profiles, a + b)),
        draws=tuple(map(tuple, draws.tolist())),
    )


_NAMES = ("budget", "parameters", "samples", "loss")


class _Runs:
    """Runs as columns "n", and the budgets "b" that they are of."""

    def __init__(self, budget: Array, params: Array, samples: Array, loss: Array) -> None:
        self.budget, self.loss = budget, loss
        self.budgets, owner = np.unique(budget, return_inverse=True)
        self.places = [np.flatnonzero(owner == i) for i in range(len(self.budgets))]
        self.member = (owner == np.arange(len(self.budgets))[:, None]).astype(float)  # "b n"
        self.centre = self.member @ np.log(params) / self.member.sum(axis=1)
        self.u = np.log(params) - self.centre[owner]
        self.distinct = np.array([len(np.unique(params[place])) for place in self.places])
        self.sizes = [(params[place].min(), params[place].max()) for place in self.places]
        self.low, self.high = np.log(self.sizes).T - self.centre
        # Along a budget N D is nearly constant, and so log D a line.
        self.log_samples = _fitted(1, self.u, np.log(samples)[None], self.member)[0]

    def lowest(self, loss: Array) -> tuple[Array, Array]:
        """Where the parabola of each budget is lowest, as `u`, and its value there, of losses "m n"
        -> "m b"; nan where it has no lowest point."""
        level, slope, bend = np.moveaxis(_fitted(2, self.u, loss, self.member), 2, 0)
        curved = bend * (self.high - self.low) ** 2 > ROUNDING * level
        bend = np.where(curved & (self.distinct >= MIN_SIZES), bend, np.nan)
        return -slope / (2 * bend), level - slope**2 / (4 * bend)


def _fitted(degree: int, u: Array, v: Array, weights: Array) -> Array:
    """Coefficients "m b k" of polynomials through `u` "n" and `v` "m n" under weights "b n"."""
    form = Polynomial("polynomial", "y = c0 + c1 u + ...", tuple("abcd"[: degree + 1]))
    rows = np.repeat(v, len(weights), axis=0), np.tile(weights, (len(v), 1))
    data = Problem(form, u[:, None], *rows, math.inf, *form.bounds(u, v))
    q = minimise(data, np.repeat(form.starts(u, v), len(rows[0]), axis=0)).q
    return q.reshape(len(v), len(weights), degree + 1)


def _profiles(runs: _Runs) -> list[IsoFlopProfile]:
    (at,), (loss,) = runs.lowest(runs.loss[None])
    level, slope = runs.log_samples.T
    columns = {
        "budget": runs.budgets,
        "params": np.exp(runs.centre + at),
        "samples": np.exp(level + slope * at),
        "loss": loss,
        "n": [len(place) for place in runs.places],
        "sizes": runs.sizes,
        "inside": (runs.low <= at) & (at <= runs.high),
        "shift": _shifts(runs, at),
    }
    rows = zip(*(np.asarray(column).tolist() for column in columns.values()))
    return [IsoFlopProfile(**dict(zip(columns, row))) for row in rows]


def _shifts(runs: _Runs, at: Array) -> Array:
    """Relative changes of N* "b" where the parabola gets a cubic term."""
    _, slope, bend, cubic = _fitted(3, runs.u, runs.loss[None], runs.member)[0].T
    root = bend**2 - 3 * cubic * slope
    root = np.where((runs.distinct >= SPARE_SIZES) & (root > 0) & (bend > 0), root, np.nan)
    # The minimum of the cubic, written so that it is the parabola's where the cubic term vanishes.
    return np.expm1(-slope / (bend + np.sqrt(root)) - at)


def _laws(runs: _Runs, loss: Array) -> Array:
    """a, log G, b, log H of losses "m n" -> "m 4", by least squares in logs through the optima that
    lie inside; rows without enough of them are left out."""
    at = runs.lowest(loss)[0]
    inside = (runs.low <= at) & (at <= runs.high)
    level, slope = runs.log_samples.T
    log_c, laws = np.log(runs.budgets), []
    for row, on in zip(at, inside):
        if on.sum() >= MIN_BUDGETS:
            sizes = (runs.centre + row)[on], (level + slope * row)[on]
            laws.append(np.polyfit(log_c[on], np.transpose(sizes), 1).T.ravel())
    return np.reshape(laws, (-1, 4))


def _redrawn(runs: _Runs, count: int, seed: int) -> Array:
    """Losses "count n": every run's parabola plus a residual of its budget drawn anew, widened by
    sqrt(n / (n - 3)). Three runs leave none: they get the relative ones of the other budgets; none
    are drawn where no budget has any."""
    parabolas = _fitted(2, runs.u, runs.loss[None], runs.member)[0]
    curve = np.sum(runs.member * (parabolas @ runs.u ** np.arange(3)[:, None]), axis=0)
    around = [widened((runs.loss - curve)[place], MIN_SIZES) for place in runs.places]
    spare = [len(place) > MIN_SIZES for place in runs.places]
    if not any(spare):
        return np.empty((0, len(curve)))
    levels = [curve[place].mean() for place in runs.places]
    pool = np.concatenate([own / level for own, level, on in zip(around, levels, spare) if on])
    around = [own if on else level * pool for own, level, on in zip(around, levels, spare)]
    rng, losses = np.random.default_rng(seed), np.tile(curve, (count, 1))
    for loss in losses:
        for place, scatter in zip(runs.places, around):
            loss[place] += rng.choice(scatter, size=len(place))
    return losses


def _warnings(profiles: Sequence[IsoFlopProfile], total: float) -> list[str]:
    notes = []
    out = [f"{profile.budget:.3g}" for profile in profiles if not profile.inside]
    if out:
        notes.append(f"no optimum inside the range of sizes, left out: {', '.join(out)}")
    chosen = [profile for profile in profiles if profile.inside]
    exact = [f"{profile.budget:.3g}" for profile in chosen if profile.n == MIN_SIZES]
    if exact:
        scatter = "their scatter is taken from other budgets"
        if len(exact) == len(chosen):
            scatter = "nothing tells their scatter, so there are no intervals"
        notes.append(f"three runs make a parabola whatever they are: {', '.join(exact)}; {scatter}")
    decades = math.log10(chosen[-1].budget / chosen[0].budget)
    if decades < MIN_DECADES:
        notes.append(f"budgets span {decades:.1f} decades; exponents need two or more")
    if abs(total - 1) > SUM_TOLERANCE:
        notes.append(f"a + b = {total:.3f}: the budgets are no fixed multiple of N D")
    shifts = [profile.shift for profile in chosen if math.isfinite(profile.shift)]
    moved = (
        f"a cubic term moves N* by {np.median(shifts):+.0%} in the median"
        if shifts
        else "no profile has sizes enough to judge by a cubic term"
    )
    notes.append(
        "parabolas are exact only for alpha = beta and otherwise biased, more on wide grids "
        f"({moved}): fit the law itself beside them"
    )
    return notes
