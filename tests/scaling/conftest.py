"""Records and published numbers for the tests of the scaling room."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepsight.scaling.records import ScalingRecord

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
