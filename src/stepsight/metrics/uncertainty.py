"""Is a stated uncertainty worth anything? Sparsification, coverage, CRPS, calibration.

Sparsification and rank correlation rest on the order of an image's uncertainties alone, so their
scale is of no consequence; an interval has to be in the unit of the truth, and a probability in
[0, 1].

Calibration is kept as sums, "b k 3": for each of k levels or bins the weight, the sum of what was
stated and the sum of what came true. Sums of images add up, and quotients of the totals are the
points of a reliability diagram.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

from stepsight.metrics import masked
from stepsight.metrics.alignment.align import Space

STEPS = 20  # pixels are removed in twentieths: 0, 5, ..., 95 %
LEVELS = tuple(tenth / 10 for tenth in range(1, 10))  # of central intervals
BINS = 10  # of stated probabilities, equally wide


class Stated(NamedTuple):
    """What an answer states about itself."""

    values: Tensor  # "b c h w", physical
    members: Tensor | None = None  # "e b c h w", likewise
    chances: Tensor | None = None  # "b k h' w'", probabilities of the k classes, or of the object
    given: Space = "depth"  # the space of depth values


class Case(NamedTuple):
    """A prediction beside the truth, as it is scored."""

    error: Tensor  # "b 1 h w", >= 0
    valid: Tensor  # bool "b 1 h w"
    truth: Tensor | None = None  # "b c h w", and
    members: Tensor | None = None  # "e b c h w" in its unit, where they can be compared
    doubt: Tensor | None = None  # "b 1 h w", of an answer that is a probability by itself
    stated: Tensor | None = None  # a probability "b 1 h w",
    happened: Tensor | None = None  # bool "b 1 h w", whether what it speaks of is so, and
    squares: Tensor | None = None  # "b 1 h w", what a pixel adds to the Brier score
    outlines: tuple[Tensor, Tensor] | None = None  # masks or classes "b 1 h w", predicted and true
    unit: float = 1.0  # of the metric, in the error's


def ordering(error: Tensor, uncertainty: Tensor, valid: Tensor) -> dict[str, Tensor]:
    """`ause`, `aurg` and `rank_correlation` (as "spread_error"), of the same two orders."""
    stated, best = _ascending(uncertainty, valid), _ascending(error, valid)
    curve, least = (_curve(error, by, valid) for by in (stated, best))
    return {
        "ause": torch.trapezoid(curve - least, dx=1 / STEPS),
        "aurg": torch.trapezoid(1 - curve, dx=1 / STEPS),
        "spread_error": _correlation(stated, best, valid),
    }


def ause(error: Tensor, uncertainty: Tensor, valid: Tensor) -> Tensor:
    """Area under the sparsification error (Ilg et al. 2018), "b 1 h w" each -> "b"; 0 is best.

    The integral over phi = 0 .. 0.95 (trapezoid) of S_uncertainty(phi) - S_error(phi), where
    S_u(phi) is the mean error once the share phi with the largest u is removed, over the mean error
    of all. `error >= 0` is any error whose mean is the metric: |p - g| / g, end-point error.
    """
    return ordering(error, uncertainty, valid)["ause"]


def aurg(error: Tensor, uncertainty: Tensor, valid: Tensor) -> Tensor:
    """Area under the random gain (Poggi et al. 2020), "b 1 h w" each -> "b"; more is better.

    The integral over phi = 0 .. 0.95 of 1 - S_uncertainty(phi): removing pixels at random keeps the
    mean error, so the curve of no information is 1. Below 0 the uncertainty misleads.
    """
    return ordering(error, uncertainty, valid)["aurg"]


def rank_correlation(error: Tensor, uncertainty: Tensor, valid: Tensor) -> Tensor:
    """Spearman's rho of each image over its valid pixels, "b 1 h w" each -> "b": does it know where
    it is wrong? 1: the order of the errors; 0: none of it; NaN where either is the same throughout.
    Equal values share the mean of their ranks (Kendall 1948, ch. 3)."""
    return ordering(error, uncertainty, valid)["spread_error"]


def sparsification(error: Tensor, by: Tensor, valid: Tensor) -> Tensor:
    """S_by(phi), "b 20". Equal uncertainties are removed in random order: this is the expectation
    over that order, so it draws nothing. 1 throughout for a perfect prediction."""
    return _curve(error, _ascending(by, valid), valid)


class _Ascending(NamedTuple):
    """Pixels of each image from the least value to the largest, invalid ones last: "b n" each."""

    order: Tensor  # places
    run: Tensor  # number of the run of equal values

    def averaged(self, x: Tensor) -> Tensor:
        """x "b n", which is in this order, replaced by its mean over each run."""
        sums = torch.zeros_like(x).scatter_add(1, self.run, x)
        sizes = torch.zeros_like(x).scatter_add(1, self.run, torch.ones_like(x))
        return (sums / sizes).gather(1, self.run)


def _ascending(x: Tensor, valid: Tensor) -> _Ascending:
    key, order = torch.where(valid, x, torch.inf).flatten(1).sort(1)
    run = torch.cat([torch.zeros_like(order[:, :1]), key.diff(dim=1) > 0], dim=1).cumsum(1)
    return _Ascending(order, run)


def _curve(error: Tensor, by: _Ascending, valid: Tensor) -> Tensor:
    kept = torch.where(valid, error.double(), 0.0).flatten(1).gather(1, by.order)
    sums = by.averaged(kept).cumsum(1)
    n = valid.flatten(1).sum(1, keepdim=True)
    keep = n - torch.arange(STEPS, device=n.device) * n // STEPS  # of n > 0 at least one is kept
    curve = sums.gather(1, (keep - 1).clamp(min=0)) / keep
    return torch.where((n > 0) & (curve[:, :1] == 0), 1.0, curve / curve[:, :1])


def _correlation(first: _Ascending, second: _Ascending, valid: Tensor) -> Tensor:
    inside = valid.flatten(1)
    n = inside.sum(1, keepdim=True)
    ranks = (_ranks(by) for by in (first, second))
    x, y = (torch.where(inside, rank - (n - 1) / 2, 0.0) for rank in ranks)
    return (x * y).sum(1) / (x.square().sum(1) * y.square().sum(1)).sqrt()


def _ranks(by: _Ascending) -> Tensor:
    """The place "b n", from 0, of every valid pixel among those of its image; others come last."""
    places = torch.arange(by.order.shape[1], dtype=torch.float64, device=by.order.device)
    shared = by.averaged(places.expand_as(by.order))
    return torch.zeros_like(shared).scatter(1, by.order, shared)


def crps(members: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Continuous ranked probability score of an ensemble (Gneiting & Raftery 2007, eq. 21).

    `members "m b c h w"`, `truth "b c h w"`, `valid "b 1 h w"` -> "b": mean over valid pixels and
    channels of mean_i |x_i - y| - 1/2 mean_ij |x_i - x_j|, in the unit of x. For one member it is
    the absolute error.
    """
    m, y = len(members), truth.double()
    x = members.double().sort(0).values
    # sum_ij |x_i - x_j| = 2 sum_i (2i - m - 1) x_(i) over the sorted members, i = 1 .. m
    rank = 2 * torch.arange(1, m + 1, device=x.device, dtype=x.dtype) - m - 1
    spread = 2 * torch.einsum("m,mbchw->bchw", rank, x) / m**2
    score = (x - y).abs().mean(0) - spread / 2
    return masked.mean(score.mean(1, keepdim=True), valid)


