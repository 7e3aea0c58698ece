"""Pictures that the tests of decoders share."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


@pytest.fixture
def deep():
    """Grey values that need all their 16 bits, with both byte orders telling them apart."""
    return np.array([[0, 1, 255], [256, 40000, 65535]], np.uint16)


@pytest.fixture
def rgb16():
    """Two rows of three pixels that need all their bits, every channel of its own."""
    return np.array([0, 1, 255, 256, 257, 40000, 65535, 32768, 20976] * 2, np.uint16).reshape(
        2, 3, 3
    )
