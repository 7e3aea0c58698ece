"""What the two axes of test-time compute are worth: a verdict for each, and one for both.

An axis is judged on the points themselves, along the grid's edges: steps with the fewest and with
the most members, members at the fewest and at the most model calls. Which of the two matters is
not known beforehand, as steps alone may hurt where steps with members help.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import nan
from typing import Any, Literal

import numpy as np

from stepsight.scaling.fitting.quality import LAW_R2, Verdict
from stepsight.scaling.fitting.resampling import UNKNOWN, Ends
from stepsight.scaling.intervals import LEVEL, half_width
from stepsight.scaling.laws.diagnosis import PLATEAU, Trend, judged_from, trend
from stepsight.scaling.laws.fits import compare
from stepsight.scaling.laws.forms import FORMS
from stepsight.scaling.plain import plain
from stepsight.scaling.sampling.interpolation import Setting, SettingValues
from stepsight.scaling.sampling.surface import BOOTSTRAP, Surface, fit_surface
from stepsight.scaling.sampling.sweeps import Cell, Family, main_metrics, select

RESAMPLES = 20  # of the fit along an axis, of which the sign of the exponent matters
Name = Literal["steps", "members"]
PLACES: tuple[tuple[Name, int, int], ...] = (("steps", 0, 1), ("members", 1, 0))  # in a setting


@dataclass(frozen=True)
class AxisVerdict:
    """One axis walked while the other stays; the names are those of fit.json."""

    dial: Name
    at: int  # on the other axis
    points: int
    gain: float  # relative fall of the error from the lowest to the highest setting
    form: str  # of the curve that fits best; '' and nan where there are too few points
    exponent: float
    interval: Ends  # 95 %, of the exponent
    verdict: Verdict


def axis_verdicts(points: SettingValues) -> list[AxisVerdict]:
    """The verdicts along the edges of the grid; `points` are positive errors by (NFE, members)."""
    return [
        _along(name, at, edge)
        for name, place, other in PLACES
        for at in _ends(setting[other] for setting in points)
        if len(edge := _edge(points, place, other, at)) > 1
    ]


def joint_verdict(points: SettingValues, surface: Surface | None) -> Verdict:
    """The verdict on both axes together, first match in this order.

    * too few points: no surface is determined.
    * not monotone: an axis is, even with the other at its highest.
    * saturated: both axes are, with the other at its highest.
    * law: the surface explains nine tenths of the variance, the interval of A lies above zero, its
      search converged, and neither an exponent nor its interval ends where the range searched does.
    * improves but no law: everything else.
    """
    if surface is None:
        return "too few points"
    shapes = [_shape(points, place, other) for _, place, other in PLACES]
    if not all(shape.monotone for shape in shapes):
        return "not monotone"
    if all(shape.rate < PLATEAU for shape in shapes):
        return "saturated"
    falls = surface.intervals["A"][0] > 0 and not surface.warnings
    return "law" if surface.r2 >= LAW_R2 and falls else "improves but no law"


def errors_of(cells: Iterable[Cell]) -> dict[Setting, float]:
    """Errors by (NFE, members); those without a logarithm are left out."""
    return {cell.setting: cell.error for cell in cells if cell.error > 0}


def deviations_of(cells: Iterable[Cell]) -> dict[Setting, float]:
    """Standard errors of the values by (NFE, members), from their intervals; nan where unknown."""
    width = 2 * half_width(LEVEL)
    return {cell.setting: (cell.hi - cell.lo) / width for cell in cells}


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
    fits = {}
    for task, metric in main_metrics(cells).items():
        families = by_family(select(cells, task, metric)).items()
        rows = [_row(family, of_family, bootstrap) for family, of_family in families]
        fits[task] = {"metric": metric, "families": rows}
    return fits


def _row(family: Family, cells: Sequence[Cell], bootstrap: int) -> dict[str, Any]:
    points = errors_of(cells)
    surface = fit_surface(points, deviations_of(cells), bootstrap=bootstrap)
    return plain(
        family._asdict()
        | {
            "points": len(points),
            "verdict": joint_verdict(points, surface),
            "dials": [asdict(axis) for axis in axis_verdicts(points)],
            "surface": asdict(surface) if surface else None,
        }
    )


def _along(name: Name, at: int, edge: Mapping[int, float]) -> AxisVerdict:
    x = sorted(edge)
    y = [edge[place] for place in x]
    gain = 1 - y[-1] / y[0]
    if len(x) < judged_from(FORMS["power"]):
        return AxisVerdict(name, at, len(x), gain, "", nan, UNKNOWN, "too few points")
    best = next(iter(compare(x, y, bootstrap=RESAMPLES).values()))
    exponent, interval = best.params["a"], best.intervals["a"]
    return AxisVerdict(name, at, len(x), gain, best.form, exponent, interval, best.verdict)


def _edge(points: SettingValues, place: int, other: int, at: int) -> dict[int, float]:
    """The curve along one axis where the other has the value `at`."""
    return {setting[place]: error for setting, error in points.items() if setting[other] == at}


def _shape(points: SettingValues, place: int, other: int) -> Trend:
    """How the error falls along one axis with the other at its highest."""
    edge = _edge(points, place, other, max(setting[other] for setting in points))
    return trend(np.log(list(edge)), np.log(list(edge.values())))


def _ends(values: Iterable[int]) -> list[int]:
    """The lowest and the highest, once where they are the same."""
    known = set(values)
    return sorted({min(known), max(known)}) if known else []
