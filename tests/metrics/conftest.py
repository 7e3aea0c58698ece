"""Small random worlds with holes, odd sizes, and garbage where nothing is valid."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from stepsight.seeding import generator


@pytest.fixture
def rng(request):
    return generator("tests/metrics", request.node.name)


@pytest.fixture
def valid(rng):
    """Bool "3 1 5 7": images with few, many and all valid pixels."""
    shares = torch.tensor([0.3, 0.7, 1.1])[:, None, None, None]
    return torch.rand(3, 1, 5, 7, generator=rng) < shares


@pytest.fixture
def depths(rng, valid):
    """Prediction and truth in metres, "3 1 5 7", with NaN, inf and negatives where not valid."""
    pair = [1 + 9 * torch.rand(3, 1, 5, 7, generator=rng) for _ in range(2)]
    return tuple(spoil(x, valid) for x in pair)


@pytest.fixture
def spoiled():
    return spoil


def spoil(x, valid):
    garbage = x.new_tensor([float("nan"), float("inf"), -1e30, 0.0])
    filler = garbage[torch.arange(x.numel()) % 4].reshape(x.shape)
    return torch.where(valid, x, filler)


@pytest.fixture
def sample():
    """Path of a real sample file, or skip."""

    def find(name: str) -> Path:
        beside = Path(__file__).parents[3] / "shared" / "samples"
        path = Path(os.environ.get("STEPSIGHT_SAMPLES", beside)) / name
        if not path.exists():
            pytest.skip(f"needs the real sample {path}; set STEPSIGHT_SAMPLES to its folder")
        return path

    return find
