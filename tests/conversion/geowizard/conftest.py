"""Tiny GeoWizards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import geowizards
import pytest


@pytest.fixture
def geowizard(tmp_path: Path) -> Callable[..., Path]:
    """Writes version 1 or 2."""

    def write(version: int = 1) -> Path:
        return geowizards.geowizard(tmp_path / f"published-{version}", version)

    return write
