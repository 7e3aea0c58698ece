"""The memory that is planned is that of real training steps, within 15 %: benchmarks/steps.py."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
CASES = [
    ("split-32", 16, "bf16", "none"),
    ("split-32", 16, "bf16", "block"),
    ("DiT-S/2", 2, "float32", "none"),
    ("DiT-S/2", 2, "bf16", "selective"),
    ("DiT-S/2-8E2A", 2, "bf16", "none"),
]


@pytest.fixture
def steps(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import steps  # pyright: ignore[reportMissingImports]

    monkeypatch.delitem(sys.modules, "steps")
    return steps


@pytest.mark.slow
@pytest.mark.parametrize("model, batch, precision, way", CASES)
def test_a_step_takes_what_is_planned(steps, model, batch, precision, way):
    row = steps.row_of(model, precision, way, steps=1, batch=batch)
    assert row["planned_bytes"] == pytest.approx(row["peak_bytes"], rel=0.15)
