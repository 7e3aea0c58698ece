"""Merging the members of an ensemble into one answer with an uncertainty.

Maps known only up to scale and shift (depth) are aligned before they are merged. The published
way, Marigold's (Ke et al. 2024), minimises pairwise distances numerically, although its optimum is
the collapsed one, all scales 0, from which only an early stop keeps it. Ours regresses every member
on the merged map, for a few rounds, and gives the merge the mean and variance of the average
member, so it cannot collapse. The rounds need only the members' correlations: the pixels are read
once, whatever the number of rounds.

Members lie along the leading axis "e"; their order does not matter. Other answers need no
alignment: flow takes `mean` or `median`, labels `vote`, normals `merge_directions`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.errors import UserError, suggest

Reduce = Literal["median", "mean"]
Rule = Literal["closed_form", "published", "mean", "median"]
ROUNDS = 8  # of regression on the merged map; scales settle within 0.2 % (members of SNR 1 and up)

PUBLISHED_REGULARISER = 0.02  # all four: diffusers' MarigoldDepthPipeline.ensemble_depth
PUBLISHED_ITERATIONS = 2
PUBLISHED_TOLERANCE = 1e-3
PUBLISHED_LONGEST_SIDE = 1024


def mean(members: Tensor) -> Tensor:
    """Mean of "e ..." over the members."""
    return members.mean(dim=0)


def median(members: Tensor) -> Tensor:
    """Median of "e ..." over the members; the average of the two middle values for even e."""
    ordered = members.sort(dim=0).values
    count = len(members)
    return (ordered[(count - 1) // 2] + ordered[count // 2]) / 2


REDUCE: dict[str, Callable[[Tensor], Tensor]] = {"mean": mean, "median": median}


def spread(members: Tensor, merged: Tensor, reduce: Reduce) -> Tensor:
    """How far the members "e ..." lie from the merge: standard deviation, or median deviation.

    The deviation is the unbiased one (divided by e - 1); a single member has spread 0.
    """
    if reduce == "median":
        return median((members - merged).abs())
    return ((members - merged).square().sum(dim=0) / max(len(members) - 1, 1)).sqrt()


def merge_affine(maps: Tensor, rule: Rule = "closed_form") -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Merge maps "e h w" known up to scale and shift.

    Returns (merged "h w", uncertainty "h w", scale "e", shift "e"): the merge is the median (rule
    "mean": the mean) of `scale * map + shift`. Rules:
    * "closed_form": this module's alignment; the mean and variance of the average member;
    * "published": that of diffusers, stretched to [0, 1];
    * "mean", "median": no alignment, scale 1 and shift 0.
    The uncertainty, in the units of the merge, is the members' median deviation (rule "mean": their
    standard deviation). Raises UserError for an unknown rule.
    """
    if rule not in ("closed_form", "published", "mean", "median"):
        known = suggest(rule, ("closed_form", "published", "mean", "median"))
        raise UserError(f"There is no rule '{rule}' for merging maps.{known}")
    if rule == "published":
        return _merge_published(maps)
    if rule == "closed_form" and len(maps) > 1:
        flat = maps.flatten(1)[:, None]
        merged, deviation, scale, shift = _align(flat, torch.ones_like(flat[0]), "median")
        return (
            merged.reshape(maps.shape[1:]),
            deviation.reshape(maps.shape[1:]),
            scale[:, 0],
            shift[:, 0],
        )
    reduce = "mean" if rule == "mean" else "median"
    merged = REDUCE[reduce](maps)
    ones = maps.new_ones(len(maps))
    return merged, spread(maps, merged, reduce), ones, 0 * ones


def align_and_merge(
    members: Tensor, valid: Tensor | None = None, reduce: Reduce = "median"
) -> tuple[Tensor, Tensor]:
    """Merge members "e b c h w" up to scale and shift: (merged "b c h w", uncertainty "b 1 h w").

    Each member has one scale and one shift per image, fitted on the pixels of `valid` "b 1 h w"
    (None: all of them). The uncertainty is the spread after alignment, averaged over channels. A
    single member is returned as it is.
    """
    if len(members) == 1:
        return members[0], torch.zeros_like(members[0, :, :1])
    flat = members.flatten(2)
    weight = torch.ones_like(members[0]) if valid is None else valid.expand_as(members[0])
    merged, deviation, _, _ = _align(flat, weight.flatten(1), reduce)
    merged, deviation = merged.reshape(members[0].shape), deviation.reshape(members[0].shape)
    return merged, deviation.mean(dim=1, keepdim=True)


