"""Maps of known scale and shift, their error, and the ensembling of diffusers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.bench.peers.marigold import marigold


@pytest.fixture(scope="session")
def smooth() -> Callable[..., Tensor]:
    return _smooth


@pytest.fixture(scope="session")
def distorted() -> Callable[..., tuple[Tensor, Tensor]]:
    return _distorted


@pytest.fixture(scope="session")
def with_outlier() -> Callable[..., Tensor]:
    return _with_outlier


@pytest.fixture(scope="session")
def misfit() -> Callable[[Tensor, Tensor], float]:
    return _misfit


@pytest.fixture(scope="session")
def released() -> Callable[..., tuple[Tensor, Tensor | None]]:
    """diffusers' own ensembling."""
    return marigold().ensemble_depth


def _smooth(count: int, side: int = 24, seed: int = 0) -> Tensor:
    """`count` smooth maps "count side side"."""
    coarse = torch.rand(count, 1, 5, 5, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size=(side, side), mode="bilinear")[:, 0]


def _distorted(
    count: int, noise: float = 0.05, seed: int = 0, side: int = 24
) -> tuple[Tensor, Tensor]:
    """A truth "h w" and noisy members "e h w" of it, each with its own scale and shift."""
    source = torch.Generator().manual_seed(seed)
    truth = _smooth(1, side, seed)[0]
    scale = 0.3 + 2 * torch.rand(count, 1, 1, generator=source)
    shift = torch.randn(count, 1, 1, generator=source)
    members = truth + noise * torch.randn(count, *truth.shape, generator=source)
    return truth, scale * members + shift


def _with_outlier(maps: Tensor, kind: str) -> Tensor:
    """`maps` "e h w" with the first one spoilt."""
    maps = maps.clone()
    width = maps[0].max() - maps[0].min()
    if kind == "pixel":
        maps[0, 3, 5] += 3 * width
    if kind == "member":  # of another scene
        maps[0] = _smooth(1, maps.shape[1], seed=99)[0]
    if kind == "mirrored":
        maps[0] = -maps[0]
    if kind == "region":
        third = maps.shape[1] // 3
        maps[0, :third, :third] += 1.5 * width
    return maps


def _misfit(found: Tensor, truth: Tensor) -> float:
    """Mean absolute error after the best scale and shift."""
    x, y = found.flatten().double(), truth.flatten().double()
    x, y = x - x.mean(), y - y.mean()
    return (x * (x @ y) / (x @ x) - y).abs().mean().item()
