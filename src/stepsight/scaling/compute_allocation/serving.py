"""Train more, or sample more? The cheapest way to answer Q queries at an error.

Training and sampling compute are exchanged through one error,

    e(N, D, T, M) = L(N, D) + A T^-a + B M^-b,

L the law of training (`allocation`), the rest what T steps and M members leave: the law of two
axes of `surface` and of the form `members`, whose floor is here the error of the trained model.
The sum is an assumption: sampling gains the same on every model. What is paid is

    training + serving = k N D + Q f N T M,

k FLOPs a parameter and sample, f FLOPs a parameter and model call. Where models were measured,
`cheapest_ranges` answers from the measurements instead, without any law.

For given T and M let r be what the target leaves to the inner sum p N^-s + q D^-t of the law. With
phi the share of the parameters in r, N = (p / (phi r))^(1 / s) and D = (q / ((1 - phi) r))^(1 / t),
and the total is least where

    k D (s phi / (t (1 - phi)) - 1) = Q f T M,

whose left side rises with phi from 0, at the compute-optimal share t / (s + t): queries make the
model smaller and its training longer (as in Sardana et al. 2024, arXiv:2401.00448).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from stepsight.errors import UserError
from stepsight.scaling.compute_allocation.allocation import TRAINING_FACTOR, TrainingLaw
from stepsight.scaling.fitting.form import Array
from stepsight.scaling.sampling.frontier import pareto
from stepsight.scaling.sampling.interpolation import Setting

LEAST: Setting = (1, 1)
MOST: Setting = (200, 64)
PASSES = 3  # of a training step: forward, backward for inputs, and backward for weights
HALVINGS = 64
DEEPEST = 500.0  # log of the smallest share of the samples that is looked at
MAX_QUERIES = 1e30  # a break-even beyond is none
SAME = 1e-12  # relative difference of totals that is rounding


@dataclass(frozen=True)
class SamplingLaw:
    """What T steps and M members leave: A T^-a + B M^-b, vanishing for unlimited sampling."""

    A: float
    a: float
    B: float
    b: float

    @classmethod
    def of(cls, constants: dict[str, Any]) -> SamplingLaw:
        """From numbers by name, such as the `params` of a fit of the form `members`.

        Raises:
            UserError: one is missing or negative.
        """
        names = ("A", "a", "B", "b")
        wrong = [name for name in names if not constants.get(name, -1.0) >= 0]
        if wrong:
            raise UserError(
                f"A law of sampling needs {', '.join(names)} of A T^-a + B M^-b, none negative; "
                f"{', '.join(wrong)} is missing or is."
            )
        return cls(*(float(constants[name]) for name in names))

    def excess(self, steps: ArrayLike, members: ArrayLike) -> Array:
        """Above the error of unlimited sampling."""
        t, m = np.asarray(steps, dtype=float), np.asarray(members, dtype=float)
        return self.A * t**-self.a + self.B * m**-self.b


class Deployment(NamedTuple):
    """A model, how it is sampled, and what all of it costs in FLOPs."""

    params: float
    samples: float
    steps: int
    members: int
    training: float
    serving: float
    total: float


@dataclass(frozen=True)
class CheapestServing:
    """The cheapest deployment, and the cheapest that samples as little as allowed."""

    target: float
    queries: float
    best: Deployment
    least: Deployment | None  # at the least sampling; None where no training reaches the target
    break_even: float | None  # queries from which on the least sampling is cheapest; None: never
    warnings: tuple[str, ...]


class _Prices(NamedTuple):
    target: float
    train: float  # k
    call: float  # f


def serve(
    law: TrainingLaw,
    sampling: SamplingLaw,
    target: float,
    queries: float,
    *,
    factor: float = TRAINING_FACTOR,
    query_factor: float | None = None,
    least: Setting = LEAST,
    most: Setting = MOST,
) -> CheapestServing:
    """The cheapest deployment that reaches the error `target` for `queries` answers.

    factor: training FLOPs a parameter and sample; query_factor: FLOPs a parameter and model call,
    by default a third of it. Steps and members are whole numbers between `least` and `most`.

    Below the break-even it pays to sample more than `least`, above it to train more. There is at
    most one: where two settings cost the same, the one that samples more has the larger share of
    serving in the total, hence grows faster with the queries.

    Raises:
        UserError: no training reaches the target even with the most sampling, or a number is not
            what it should be.
    """
    _check(target, queries, factor, query_factor, least, most)
    prices = _Prices(target, factor, query_factor or factor / PASSES)
    settings = _worth(sampling, least, most)
    left = target - law.E - sampling.excess(*settings)
    if not (left > 0).any():
        floor = law.E + float(sampling.excess(*settings).min())
        raise UserError(
            f"An error of {target:g} is out of reach: unlimited training with {most[0]} steps and "
            f"{most[1]} members ends at {floor:g}. Allow more sampling (--most) or a larger error."
        )
    settings, left = settings[:, left > 0], left[left > 0]
    totals = _deploy(law, prices, queries, settings, left)
    best = _deployment(totals, int(np.argmin(totals[-1])))
    only = (settings[0] == least[0]) & (settings[1] == least[1])
    return CheapestServing(
        target=target,
        queries=queries,
        best=best,
        least=_deployment(totals, int(np.argmax(only))) if only.any() else None,
        break_even=_break_even(law, prices, settings, left, only) if only.any() else None,
        warnings=_warnings(best, least, most, bool(only.any())),
    )


def _check(
    target: float,
    queries: float,
    factor: float,
    query_factor: float | None,
    least: Setting,
    most: Setting,
) -> None:
    positive = {"target": target, "factor": factor, "query factor": query_factor or 1.0}
    for name, value in positive.items():
        if not (math.isfinite(value) and value > 0):
            raise UserError(f"The {name} must be a positive number, not {value:g}.")
    if not 0 <= queries <= MAX_QUERIES:
        raise UserError(f"Queries lie between 0 and {MAX_QUERIES:g}, not at {queries:g}.")
    if not all(1 <= lo <= hi for lo, hi in zip(least, most)):
        raise UserError(
            f"Sampling from {least[0]}x{least[1]} to {most[0]}x{most[1]}: steps and members are at "
            "least 1, and the most is no less than the least."
        )


def _worth(sampling: SamplingLaw, least: Setting, most: Setting) -> Array:
    """Steps and members "2 n" that no other setting beats in both calls and error.

    The total rises with the calls and falls with what the target leaves, so none else is best. The
    least sampling is among them: nothing has fewer calls.
    """
    ranges = [np.arange(lo, hi + 1, dtype=float) for lo, hi in zip(least, most)]
    grid = np.stack([axis.ravel() for axis in np.meshgrid(*ranges, indexing="ij")])
    return grid[:, pareto(grid[0] * grid[1], sampling.excess(*grid))]


def _deploy(
    law: TrainingLaw, prices: _Prices, queries: float, settings: Array, left: Array
) -> Array:
    """The fields of `Deployment` at every setting, "7 n"."""
    p, s, q, t, g = law.powers
    rest = left ** (1 / g)
    price = queries * prices.call * settings[0] * settings[1]
    share = np.exp(_share(prices.train, (q, s, t), rest, price))  # of the samples, 1 - phi
    params = (p / ((1 - share) * rest)) ** (1 / s)
    samples = (q / (share * rest)) ** (1 / t)
    training, serving = prices.train * params * samples, price * params
    return np.stack([params, samples, *settings, training, serving, training + serving])


def _share(train: float, constants: tuple[float, float, float], rest: Array, price: Array) -> Array:
    """log(1 - phi) "n" of the stationary point, by bisection of a monotone function in logs."""
    q, s, t = constants
    high = np.full_like(rest, math.log(s / (s + t)))  # compute-optimal, right for no queries
    low = high - DEEPEST
    with np.errstate(divide="ignore"):
        wanted = np.log(price)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            ratio = s * -np.expm1(middle) / (t * np.exp(middle))
            log_samples = (math.log(q) - middle - np.log(rest)) / t
            dear = math.log(train) + log_samples + np.log(np.maximum(ratio - 1, 0)) > wanted
            low, high = np.where(dear, middle, low), np.where(dear, high, middle)
    return high


def _deployment(totals: Array, place: int) -> Deployment:
    params, samples, steps, members, *costs = totals[:, place].tolist()
    return Deployment(params, samples, int(steps), int(members), *costs)


def _break_even(
    law: TrainingLaw, prices: _Prices, settings: Array, left: Array, only: Array
) -> float | None:
    """Queries from which on the setting `only` is the cheapest."""

    def trained(log_queries: float) -> bool:
        totals = _deploy(law, prices, math.exp(log_queries), settings, left)[-1]
        return bool(totals[only][0] <= totals.min() * (1 + SAME))

    low, high = -math.log(MAX_QUERIES), math.log(MAX_QUERIES)
    if only.all():
        return 0.0
    if not trained(high):
        return None
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if trained(middle) else (middle, high)
    return math.exp(high)


def _warnings(best: Deployment, least: Setting, most: Setting, reachable: bool) -> tuple[str, ...]:
    notes = []
    for name, value, limit in (
        ("steps", best.steps, most[0]),
        ("members", best.members, most[1]),
    ):
        if value == limit and dict(steps=least[0], members=least[1])[name] < limit:
            notes.append(f"{name} end at the most allowed, {limit}: more may be cheaper still")
    if not reachable:
        notes.append(f"no training reaches the target with {least[0]} steps and {least[1]} members")
    return tuple(notes)


class QueryRange(NamedTuple):
    """A measured configuration, and for how many queries it is the cheapest."""

    place: int  # in the columns
    start: float
    end: float  # infinite for the last


def cheapest_ranges(
    training: ArrayLike, query: ArrayLike, error: ArrayLike, target: float
) -> list[QueryRange]:
    """Which measured configuration is the cheapest for which number of queries.

    Columns "n" of training cost, cost a query (one unit for both) and error. Of those at or below
    `target`, total costs are lines in the queries, and their lower envelope is walked from zero
    queries on.

    Raises:
        UserError: no configuration reaches the target.
    """
    once, each, errors = (np.asarray(column, dtype=float) for column in (training, query, error))
    assert once.shape == each.shape == errors.shape and once.ndim == 1
    able = np.nonzero((errors <= target) & np.isfinite(once) & np.isfinite(each))[0].tolist()
    if not able:
        raise UserError(
            f"No configuration reaches an error of {target:g}; the best one has "
            f"{np.nanmin(errors):g}."
        )
    place = min(able, key=lambda i: (once[i], each[i]))
    ranges, start = [], 0.0
    while cheaper := [i for i in able if each[i] < each[place]]:
        paid = {i: float((once[i] - once[place]) / (each[place] - each[i])) for i in cheaper}
        following = min(cheaper, key=lambda i: (paid[i], each[i]))
        ranges.append(QueryRange(place, start, paid[following]))
        place, start = following, paid[following]
    return [*ranges, QueryRange(place, start, math.inf)]
