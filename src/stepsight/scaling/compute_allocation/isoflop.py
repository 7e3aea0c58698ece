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
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stepsight.errors import UserError
from stepsight.scaling.plain import plain

Array = NDArray[np.float64]
LEVEL = 0.95
MIN_SIZES = 3  # distinct sizes that determine a parabola
SPARE_SIZES = 5  # from which on a cubic term can be judged
MIN_BUDGETS = 2
MIN_DECADES = 2.0
SUM_TOLERANCE = 0.02  # of a + b about 1
ROUNDING = 1e-9


@dataclass(frozen=True)
class Profile:
    """The runs of one budget and the lowest point of their parabola."""

    budget: float
    params: float  # N*; nan where the parabola has no lowest point
    samples: float  # D*
    loss: float
    n: int
    sizes: tuple[float, float]  # smallest and largest N
    inside: bool  # whether N* lies between them
    shift: float  # relative change of N* by a cubic term; nan where that is not determined


@dataclass(frozen=True)
class Isoflop:
    """Profiles and the laws N* = G C^a, D* = H C^b through those whose optimum lies inside."""

    profiles: tuple[Profile, ...]
    a: float
    G: float
    b: float
    H: float
    intervals: dict[str, tuple[float, float]]  # of a and b, residual bootstrap
    level: float
    budgets: tuple[float, float]  # of the profiles used
    warnings: tuple[str, ...]

    def params(self, budget: float) -> float:
        """N* at a budget."""
        return self.G * budget**self.a

    def samples(self, budget: float) -> float:
        """D* at a budget."""
        return self.H * budget**self.b

    def to_dict(self) -> dict[str, Any]:
        """For JSON: nan and infinity become None."""
        return plain(asdict(self))


