"""Between measured settings: local interpolation on the grid of NFE x members.

Nothing is said beyond the measured range: there the answer is nan.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

Setting = tuple[int, int]  # NFE, members
ErrorAt = Callable[[Setting], float]
SettingValues = Mapping[Setting, float]


def interpolate(
    points: SettingValues, at: Setting, axis: Callable[[float], float] = math.log
) -> float:
    """The value at a setting from its measured neighbours; nan outside of what was measured.

    Linear in `axis` of both axes: first in members, at every measured NFE that has members on
    both sides, then in NFE. The logarithm suits errors; the identity suits costs, where it is exact
    for a constant plus a price a call.
    """
    nfe, members = at
    columns: dict[int, dict[int, float]] = defaultdict(dict)
    for (steps, size), value in points.items():
        columns[steps][size] = value
    across = {steps: _between(column, members, axis) for steps, column in columns.items()}
    known = {steps: value for steps, value in across.items() if math.isfinite(value)}
    return _between(known, nfe, axis)


def leave_one_out(
    points: SettingValues, learn: Callable[[SettingValues], ErrorAt]
) -> dict[Setting, float]:
    """Value minus what is predicted from all other points, by setting; nan where nothing is."""
    errors = {}
    for setting, value in points.items():
        others = {other: known for other, known in points.items() if other != setting}
        errors[setting] = value - learn(others)(setting)
    return errors


def _between(points: Mapping[int, float], x: int, axis: Callable[[float], float]) -> float:
    """Linear in `axis` between the neighbours of x, exact at a point; nan outside."""
    below = max((place for place in points if place <= x), default=None)
    above = min((place for place in points if place >= x), default=None)
    if below is None or above is None:
        return math.nan
    if below == above:
        return points[below]
    share = (axis(x) - axis(below)) / (axis(above) - axis(below))
    return points[below] + share * (points[above] - points[below])


def root_mean_square(errors: Iterable[float]) -> float:
    """nan where there are none."""
    squares = [error**2 for error in errors]
    return math.sqrt(sum(squares) / len(squares)) if squares else math.nan
