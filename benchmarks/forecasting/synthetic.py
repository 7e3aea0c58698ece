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
