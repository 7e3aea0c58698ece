"""The scores of a stated uncertainty: does it tell where, and how far, a prediction errs?

    ause, aurg    of the uncertainty against the pixel's error: |p - g| / g of aligned depth,
                  end-point error, angle, wrong class
    spread_error  Spearman's rank correlation of the two
    spread        mean of the uncertainty over the scored pixels
    coverage_90   share of the truth within the 90 % interval of a normal distribution about the
                  members' mean, `Answer.scale` times as wide as their standard deviation (depth and
                  flow); `coverage_90_raw` of the members as they are
    crps          of the raw members, in metres or pixels (depth and flow); `crps_calibrated` of the
                  members moved away from their mean by the scale
    brier         mean square of a probability less what happened (Brier 1950): of the object
                  (amodal); summed over the classes, 0 to 2 (semantic)
    edge_f1       of outlines, within a pixel (amodal, semantic; depth has a metric of that name)
    calibration   sums "b k 3" behind a reliability diagram (`metrics.uncertainty`): of such
                  intervals at nine levels (depth and flow; `calibration_raw` of the members as they
                  are), of the probability of the object (amodal), of the answer (semantic)

Rows of the raw members beside calibrated ones are there where a scale was fitted, that is not 1.

The uncertainty is the one that the prediction states, a calibrated one where its pipeline
calibrates it. The order of an image's pixels, all that `ause`, `aurg` and `spread_error` look at,
does not depend on that. A mask or a one-hot class map states probabilities without any ensemble
(`Answer.chances`): the uncertainty of a single one is sqrt(p (1 - p)) of the object's probability,
and 1 - p of the answer's. Class probabilities are the mean of the members'; classes in another
encoding have the share of the members that vote for them.

Depth that is known up to scale and shift is aligned first: the protocol's fit of the merged
prediction is applied to every member, so that what the members disagree on is not fitted away.
The uncertainty itself only orders the pixels of an image, in the space the values were given in.
Pixels and objects that the protocol leaves out are left out here too. These are means over images,
whatever the protocol's averaging.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from stepsight.evaluation.predictors import Answer
from stepsight.metrics import depth, flow, masked
from stepsight.metrics.alignment.align import Space, align
from stepsight.metrics.masked import Rows
from stepsight.metrics.masks import segmentation
from stepsight.metrics.masks.edges import outline_rows
from stepsight.metrics.protocol import Protocol
from stepsight.metrics.uncertainty import (
    aurg,
    ause,
    coverage,
    crps,
    gaussian_interval,
    interval_calibration,
    moments,
    probability_calibration,
    rank_correlation,
    widened,
)
from stepsight.types import IGNORE, Batch, Prediction

LEVEL = 0.9


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


def uncertainty_rows(answer: Answer, batch: Batch, rule: Protocol, given: Space) -> Rows:
    """One row an image; empty without uncertainty, or where the protocol scores no pixel errors."""
    case, spread = case_of(answer, batch, rule, given), answer.prediction.uncertainty
    if case is not None and spread is None:
        spread = case.doubt
    if case is None or spread is None:
        return {}
    rows = {
        "ause": ause(case.error, spread, case.valid),
        "aurg": aurg(case.error, spread, case.valid),
        "spread_error": rank_correlation(case.error, spread, case.valid),
        "spread": masked.mean(spread, case.valid),
    }
    if case.members is not None and case.truth is not None:
        rows |= _of_members(case.members, case.truth, case.valid, answer.scale)
    if case.outlines is not None:
        rows["edge_f1"] = outline_rows(*case.outlines, case.valid)["edge_f1"]
    if case.stated is not None and case.happened is not None and case.squares is not None:
        rows["brier"] = masked.mean(case.squares, case.valid)
        rows["calibration"] = probability_calibration(case.stated, case.happened, case.valid)
    return rows


def pixel_errors(
    prediction: Prediction, batch: Batch, rule: Protocol, given: Space = "depth"
) -> tuple[Tensor, Tensor] | None:
    """The error "b 1 h w" of every pixel (angles in degrees), and bool "b 1 h w" which of them the
    protocol scores; None where it scores no pixel errors."""
    grid = (int(batch.image.shape[-2]), int(batch.image.shape[-1]))
    case = case_of(Answer((1, 1), prediction, grid), batch, rule, given)
    if case is None:
        return None
    return case.error.rad2deg() if rule.task == "normals" else case.error, case.valid


def _of_members(members: Tensor, truth: Tensor, valid: Tensor, scale: float) -> Rows:
    """The rows that rest on the members "e b c h w" themselves."""
    members = members.double()
    rows = _of_intervals(members, truth, valid, scale) | {"crps": crps(members, truth, valid)}
    if scale != 1:
        rows["crps_calibrated"] = crps(widened(members, scale), truth, valid)
        raw = _of_intervals(members, truth, valid, 1.0)
        rows |= {f"{name}_raw": value for name, value in raw.items()}
    return rows


def _of_intervals(members: Tensor, truth: Tensor, valid: Tensor, scale: float) -> Rows:
    mean, deviation = moments(members)
    interval = gaussian_interval(mean, scale * deviation, LEVEL)
    return {
        "coverage_90": coverage(interval, truth, valid),
        "calibration": interval_calibration(mean, scale * deviation, truth, valid),
    }


def case_of(answer: Answer, batch: Batch, rule: Protocol, given: Space) -> Case | None:
    """None where the protocol scores no pixel errors."""
    values = answer.prediction.values
    match rule.task:
        case "depth" if rule.needs is None and rule.scored_in == "depth":
            return _depth(answer, batch, rule, given)
        case "flow" if rule.alignment == "none" and batch.flow is not None:
            assert batch.flow_valid is not None
            valid = flow.scored_pixels(batch.flow, batch.flow_valid, rule)
            error = (values - batch.flow).norm(dim=1, keepdim=True)
            return Case(error, valid, batch.flow, answer.members)
        case "amodal" if batch.modal is not None and batch.amodal is not None:
            return _amodal(answer, batch, rule)
        case "semantic" if batch.labels is not None:
            return _semantic(answer, batch.labels[:, None])
        case "normals" if batch.normals is not None and batch.normals_valid is not None:
            cosine = F.cosine_similarity(values, batch.normals, dim=1)[:, None]
            return Case(cosine.clamp(-1, 1).arccos(), batch.normals_valid)
    return None


def _amodal(answer: Answer, batch: Batch, rule: Protocol) -> Case:
    assert batch.modal is not None and batch.amodal is not None and batch.amodal_valid is not None
    valid = segmentation.scored_pixels(batch.modal, batch.amodal, batch.amodal_valid, rule)
    p, whole = answer.prediction.values, batch.amodal
    return Case(
        ((p > 0.5) != whole).float(),
        valid,
        doubt=None if answer.chances is None else (p * (1 - p)).clamp(min=0).sqrt(),
        stated=p,
        happened=whole,
        squares=(p.double() - whole.double()).square(),
        outlines=(p > 0.5, whole),
    )


def _semantic(answer: Answer, labels: Tensor) -> Case:
    values = answer.prediction.values
    stated, squares = _class_chances(answer, labels)
    return Case(
        (values != labels).float(),
        labels != IGNORE,
        doubt=None if stated is None else 1 - stated,
        stated=stated,
        happened=values == labels,
        squares=squares,
        outlines=(values, labels),
    )


def _class_chances(answer: Answer, labels: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """The probability of the answer, and sum_k (p_k - [k is true])^2, "b 1 h w" each; None where
    neither the answer states probabilities nor members vote."""
    values, votes = answer.prediction.values, answer.members
    known = torch.where(labels == IGNORE, 0, labels)
    if answer.chances is not None:
        p, at = answer.chances.double().flatten(2), _nearest(answer.chances, values)
        image = torch.arange(len(p), device=p.device)[:, None, None]
        stated, true = (p[image, ids[:, 0], at][:, None] for ids in (values, known))
        own = p.square().sum(1)[:, at][:, None]
    elif votes is not None:
        stated, true = ((votes == ids).double().mean(0) for ids in (values, known))
        own = torch.stack([(votes == one).double().mean(0) for one in votes]).mean(0)
    else:
        return None, None
    return stated, own - 2 * true + 1


def _nearest(small: Tensor, large: Tensor) -> Tensor:
    """For each pixel of `large "b c h w"` the nearest one of `small`, "h w", counted by rows."""
    height, width = small.shape[-2:]
    places = torch.arange(height * width, dtype=torch.float64, device=small.device)
    grid = places.reshape(1, 1, height, width)
    return F.interpolate(grid, size=large.shape[-2:], mode="nearest-exact")[0, 0].long()


def _depth(answer: Answer, batch: Batch, rule: Protocol, given: Space) -> Case | None:
    """The merged prediction and its members, stacked below one another and aligned as one map whose
    first part alone is fitted."""
    if batch.depth is None or batch.depth_valid is None or rule.space is None:
        return None
    merged, truth = answer.prediction.values, batch.depth
    maps = merged[None] if answer.members is None else torch.cat([merged[None], answer.members])
    height, width = truth.shape[-2:]
    scored = depth.scored_pixels(truth, batch.depth_valid, rule)
    first = torch.arange(len(maps) * height, device=truth.device)[:, None] < height
    tall = rearrange(maps, "e b 1 h w -> b 1 (e h) w")
    longest = max(tall.shape[-2:]) / max(height, width)
    aligned = align(
        tall,
        repeat(truth, "b 1 h w -> b 1 (e h) w", e=len(maps)),
        repeat(scored, "b 1 h w -> b 1 (e h) w", e=len(maps)),
        rule.alignment,
        rule.space,
        given=given,
        fit_to=first,
        fit_positive=rule.fit_positive,
        fit_width=None if rule.fit_width is None else round(rule.fit_width * longest),
        keys=batch.keys,
    )
    aligned = rearrange(aligned, "b 1 (e h) w -> e b 1 h w", h=height)
    p, *members = (depth.clipped(one, truth, scored, rule) for one in aligned)
    error = (p - truth).abs() / torch.where(scored, truth, 1.0)
    return Case(error, scored, truth, torch.stack(members) if members else None)
