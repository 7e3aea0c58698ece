"""Between measured settings: local interpolation on the grid of NFE x members.

Nothing is said beyond the measured range: there the answer is nan.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

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
    known = [setting for setting, value in points.items() if math.isfinite(value)]
    shares = neighbours(known, at, axis)
    if not shares:
        return math.nan
    first = points[next(iter(shares))]  # so that equal values give exactly that
    return first + sum(share * (points[s] - first) for s, share in shares.items())


def neighbours(
    settings: Iterable[Setting], at: Setting, axis: Callable[[float], float] = math.log
) -> dict[Setting, float]:
    """The settings that `interpolate` reads and their shares, which sum to 1; {} outside."""
    nfe, members = at
    columns: dict[int, list[int]] = defaultdict(list)
    for steps, size in settings:
        columns[steps].append(size)
    across = {steps: _between(column, members, axis) for steps, column in columns.items()}
    along = _between([steps for steps, shares in across.items() if shares], nfe, axis)
    return {
        (steps, size): share * part
        for steps, share in along.items()
        for size, part in across[steps].items()
    }


def leave_one_out(
    points: SettingValues, learn: Callable[[SettingValues], ErrorAt]
) -> dict[Setting, float]:
    """Value minus what is predicted from all other points, by setting; nan where nothing is."""
    errors = {}
    for setting, value in points.items():
        others = {other: known for other, known in points.items() if other != setting}
        errors[setting] = value - learn(others)(setting)
    return errors


def _between(places: Sequence[int], x: int, axis: Callable[[float], float]) -> dict[int, float]:
    """Shares of the neighbours of x, linear in `axis`, x alone where it is known; {} outside."""
    below = max((place for place in places if place <= x), default=None)
    above = min((place for place in places if place >= x), default=None)
    if below is None or above is None:
        return {}
    if below == above:
        return {x: 1.0}
    share = (axis(x) - axis(below)) / (axis(above) - axis(below))
    return {below: 1 - share, above: share}


def root_mean_square(errors: Iterable[float]) -> float:
    """nan where there are none."""
    squares = [error**2 for error in errors]
    return math.sqrt(sum(squares) / len(squares)) if squares else math.nan
