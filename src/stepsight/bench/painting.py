"""Made-up pictures and truth that files compress about as they do real ones.

Pictures are noise with a 1/f spectrum and a little grain, as photographs have them; depth, flow and
labels are smooth.
"""

from __future__ import annotations

import numpy as np
import torch

GRAIN = 3.0  # standard deviation of the noise of a sensor, of 255


class Painter:
    """Draws what a picture may hold, at one size."""

    def __init__(self, height: int, width: int, seed: int = 0) -> None:
        self.height, self.width = height, width
        self.rng = np.random.default_rng(seed)

    def smooth(self, power: float = 1.6) -> np.ndarray:
        """A field "h w" from 0 to 1 whose amplitudes fall as frequency^-power."""
        rows, columns = np.fft.fftfreq(self.height)[:, None], np.fft.rfftfreq(self.width)
        frequency = np.hypot(rows, columns)
        frequency[0, 0] = np.inf
        white = self.rng.normal(size=(2, *frequency.shape))
        field = np.fft.irfft2(
            (white[0] + 1j * white[1]) / frequency**power, (self.height, self.width)
        )
        return (field - field.min()) / np.ptp(field)

    def picture(self) -> np.ndarray:
        """uint8 "h w 3"."""
        light, tints = self.smooth(1.4), [self.smooth() for _ in range(3)]
        plain = np.stack([160 * light + 80 * tint for tint in tints], axis=-1)
        return np.clip(plain + self.rng.normal(0, GRAIN, plain.shape), 0, 255).astype(np.uint8)

    def depth(self) -> np.ndarray:
        """float32 "h w", 2 to 12 m."""
        return (2 + 10 * self.smooth()).astype(np.float32)

    def flow(self) -> torch.Tensor:
        """float32 "2 h w", up to 20 px."""
        planes = np.stack([self.smooth() for _ in range(2)])
        return torch.from_numpy((40 * planes - 20).astype(np.float32))

    def labels(self, classes: int) -> np.ndarray:
        """uint8 "h w" in regions."""
        return np.minimum(self.smooth() * classes, classes - 1).astype(np.uint8)

    def sparse(self, share: float) -> np.ndarray:
        """bool "h w"."""
        return self.rng.random((self.height, self.width)) < share
