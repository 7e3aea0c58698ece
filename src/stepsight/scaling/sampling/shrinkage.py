"""What is luck in a measured setting, and in the best of many.

A sweep measures the error y of a setting on some images: y = truth + noise. A setting that errs
less than all others around it is partly lucky, and the best of many is chosen for its luck (the
winner's curse). Both are undone here.

*Shrinkage.* Every y is drawn towards what all other settings say of it, m, by its noise: with r = y
- m, s^2 the variance of its noise, and v the mean square of the other settings' r,

    value = y - B r,   B = min(s^2, v) / v

(James & Stein 1961; Efron & Morris 1975, towards a regression as in their section 3). v holds the
noise and how far the truth lies off m, so that B is the share of the noise in it. No value moves by
more than `LIMIT` deviations of its noise, as a setting that is many of them off is no luck (limited
translation, Efron & Morris 1972).

*Noise.* Settings of a sweep are measured on the same images: most of their noise is shared, moves m
as well, and makes nobody the best. Where the images are at hand their covariance is the jackknife's

    C = (n - 1)/n sum_i (e_i - mean e)(e_i - mean e)'

of the errors e_i without image i (Efron & Tibshirani 1993, ch. 11), and s^2 the variance left
beside the mean of the other settings. The table alone tells the variance of each and not what is
shared. There noise counts as each setting's own, but not beyond v, as settings scatter by no less.

*Choice.* The choice is made again on values with noise drawn anew. How much better than the truth
its winners seem, which is known there, is what the winner seems too good (`optimism`): the bias of
a minimum by the bootstrap (Tibshirani & Tibshirani 2009; Tsamardinos et al. 2018).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stepsight.measures import measure
from stepsight.scaling.sampling.paired import FamilySetting, MetricTable, paired

LIMIT = 1.96
ROUNDING = 1e-9  # relative to an error, below which it is where the others say
DRAWS = 1000  # each with its mirror image, so that noise common to all settings cancels
Array = NDArray[np.float64]


def shrunk(errors: Array, left: Array, noise: Array) -> tuple[Array, Array]:
    """Values drawn towards what the others say, and the share that each measurement keeps.

    errors, left, noise: y, r and s^2, "c" each; r is nan where the others say nothing, and s^2
    where it is not known; both leave y as it is. Nor is one shrunk with fewer than two others.
    """
    scatter = scatter_of_others(left)
    off = np.abs(left) > ROUNDING * np.abs(errors)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.minimum(np.fmin(noise, scatter) / scatter, LIMIT * np.sqrt(noise) / np.abs(left))
    share = np.where(off & np.isfinite(share * scatter), share, 0.0)
    return errors - share * np.nan_to_num(left), 1 - share


def scatter_of_others(left: Array) -> Array:
    """v of every setting: the mean square of the others' `left` "c"; nan for fewer than two."""
    known = np.isfinite(left)
    squares = np.where(known, left, 0.0) ** 2
    others = known.sum() - known
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(others >= 2, (squares.sum() - squares) / others, np.nan)


def image_covariance(
    tables: Sequence[MetricTable], places: Sequence[FamilySetting]
) -> Array | None:
    """C "c c" of settings of one task and metric; None where the tables lack one of them, or share
    fewer than two images."""
    if not tables or not set(places) <= {place for table in tables for place in table.places}:
        return None
    both = paired(tables, set(places))
    if both.n < 2:
        return None
    sign = -1 if measure(both.metric).higher_is_better else 1
    without = [both.of(rows.sum(axis=0) - rows) for rows in map(both.rows.__getitem__, places)]
    errors = sign * np.stack(without)
    away = errors - errors.mean(axis=1, keepdims=True)
    covariance = (both.n - 1) / both.n * away @ away.T
    return covariance if np.isfinite(covariance).all() else None


def beside_the_others(covariance: Array) -> Array:
    """The variance "c" of the noise of each setting that no multiple of the others' mean explains,
    of C "c c": hard images are hard for all settings, and harder for those that err more."""
    n = len(covariance)
    others = (1 - np.eye(n)) / max(n - 1, 1)
    own, mean = np.diagonal(covariance), np.einsum("ij,jk,ik->i", others, covariance, others)
    shared = np.einsum("ij,ji->i", others, covariance)
    explained = np.where(mean > 0, shared**2 / np.where(mean > 0, mean, 1.0), 0.0)
    return np.clip(own - explained, 0.0, None)


def optimism(values: Array, noise: Array, seed: int = 0) -> float:
    """How much less than the truth the least of `values` "m" seems, on average.

    noise: a factor of their covariance, "m c", such that `noise @ z` is the noise of the values for
    standard normal z.
    """
    z = np.random.default_rng(seed).standard_normal((DRAWS, noise.shape[1]))
    drawn = np.concatenate([z, -z]) @ noise.T
    best = np.argmin(values + drawn, axis=1)
    return max(-float(drawn[np.arange(len(drawn)), best].mean()), 0.0)


def root(covariance: Array) -> Array:
    """A factor "c c" of a covariance "c c", which may be singular: its symmetric root."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.clip(values, 0.0, None))
