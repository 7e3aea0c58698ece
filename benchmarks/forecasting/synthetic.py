"""Truths that are known: how often a new measurement beyond the data lies in its interval.

Points are drawn around a truth with noise, a law is asked for, and a new measurement is drawn at 4
and 16 times the largest place: of several inputs, each of d is taken the d-th root of that times
its own largest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import Pool
from typing import Any

import numpy as np

from benchmarks.forecasting.asking import AVERAGE, Array, Points, Score, asked, forecast

FAR = (4, 16)  # times the largest place
MIDDLE = np.log(10.0)  # of two decades from 1, in logs


@dataclass(frozen=True)
class Case:
    """A truth, where it is measured, and how well."""

    name: str
    truth: Callable[[Array], Array]  # log y of x, "n d"
    x: Array  # "n d"
    noise: float | Array = 0.02  # standard deviation of log y, of each point
    ways: tuple[str, ...] = ("power", AVERAGE)
    runs: Array | None = None  # the run of each point, "n"
    luck: float = 0.0  # standard deviation of log y that the points of a run share
    told: bool = True  # whether the fit is told which points share a run

    def drawn(self, rng: np.random.Generator) -> Points:
        y = self.truth(self.x) + self.noise * rng.standard_normal(len(self.x))
        if self.runs is None:
            return Points(self.x, np.exp(y))
        y += self.luck * rng.standard_normal(self.runs.max() + 1)[self.runs]
        return Points(self.x, np.exp(y), self.runs.tolist() if self.told else None)

    def measured(self, place: Array, rng: np.random.Generator) -> float:
        """A new run at `place`, "d", as noisy as the last points are."""
        deviation = np.hypot(np.broadcast_to(self.noise, len(self.x))[-1], self.luck)
        return float(np.exp(self.truth(place[None])[0] + deviation * rng.standard_normal()))


def _line(points: int, decades: float = 2.0) -> Array:
    return np.geomspace(1, 10**decades, points)[:, None]


def _power(x: Array) -> Array:
    return np.log(2) - 0.3 * np.log(x[:, 0])


def _floor(x: Array) -> Array:
    """A third of the top of the data is floor."""
    return np.log(0.12 + 2.4 * x[:, 0] ** -0.5)


def _broken(x: Array) -> Array:
    """The exponent goes from .1 to .4 within a third of a decade, in the middle of the data."""
    u = np.log(x[:, 0]) - MIDDLE
    return -0.1 * u - 0.3 * 0.2 * np.logaddexp(0, u / 0.2)


def _breaks_later(x: Array) -> Array:
    """The same at twice the largest place: nothing in the data tells."""
    u = np.log(x[:, 0]) - np.log(200.0)
    return -0.1 * u - 0.3 * 0.2 * np.logaddexp(0, u / 0.2)


def _bending(x: Array) -> Array:
    """The exponent rises evenly, from .1 at the lower end to .34 at the upper one."""
    u = np.log(x[:, 0])
    return -0.1 * u - 0.026 * u**2


def _interaction(x: Array) -> Array:
    """The exponent of images rises with size from .2 to .35, as our own ladder's does."""
    n, d = np.log(x[:, 0] / 6e4), np.log(x[:, 1] / 4096)
    return -0.08 * n - 0.2 * d - 0.05 * n * d


def _sum(x: Array) -> Array:
    """Hoffmann's form: no interaction."""
    return np.log(0.02 + 18 * x[:, 0] ** -0.5 + 2.5 * x[:, 1] ** -0.4)


def _ladder() -> Array:
    """Five sizes of four amounts of images each, which grow with the size."""
    sizes = np.array([6e4, 2e5, 3.5e5, 7.5e5, 1.3e6])
    amounts = 4096 * 2.0 ** np.arange(5)
    return np.array([(n, d) for i, n in enumerate(sizes) for d in amounts[i > 1 :][:4]])


def _checkpoints() -> tuple[Array, Array]:
    """Four runs, each four times the one before; of each six checkpoints, doubling."""
    places = [(4.0**run * 2.0**k, run) for run in range(4) for k in range(6)]
    x, runs = zip(*places)
    return np.array(x)[:, None], np.array(runs)


TWO = ("chinchilla", AVERAGE)
CHECKPOINTS, RUNS = _checkpoints()
CASES: tuple[Case, ...] = (
    Case("power, 2 % noise", _power, _line(12)),
    Case("power, 10 % noise", _power, _line(12), 0.1),
    Case("power, 5 to 1 % noise", _power, _line(12), np.geomspace(0.05, 0.01, 12)),
    Case("power, 4 points of one decade", _power, _line(4, 1)),
    Case("power, 6 points of one decade", _power, _line(6, 1)),
    Case("floor", _floor, _line(12), ways=("power_floor", "power", AVERAGE)),
    Case("broken", _broken, _line(16), ways=("bnsl", "power", AVERAGE)),
    Case("bending, 1 % noise", _bending, _line(12), 0.01),
    Case("chinchilla", _sum, _ladder(), ways=TWO),
    Case("interaction of size and images", _interaction, _ladder(), ways=TWO),
    Case("checkpoints of 4 runs", _power, CHECKPOINTS, 0.005, runs=RUNS, luck=0.02),
    Case("the same, runs not told", _power, CHECKPOINTS, 0.005, runs=RUNS, luck=0.02, told=False),
    Case("breaks beyond the data", _breaks_later, _line(12)),
)


def measured(
    draws: int, cases: Sequence[Case] = (), seed: int = 0, processes: int = 1
) -> Iterator[dict[str, Any]]:
    """A row for each of the cases, by default all, and every way of asking."""
    asking = [(case, way, draws, seed) for case in cases or CASES for way in case.ways]
    if processes == 1:
        yield from map(_row, asking)
    else:
        with Pool(processes) as pool:
            yield from pool.imap(_row, asking)


def _row(asking: tuple[Case, str, int, int]) -> dict[str, Any]:
    case, way, draws, seed = asking
    scores = {far: Score() for far in FAR}
    for draw in range(draws):
        rng = np.random.default_rng([seed, draw])
        answer = asked(case.drawn(rng), way)
        for far, score in scores.items():
            place = case.x.max(axis=0) * far ** (1 / case.x.shape[1])
            outcome = case.measured(place, rng)
            score.add(answer.verdict, forecast(answer, place), outcome)
    found = {f"at_{far}": score.row() for far, score in scores.items()}
    return {"case": case.name, "way": way, "draws": draws, **found}
