"""What the two dials of test-time compute are worth: a verdict for each, and one for both.

A dial is judged on the points themselves, along the grid's edges: steps with the fewest and with
the most members, members at the fewest and at the most model calls. Which of the two matters is
not known beforehand, as steps alone may hurt where steps with members help.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import nan
from typing import Any, Literal

import numpy as np

from stepsight.scaling.laws.diagnosis import LAW_R2, PLATEAU, Trend, Verdict, judged_from, trend
from stepsight.scaling.laws.fits import compare
from stepsight.scaling.laws.forms import FORMS
from stepsight.scaling.plain import plain
from stepsight.scaling.sampling.interpolation import Points
from stepsight.scaling.sampling.surface import BOOTSTRAP, Surface, fit_surface
from stepsight.scaling.sampling.sweeps import Cell, Family, main_metrics, select

Z95 = 1.959964  # half a 95 % interval in standard errors
RESAMPLES = 20  # of the fit of a dial, of which the sign of the exponent matters
Name = Literal["steps", "members"]
PLACES: tuple[tuple[Name, int, int], ...] = (("steps", 0, 1), ("members", 1, 0))  # in a setting


@dataclass(frozen=True)
class Dial:
    """One dial turned while the other stays."""

    dial: Name
    at: int  # of the other dial
    points: int
    gain: float  # relative fall of the error from the lowest to the highest setting
    form: str  # of the curve that fits best; '' and nan where there are too few points
    exponent: float
    interval: tuple[float, float]  # 95 %, of the exponent
    verdict: Verdict


def dials(points: Points) -> list[Dial]:
    """The verdicts along the edges of the grid; `points` are positive errors by (NFE, members)."""
    found = []
    for name, own, other in PLACES:
        for fixed in _ends(setting[other] for setting in points):
            curve = _edge(points, own, other, fixed)
            if len(curve) > 1:
                found.append(_dial(name, fixed, curve))
    return found


def joint_verdict(points: Points, surface: Surface | None) -> Verdict:
    """The verdict on both dials together, first match in this order.

    * too few points: no surface is determined.
    * not monotone: a dial is, even with the other at its highest.
    * saturated: both dials are, with the other at its highest.
    * law: the surface explains nine tenths of the variance, the interval of A lies above zero, and
      no exponent is at the end of the range searched.
    * improves but no law: everything else.
    """
    if surface is None:
        return "too few points"
    shapes = [_shape(points, own, other) for _, own, other in PLACES]
    if not all(shape.monotone for shape in shapes):
        return "not monotone"
    if all(shape.rate < PLATEAU for shape in shapes):
        return "saturated"
    falls = surface.intervals["A"][0] > 0 and not surface.warnings
    return "law" if surface.r2 >= LAW_R2 and falls else "improves but no law"


def errors_of(cells: Iterable[Cell]) -> dict[tuple[int, int], float]:
    """Errors by (NFE, members); those without a logarithm are left out."""
    return {cell.setting: cell.error for cell in cells if cell.error > 0}


def deviations_of(cells: Iterable[Cell]) -> dict[tuple[int, int], float]:
    """Standard errors of the values by (NFE, members), from their intervals; nan where unknown."""
    return {cell.setting: (cell.hi - cell.lo) / (2 * Z95) for cell in cells}


def by_family(cells: Iterable[Cell]) -> dict[Family, list[Cell]]:
    """Cells that differ in NFE and members alone, in order of appearance."""
    families: dict[Family, list[Cell]] = {}
    for cell in cells:
        families.setdefault(cell.family, []).append(cell)
    return families


def surfaces(cells: Sequence[Cell], *, bootstrap: int = BOOTSTRAP) -> dict[str, dict[str, Any]]:
    """fit.json: for every task its main metric and one object a family.

    An object holds the family, `points`, `verdict`, `dials` and the surface (None where the points
    do not determine one). A metric that is better when higher is fitted as 1 - value.
    """
    found = {}
    for task, metric in main_metrics(cells).items():
        families = by_family(select(cells, task, metric))
        rows = [_row(family, own, bootstrap) for family, own in families.items()]
        found[task] = {"metric": metric, "families": rows}
    return found


def _row(family: Family, cells: Sequence[Cell], bootstrap: int) -> dict[str, Any]:
    points = errors_of(cells)
    surface = fit_surface(points, deviations_of(cells), bootstrap=bootstrap)
    return plain(
        family._asdict()
        | {
            "points": len(points),
            "verdict": joint_verdict(points, surface),
            "dials": [asdict(dial) for dial in dials(points)],
            "surface": asdict(surface) if surface else None,
        }
    )


def _dial(name: Name, at: int, curve: Mapping[int, float]) -> Dial:
    x = sorted(curve)
    y = [curve[one] for one in x]
    gain = 1 - y[-1] / y[0]
    if len(x) < judged_from(FORMS["power"]):
        return Dial(name, at, len(x), gain, "", nan, (nan, nan), "too few points")
    best = next(iter(compare(x, y, bootstrap=RESAMPLES).values()))
    exponent, interval = best.params["a"], best.intervals["a"]
    return Dial(name, at, len(x), gain, best.form, exponent, interval, best.verdict)


def _edge(points: Points, own: int, other: int, fixed: int) -> dict[int, float]:
    """One dial's curve where the other has the value `fixed`."""
    return {setting[own]: error for setting, error in points.items() if setting[other] == fixed}


def _shape(points: Points, own: int, other: int) -> Trend:
    """How the error falls along one dial with the other at its highest."""
    curve = _edge(points, own, other, max(setting[other] for setting in points))
    return trend(np.log(list(curve)), np.log(list(curve.values())))


def _ends(values: Iterable[int]) -> list[int]:
    """The lowest and the highest, once where they are the same."""
    known = set(values)
    return sorted({min(known), max(known)}) if known else []
