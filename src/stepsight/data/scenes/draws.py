"""The random numbers of a scene: one array of fixed size, spent in a fixed order.

So a dial changes only what it names. Every transformation here uses exactly rounded arithmetic
alone (no sin, exp or pow), which makes the parameters of a world bit-identical on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stepsight.seeding import numpy_generator

DRAWS = 872  # numbers per scene


class Draws:
    """Uniform numbers of `b` scenes; each method takes the next ones, shaped "b *shape"."""

    def __init__(self, seed: int, split: str, indices: Sequence[int]) -> None:
        rows = [numpy_generator(seed, "scenes", split, int(i)).random(DRAWS) for i in indices]
        self.rows = np.stack(rows)
        self.spent = 0

    def unit(self, *shape: int) -> np.ndarray:
        """Uniform in [0, 1)."""
        count = int(np.prod(shape, dtype=int))
        values = self.rows[:, self.spent : self.spent + count]
        self.spent += count
        assert self.spent <= DRAWS, "raise DRAWS"
        return values.reshape(-1, *shape)

    def uniform(self, low: float, high: float, *shape: int) -> np.ndarray:
        return low + (high - low) * self.unit(*shape)

    def bell(self, *shape: int) -> np.ndarray:
        """Near-normal with unit variance, within +-3: twice the centred sum of three uniforms."""
        parts = self.unit(3, *shape)
        return (parts[:, 0] + parts[:, 1] + parts[:, 2] - 1.5) * 2

    def chance(self, probability: float, *shape: int) -> np.ndarray:
        return self.unit(*shape) < probability

    def choice(self, weights: Sequence[float], *shape: int) -> np.ndarray:
        """Index drawn with the given weights."""
        bounds = np.cumsum(weights)
        value = self.unit(*shape)[..., None] * bounds[-1]
        return (value >= bounds[:-1]).sum(axis=-1)

    def colour(self, saturation: tuple[float, float], *shape: int) -> np.ndarray:
        """RGB "... 3" of random hue, with saturation and value drawn uniformly."""
        raw = self.unit(*shape, 3)
        low, high = raw.min(axis=-1, keepdims=True), raw.max(axis=-1, keepdims=True)
        hue = (raw - low) / (high - low + 1e-9)
        strength = self.uniform(*saturation, *shape, 1)
        return self.uniform(0.55, 1.0, *shape, 1) * (1 - strength * (1 - hue))
