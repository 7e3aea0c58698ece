"""Records and published numbers for the tests of the scaling room."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from stepsight.scaling.records import ScalingRecord
from stepsight.scaling.sampling.sweeps import Cell

DATA = Path(__file__).parents[3] / "shared" / "scaling_data"


@pytest.fixture
def published() -> Callable[[str], list[dict[str, str]]]:
    """Reads one of the tables of published numbers, or skips where they are not at hand."""
    folder = Path(os.environ.get("STEPSIGHT_SCALING_DATA", DATA))

    def rows(name: str) -> list[dict[str, str]]:
        path = folder / name
        if not path.exists():
            pytest.skip(f"published numbers are absent: {path}")
        with path.open(newline="") as file:
            return list(csv.DictReader(file))

    return rows


@pytest.fixture
def record() -> Callable[..., ScalingRecord]:
    """A record with the given fields changed."""

    def make(**changed: Any) -> ScalingRecord:
        fields: dict[str, Any] = dict(
            run="depth-s",
            config="c0ffee",
            revision="abc123",
            seed=0,
            model="dit-s",
            params_total=32_900_000,
            params_active=32_900_000,
            training_flops=1.5e15,
            images_seen=99_000,
            task="depth",
            dataset="scenes",
            protocol="affine-64",
            sampler="ddim",
            nfe=8,
            members=4,
            inference_flops=3.9e11,
            metric="absrel",
            value=0.206,
            images=128,
        )
        return ScalingRecord(**(fields | changed))

    return make


@pytest.fixture
def cell() -> Callable[..., Cell]:
    """A cell of a sweep with the given fields changed; its cost follows from NFE and members."""

    def make(nfe: int = 4, members: int = 2, **changed: Any) -> Cell:
        calls = nfe * members
        fields: dict[str, Any] = dict(
            task="depth",
            sampler="ddim",
            spacing="trailing",
            schedule="trained",
            nfe=nfe,
            members=members,
            total_calls=calls,
            gflop_per_image=0.5 * calls,
            ms_per_image=3.0 + 2.0 * calls,
            latency_ms=7.0 + 3.0 * calls,
            peak_gb=0.25,
            metric="abs_rel",
            value=0.2,
            lo=0.19,
            hi=0.21,
        )
        return Cell(**(fields | changed))

    return make


@pytest.fixture
def sweep(cell) -> Callable[..., list[Cell]]:
    """Cells on a grid whose values are a function of NFE and members, intervals +-5 %."""

    def make(
        value: Callable[[int, int], float],
        nfe: Sequence[int] = (1, 2, 4, 8, 16),
        members: Sequence[int] = (1, 2, 4, 8),
        **changed: Any,
    ) -> list[Cell]:
        return [
            cell(t, n, value=value(t, n), lo=0.95 * value(t, n), hi=1.05 * value(t, n), **changed)
            for t in nfe
            for n in members
        ]

    return make