Interval = tuple[Tensor, Tensor]  # lower and upper ends, each of the shape of the truth


def gaussian_interval(mean: Tensor, deviation: Tensor, level: float) -> Interval:
    """The central interval of probability `level` of a normal distribution at every pixel."""
    reach = half_width(level) * deviation.double()
    return mean.double() - reach, mean.double() + reach


def half_width(level: float) -> float:
    """Of the central interval of probability `level` of a standard normal: 1.645 for 0.9."""
    return NormalDist().inv_cdf((1 + level) / 2)


def moments(members: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased standard deviation "b c h w" of members "e b c h w", float64."""
    members = members.double()
    return members.mean(0), members.std(0, correction=1)


def widened(members: Tensor, scale: float) -> Tensor:
    """Members "e b c h w" of the same mean whose deviations are `scale` times as large."""
    mean = members.mean(0)
    return mean + scale * (members - mean)


def coverage(interval: Interval, truth: Tensor, valid: Tensor) -> Tensor:
    """Share of valid pixels whose truth "b c h w" lies in the interval, ends included -> "b".

    Of a central interval of level q, a calibrated uncertainty covers q (Kuleshov et al. 2018); the
    mean of |coverage - q| over levels is the calibration error.
    """
    low, high = interval
    inside = (truth >= low) & (truth <= high)
    return masked.mean(inside.double().mean(1, keepdim=True), valid)


def interval_calibration(mean: Tensor, deviation: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Sums "b levels 3" of the normal intervals of `LEVELS` (Kuleshov et al. 2018, eq. 9).

    Every image weighs 1: stated is the level, observed the share it covers. An image without valid
    pixels weighs 0.
    """
    shares = [coverage(gaussian_interval(mean, deviation, level), truth, valid) for level in LEVELS]
    observed = torch.stack(shares, dim=1)
    stated = torch.tensor(LEVELS, dtype=observed.dtype, device=observed.device)
    sums = torch.stack([torch.ones_like(observed), stated.expand_as(observed), observed], dim=2)
    return torch.where(observed.isnan()[..., None], 0.0, sums)


def probability_calibration(stated: Tensor, happened: Tensor, valid: Tensor) -> Tensor:
    """Sums "b bins 3" of stated probabilities in [0, 1] by bin (Guo et al. 2017, sec. 2).

    `stated`, bool `happened` and `valid` are "b 1 h w". Weight: the pixels whose probability lies
    in the bin; stated: their sum of probabilities; observed: for how many it happened.
    """
    p = torch.where(valid, stated.double(), 0.0).flatten(1)
    place = (p * BINS).long().clamp(0, BINS - 1)  # the last bin includes 1
    parts = torch.stack([torch.ones_like(p), p, happened.flatten(1).to(p)], dim=2)
    parts = torch.where(valid.flatten(1)[..., None], parts, 0.0)
    sums = parts.new_zeros(len(p), BINS, 3)
    return sums.scatter_add_(1, place[..., None].expand_as(parts), parts)


def calibration_error(sums: Tensor) -> float:
    """Mean of |observed - stated| by weight, of sums "b k 3" over images (Guo et al. 2017, eq. 3).

    Of intervals it is the mean over levels, of probabilities the expected calibration error (ECE).
    """
    weight, stated, observed = sums.double().sum(0).unbind(1)
    return float((observed - stated).abs().sum() / weight.sum())