def vote(labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Majority of int64 labels "e b h w" in [0, classes): (labels "b h w", share of votes "b h w").

    Ties go to the lowest class.
    """
    _, b, h, w = labels.shape
    votes = torch.zeros(b, classes, h, w, device=labels.device)
    ballots = labels.movedim(0, 1)
    votes.scatter_add_(1, ballots, torch.ones((), device=labels.device).expand(ballots.shape))
    most, winner = votes.max(dim=1)
    return winner, most / len(labels)


def merge_directions(normals: Tensor) -> tuple[Tensor, Tensor]:
    """Merge unit vectors "e b 3 h w": (mean direction "b 3 h w", uncertainty "b 1 h w" in [0, 1]).

    The uncertainty is the mean angle to the merged direction over pi, as in diffusers'
    `MarigoldNormalsPipeline.ensemble_normals`. Where members cancel out, the first one stands.
    """
    total = normals.sum(dim=0)
    cancelled = total.norm(dim=1, keepdim=True) < 1e-6
    merged = F.normalize(torch.where(cancelled, normals[0], total), dim=1)
    cosine = (normals * merged).sum(dim=2, keepdim=True).clamp(-1, 1)
    return merged, cosine.arccos().mean(dim=0) / math.pi


def _align(
    members: Tensor, weight: Tensor, reduce: Reduce
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Align members "e b n" on pixels of weight "b n" in {0, 1}: (merged, spread, scale, shift).

    merged and spread are "b n", scale and shift "e b", all in the members' dtype.
    """
    means, stds, correlation = _moments(members, weight)
    slope = _loadings(correlation) / stds.where(stds > 0, 1)
    rough = slope[..., None].to(members) * (members - means[..., None].to(members))
    merged = REDUCE[reduce](rough)
    # Mean, median and spread follow an affine map of all members, so what is left to choose, the
    # common mean and variance, is set on the merge itself.
    centre, width, _ = _moments(merged[None], weight)
    stretch = stds.square().mean(dim=0).sqrt() / width[0].where(width[0] > 0, 1)
    scale = stretch * slope
    offset = means.mean(dim=0) - stretch * centre[0]
    stretch, offset = stretch[:, None].to(members), offset[:, None].to(members)
    deviation = stretch * spread(rough, merged, reduce)
    shift = offset[:, 0] - scale * means
    return stretch * merged + offset, deviation, scale.to(members), shift.to(members)


def _moments(members: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted means "e b", deviations "e b" and correlations "b e e" of "e b n", float64.

    A constant member has deviation 0 and correlation 0 with everything.
    """
    x, w = members.movedim(0, 1).double(), weight.double()[:, None]
    count = w.sum(dim=2).clamp_min(1)
    means = (x * w).sum(dim=2) / count
    centred = (x - means[..., None]) * w
    covariance = centred @ centred.mT / count[..., None]
    variance = covariance.diagonal(dim1=1, dim2=2)
    varies = variance > (1e-6 * means).square()  # above the rounding of float32 constants
    stds = torch.where(varies, variance, 0).sqrt()
    inverse = torch.where(varies, 1 / stds, 0)
    correlation = covariance * inverse[:, :, None] * inverse[:, None, :]
    return means.T, stds.T, correlation


def _loadings(correlation: Tensor) -> Tensor:
    """Slopes "e b" of standardised members regressed on their own merge, from correlations "b e e".

    In each round the merge is the mean of the scaled members; the slope of member i on it is
    proportional to sum_j correlation_ij loading_j (power iteration on the correlations). A negative
    correlation counts as none: a map that runs against another says nothing about it.
    """
    agreement = correlation.clamp_min(0)
    loading = torch.ones_like(agreement[..., :1])
    for _ in range(ROUNDS):
        loading = agreement @ loading
        loading = loading / loading.amax(dim=1, keepdim=True).clamp_min(1e-12)
    return loading[..., 0].T


def _merge_published(maps: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The rule of diffusers (see `merge_affine`): two BFGS steps, median, stretch to [0, 1].

    Kept for comparison, so rounding follows the original: parameters float64, maps float32, the
    lower of two middle values as the median.
    """
    scale, shift = _fit_published(_downsize(maps.float()))
    aligned = scale.to(maps)[:, None, None] * maps + shift.to(maps)[:, None, None]
    merged = aligned.median(dim=0).values
    deviation = (aligned - merged).abs().median(dim=0).values
    low = merged.min()
    width = (merged.max() - low).clamp_min(1e-6)
    return (
        (merged - low) / width,
        deviation / width,
        scale.to(maps) / width,
        (shift.to(maps) - low) / width,
    )


def _fit_published(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift "e" float64, from every member's own range by BFGS on `_published_cost`."""
    from scipy.optimize import minimize  # slow to import, needed for this rule alone

    low, high = maps.amin(dim=(1, 2)), maps.amax(dim=(1, 2))
    scale = 1 / (high - low).clamp_min(1e-6)
    start = torch.cat([scale, -scale * low]).cpu().numpy().astype(np.float64)
    found = minimize(
        lambda parameters: _published_cost(parameters, maps),
        start,
        method="BFGS",
        tol=PUBLISHED_TOLERANCE,
        options={"maxiter": PUBLISHED_ITERATIONS},
    )
    scale, shift = torch.from_numpy(found.x).chunk(2)
    return scale, shift


def _published_cost(parameters: np.ndarray, maps: Tensor) -> float:
    """Sum over pairs of the RMS difference, plus how far the median map is from spanning [0, 1]."""
    scale, shift = torch.from_numpy(parameters).to(maps).chunk(2)
    aligned = scale[:, None, None] * maps + shift[:, None, None]
    pairs = torch.combinations(torch.arange(len(maps))).tolist()
    distance = sum((aligned[i] - aligned[j]).square().mean().sqrt().item() for i, j in pairs)
    merged = aligned.median(dim=0).values
    misfit = merged.min().abs().item() + (1 - merged.max()).abs().item()
    return distance + PUBLISHED_REGULARISER * misfit


def _downsize(maps: Tensor) -> Tensor:
    """Nearest-neighbour to a longest side of at most PUBLISHED_LONGEST_SIDE."""
    h, w = maps.shape[1:]
    if max(h, w) <= PUBLISHED_LONGEST_SIDE:
        return maps
    size = [side * PUBLISHED_LONGEST_SIDE // max(h, w) for side in (h, w)]
    return F.interpolate(maps[None], size=size, mode="nearest-exact")[0]
