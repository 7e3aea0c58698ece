"""What the tests of films share: moving pictures, and films in files."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from stepsight.seeding import generator


@pytest.fixture
def moving() -> Callable[..., list[Tensor]]:
    """Frames uint8 "3 h w" of a smooth pattern that drifts to the right."""

    def make(count: int, size: tuple[int, int] = (16, 16), speed: int = 1) -> list[Tensor]:
        height, width = size
        wide = torch.rand(1, 3, 4, 4 + count, generator=generator("film"))
        wide = torch.nn.functional.interpolate(
            wide, size=(height, width + speed * count), mode="bilinear"
        )
        pattern = (255 * wide[0]).to(torch.uint8)
        starts = [speed * (count - number) for number in range(count)]
        return [pattern[..., start : start + width].clone() for start in starts]

    return make