@dataclass(frozen=True)
class _Runs:
    """The runs of one budget as columns "n"."""

    budget: float
    params: Array
    samples: Array
    loss: Array


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
    residuals of every parabola (not what parabolas miss); `bootstrap=0` gives none.

    Raises:
        UserError: a number is not positive, or fewer than two budgets have an optimum.
    """
    runs = _by_budget(*(_positive(*one) for one in zip(_NAMES, (budget, params, samples, loss))))
    found = [_profile(one) for one in runs]
    used = [place for place, one in enumerate(found) if one.inside]
    if len(used) < MIN_BUDGETS:
        raise UserError(
            f"{len(used)} of {len(runs)} budgets have an optimum inside their range of sizes; a "
            f"law needs {MIN_BUDGETS}. Train larger and smaller models at the same budgets."
        )
    a, G, b, H = _laws([found[place] for place in used])
    kept = [runs[place] for place in used]
    rng = np.random.default_rng(seed)
    draws = [drawn for _ in range(bootstrap) if (drawn := _redrawn(kept, rng)) is not None]
    tail = (1 - level) / 2
    ends = np.quantile(draws, [tail, 1 - tail], axis=0).T if draws else np.full((4, 2), math.nan)
    return Isoflop(
        profiles=tuple(found),
        a=a,
        G=G,
        b=b,
        H=H,
        intervals={name: (float(lo), float(hi)) for name, (lo, hi) in zip("ab", ends[[0, 2]])},
        level=level,
        budgets=(kept[0].budget, kept[-1].budget),
        warnings=tuple(_warnings(found, used, a + b)),
    )


_NAMES = ("budget", "parameters", "samples", "loss")


def _positive(name: str, values: ArrayLike) -> Array:
    array = np.asarray(values, dtype=float)
    assert array.ndim == 1
    if bad := int(np.sum(~(np.isfinite(array) & (array > 0)))):
        raise UserError(f"{bad} of {len(array)} values of {name} are not positive numbers.")
    return array


def _by_budget(budget: Array, params: Array, samples: Array, loss: Array) -> list[_Runs]:
    """In order of budget."""
    groups = [(float(one), budget == one) for one in np.unique(budget)]
    return [_Runs(one, params[own], samples[own], loss[own]) for one, own in groups]


def _profile(runs: _Runs) -> Profile:
    u = np.log(runs.params)
    lowest = _lowest(u, runs.loss)
    if lowest is None:
        at = samples = loss = math.nan
    else:
        at, loss = lowest
        samples = math.exp(_line(u, np.log(runs.samples), at))
    return Profile(
        budget=runs.budget,
        params=math.exp(at),
        samples=samples,
        loss=loss,
        n=len(u),
        sizes=(float(runs.params.min()), float(runs.params.max())),
        inside=bool(u.min() <= at <= u.max()),
        shift=_shift(u, runs.loss, at),
    )


def _lowest(u: Array, loss: Array) -> tuple[float, float] | None:
    """Where the parabola is lowest, and its value there; None where it has no lowest point."""
    if len(np.unique(u)) < MIN_SIZES:
        return None
    centre = u.mean()
    bend, slope, level = np.polyfit(u - centre, loss, 2)
    if not bend * np.ptp(u) ** 2 > ROUNDING * level:
        return None
    return float(centre - slope / (2 * bend)), float(level - slope**2 / (4 * bend))


def _line(u: Array, v: Array, at: float) -> float:
    """Straight line through v of u, at a place: along a budget N D is nearly constant."""
    centre = u.mean()
    slope, level = np.polyfit(u - centre, v, 1)
    return float(level + slope * (at - centre))


def _shift(u: Array, loss: Array, at: float) -> float:
    """Relative change of N* where the parabola gets a cubic term."""
    if len(np.unique(u)) < SPARE_SIZES or not math.isfinite(at):
        return math.nan
    centre = u.mean()
    cubic, bend, slope, _ = np.polyfit(u - centre, loss, 3)
    root = bend**2 - 3 * cubic * slope
    if not (root > 0 and bend > 0):
        return math.nan
    # The minimum of the cubic, written so that it is the parabola's where the cubic term vanishes.
    return math.exp(centre - slope / (bend + math.sqrt(root)) - at) - 1


def _laws(profiles: Sequence[Profile]) -> tuple[float, float, float, float]:
    """a, G, b, H by least squares in logs."""
    log_c = np.log([one.budget for one in profiles])
    a, log_g = np.polyfit(log_c, np.log([one.params for one in profiles]), 1)
    b, log_h = np.polyfit(log_c, np.log([one.samples for one in profiles]), 1)
    return float(a), math.exp(log_g), float(b), math.exp(log_h)


def _redrawn(runs: Sequence[_Runs], rng: np.random.Generator) -> tuple[float, ...] | None:
    """The laws where every run's loss is its parabola's plus a residual drawn anew, widened by
    sqrt(n / (n - 3)); None where too few optima remain inside."""
    found = [_profile(_with_loss(one, rng)) for one in runs]
    inside = [one for one in found if one.inside]
    return _laws(inside) if len(inside) >= MIN_BUDGETS else None


def _with_loss(runs: _Runs, rng: np.random.Generator) -> _Runs:
    u, n = np.log(runs.params), len(runs.loss)
    curve = np.polyval(np.polyfit(u - u.mean(), runs.loss, 2), u - u.mean())
    scatter = (runs.loss - curve) * math.sqrt(n / max(n - 3, 1))
    return _Runs(runs.budget, runs.params, runs.samples, curve + rng.choice(scatter, size=n))


def _warnings(found: Sequence[Profile], used: Sequence[int], total: float) -> list[str]:
    notes = []
    out = [f"{one.budget:.3g}" for place, one in enumerate(found) if place not in used]
    if out:
        notes.append(f"no optimum inside the range of sizes, left out: {', '.join(out)}")
    chosen = [found[place] for place in used]
    exact = [f"{one.budget:.3g}" for one in chosen if one.n == MIN_SIZES]
    if exact:
        notes.append(f"three runs make a parabola whatever they are: {', '.join(exact)}")
    decades = math.log10(chosen[-1].budget / chosen[0].budget)
    if decades < MIN_DECADES:
        notes.append(f"budgets span {decades:.1f} decades; exponents need two or more")
    if abs(total - 1) > SUM_TOLERANCE:
        notes.append(f"a + b = {total:.3f}: the budgets are no fixed multiple of N D")
    shifts = [one.shift for one in chosen if math.isfinite(one.shift)]
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
