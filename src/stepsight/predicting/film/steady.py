"""What holds the answers of a film together: each follows from the one before it, moved along.

Of an answer x_t and the one shown before it, y_{t-1}, fetched from where each pixel was (flow from
frame t to t - 1; without flow from the same place), frame t shows

    y_t = x_t + smoothing * g (moved y_{t-1} - x_t),    g = exp(-(|I_t - moved I_{t-1}| / SIGMA)^2)

in the target space: an average over time, along the motion, that forgets where the pictures
disagree (hidden before, moved wrongly) and outside the frame. Equal x and y stay equal to the bit.
Where hardly anything agrees, a film was cut: the frame stands for itself.

Depth known up to scale and shift is first brought to y_{t-1}: scale and shift make the weighted
means and deviations equal, weights g times those of Geman and McClure's estimator, so that what
moves by itself does not count. Deviations are matched, not regressed: least squares would shrink
the scale by the correlation at every frame, and to nothing over a film. A tenth of the way is left
to the answer itself: what a film cannot tell from pumping, a scale that really changes, comes in
over some ten frames, and errors of the fit do not add up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stepsight.metrics.photometric import inside, warped
from stepsight.predicting.film.config import FilmSettings

SIGMA = 0.2  # of pictures in [-1, 1]
CUT = 0.5  # mean g below which a frame begins another shot
LEAK = 0.1  # of the way to the frame before that is not gone
ROUNDS = 4  # of weighing residuals anew
TAIL = 2.0  # mean residuals from which on a pixel counts for a quarter
LEAST = 1e-6  # of deviations and residuals; a constant answer keeps its scale


@dataclass(frozen=True)
class ShownFrame:
    """A frame at working size, "1 3 h w" in [-1, 1], and what was answered, "1 c h w" in the target
    space."""

    picture: Tensor
    x: Tensor

    def moved(self, flow: Tensor | None) -> ShownFrame:
        """As it is fetched along `flow "1 2 h w"`, pixels, by the frame after it."""
        if flow is None:
            return self
        return ShownFrame(warped(self.picture, flow), warped(self.x, flow))


def steadied(
    now: ShownFrame, before: ShownFrame, flow: Tensor | None, settings: FilmSettings, aligns: bool
) -> ShownFrame:
    """`now` as the module docstring has it; flow: from its frame to the one of `before`."""
    moved = before.moved(flow)
    agreed = agreement(now.picture, moved.picture)
    if flow is not None:
        agreed = agreed * inside(flow)
    if agreed.mean() < CUT:
        return now
    x = now.x
    if aligns:
        scale, shift = affine(x, moved.x, agreed)
        x = x + (1 - LEAK) * ((scale - 1) * x + shift)
    return replace(now, x=x + settings.smoothing * agreed * (moved.x - x))


def agreement(picture: Tensor, other: Tensor) -> Tensor:
    """g of the module docstring, "1 1 h w", of pictures "1 3 h w"."""
    difference = (picture - other).abs().mean(dim=1, keepdim=True)
    return torch.exp(-(difference / SIGMA).square())


def affine(x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift, scalars, that bring x to y, both "1 1 h w", by their weighted means and
    deviations; weight "1 1 h w" from 0."""
    weights, one, zero = weight, x.new_ones(()), x.new_zeros(())
    scale, shift = one, zero
    for _ in range(ROUNDS):
        total = weights.sum().clamp_min(LEAST)
        middles = [(weights * map_).sum() / total for map_ in (x, y)]
        variances = [
            (weights * (map_ - middle).square()).sum() / total
            for map_, middle in zip((x, y), middles)
        ]
        varies = min(variances) > LEAST
        scale = (variances[1] / variances[0]).sqrt() if varies else one
        shift = middles[1] - scale * middles[0]
        residual = (scale * x + shift - y).abs()
        usual = TAIL * (weight * residual).sum() / weight.sum().clamp_min(LEAST)
        weights = weight / (1 + (residual / usual.clamp_min(LEAST)).square()).square()
    return scale, shift
