"""The floors that relations take from laws."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from stepsight.scaling.analysis.relations import floor_of


def law(level: float, ends: tuple[float, float]) -> Any:
    """What a joint law says of its E = 0.1."""
    fit = SimpleNamespace(verdict="law", params={"E": 0.1}, intervals={"E": ends}, level=level)
    return SimpleNamespace(joint=SimpleNamespace(fit=fit))


@pytest.mark.parametrize("level, half", [(0.8, 1.28155), (0.9, 1.64485), (0.95, 1.95996)])
def test_a_floor_is_as_unsure_as_the_interval_of_its_law(level: float, half: float):
    floor = floor_of(law(level, (0.1 - 0.02 * half, 0.1 + 0.02 * half)))
    assert floor and floor.deviation == pytest.approx(0.02, rel=1e-4)


def test_a_floor_of_a_law_without_intervals_is_not_exact():
    floor = floor_of(law(0.95, (math.nan, math.nan)))
    assert floor and floor.deviation is None and floor.doubted
