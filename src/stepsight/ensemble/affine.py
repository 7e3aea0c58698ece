"""Merging maps known only up to scale and shift: align them in closed form, then merge.

Members x_1 .. x_e are brought together by the scales and shifts that minimise

    sum_ij mean |(s_i x_i + t_i) - (s_j x_j + t_j)|^2   with   sum_i var(s_i x_i) held fixed.

Without the constraint the optimum is the collapsed one, all scales 0, which is where the published
cost leads (`stepsight.ensemble.published`). With it the shifts make all means equal, and with
a_i = s_i std(x_i) and the members' correlations C what is left is 2 e sum_i a_i^2 - 2 a' C a: the
least is at the leading eigenvector of C. It needs the members' moments alone, so the pixels are
read once. Negative correlations count as none, so that C is not negative, nor is its leading
eigenvector (Perron-Frobenius): no map enters mirrored, one that agrees with no other has little
scale or none, and power iteration from equal loadings cannot miss it, whatever the outliers.

The merge is then given the mean and the variance of the average member.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.ensemble.central import pick
from stepsight.ensemble.published import align_published
from stepsight.ensemble.reduce import REDUCE, Reduce, spread
from stepsight.errors import UserError, suggest

Rule = Literal["closed_form", "published", "mean", "median"]
RULES: tuple[Rule, ...] = ("closed_form", "published", "mean", "median")
BLOCK = 1024  # pixels of a sum in float32
ROUNDS = 8  # of power iteration; scales settle within 0.2 % (members of SNR 1 and up)


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
    if rule not in RULES:
        raise UserError(f"There is no rule '{rule}' for merging maps.{suggest(rule, RULES)}")
    if rule == "published":
        return align_published(maps)
    if rule == "closed_form" and len(maps) > 1:
        flat = maps.flatten(1)[:, None]
        merged, deviation, scale, shift = _align(flat, None, "median")
        merged, deviation = merged.reshape(maps.shape[1:]), deviation.reshape(maps.shape[1:])
        return merged, deviation, scale[:, 0], shift[:, 0]
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
    single member is returned as it is. A medoid is the member best correlated with the others.
    """
    if len(members) == 1:
        return members[0], torch.zeros_like(members[0, :, :1])
    weight = None if valid is None else valid.expand_as(members[0]).flatten(1)
    merged, deviation, _, _ = _align(members.flatten(2), weight, reduce)
    merged, deviation = merged.reshape(members[0].shape), deviation.reshape(members[0].shape)
    return merged, deviation.mean(dim=1, keepdim=True)


def _align(
    members: Tensor, weight: Tensor | None, reduce: Reduce
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Align members "e b n" on pixels of weight "b n" in {0, 1}: (merged, spread, scale, shift).

    merged and spread are "b n", scale and shift "e b", all in the members' dtype.
    """
    means, stds, correlation = _moments(members, weight)
    slope = _loadings(correlation) / stds.where(stds > 0, 1)
    rough = slope[..., None].to(members) * (members - means[..., None].to(members))
    if reduce == "medoid":
        merged = pick(rough, _best_correlated(correlation))
    else:
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


def _moments(members: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted means "e b", deviations "e b" and correlations "b e e" of "e b n": float64 on a CPU;
    elsewhere float32, as not every device has more, in sums that lose no more than a few 1e-7.

    A constant member has deviation 0 and correlation 0 with everything.
    """
    wide = torch.float64 if members.device.type == "cpu" else torch.float32
    x = members.movedim(0, 1).to(wide, copy=True)
    pixels = x.new_full((len(x), 1), x.shape[2]) if weight is None else weight.sum(dim=1)[:, None]
    count = pixels.clamp_min(1)
    means = _weighted(x, weight).sum(dim=2) / count
    centred = _weighted(x.sub_(means[..., None]), weight)
    if wide == torch.float32:  # what the rounding of the mean left
        rest = _weighted(centred, weight).sum(dim=2) / count
        means, centred = means + rest, _weighted(centred.sub_(rest[..., None]), weight)
    covariance = _products(centred) / count[..., None]
    variance = covariance.diagonal(dim1=1, dim2=2)
    varies = variance > (1e-6 * means).square()  # above the rounding of float32 constants
    stds = torch.where(varies, variance, 0).sqrt()
    inverse = torch.where(varies, 1 / stds, 0)
    correlation = covariance * inverse[:, :, None] * inverse[:, None, :]
    return means.T, stds.T, correlation


def _weighted(x: Tensor, weight: Tensor | None) -> Tensor:
    """ "b e n", changed in place, times weight "b n"."""
    return x if weight is None else x.mul_(weight[:, None])


def _products(x: Tensor) -> Tensor:
    """Sums over n of the products of all pairs of "b e n", "b e e"; in float32 in blocks, whose
    sums are added up pairwise, as one long sum would round ever larger numbers."""
    if x.dtype == torch.float64:
        return x @ x.mT
    blocks = F.pad(x, (0, -x.shape[2] % BLOCK)).unflatten(2, (-1, BLOCK)).transpose(1, 2)
    return (blocks @ blocks.mT).sum(dim=1)


def _loadings(correlation: Tensor) -> Tensor:
    """a of the module docstring "e b", up to a factor, from correlations "b e e".

    A round of power iteration is also one of regressing the standardised members on their own
    merge: the slope of member i on the mean of the scaled members goes as sum_j C_ij a_j.
    """
    agreement = correlation.clamp_min(0)
    loading = torch.ones_like(agreement[..., :1])
    for _ in range(ROUNDS):
        loading = agreement @ loading
        loading = loading / loading.amax(dim=1, keepdim=True).clamp_min(1e-12)
    return loading[..., 0].T


def _best_correlated(correlation: Tensor) -> Tensor:
    """The medoid "b" of standardised members: their distances are sqrt(2 - 2 C_ij)."""
    distance = (1 - correlation).clamp_min(0).sqrt().tril(-1)
    return (distance + distance.mT).sum(dim=2).argmin(dim=1)
