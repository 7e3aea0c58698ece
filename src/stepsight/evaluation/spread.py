"""The scores of a stated uncertainty: does it tell where, and how far, a prediction errs?

    ause, aurg   of the prediction's uncertainty against the pixel's error: |p - g| / g of aligned
                 depth, end-point error, angle, wrong class
    spread       mean of that uncertainty over the scored pixels
    coverage_90  share of the truth within the 90 % interval of a normal distribution with the
                 members' mean and standard deviation (depth and flow)
    crps         of the members, in metres or pixels (depth and flow)
    brier        mean square of a probability less what happened: of the object (amodal), of the
                 answer being right by the share of members that vote for it (semantic)
    edge_f1      of outlines, within a pixel (amodal, semantic; depth has a metric of that name)
    calibration  sums "b k 3" behind a reliability diagram (`metrics.uncertainty`): of such
                 intervals at nine levels (depth and flow), of the probability of the object
                 (amodal), of the share of members that vote for the answer (semantic)

Depth that is known up to scale and shift is aligned first: the protocol's fit of the merged
prediction is applied to every member, so that what the members disagree on is not fitted away.
The stated uncertainty itself only orders the pixels of an image, in the space the values were given
in. Pixels and objects that the protocol leaves out are left out here too. These are means over
images, whatever the protocol's averaging.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from stepsight.evaluation.predictors import Answer
from stepsight.metrics import depth, flow, masked, segmentation
from stepsight.metrics.alignment import Space, align
from stepsight.metrics.edges import outline_rows
from stepsight.metrics.masked import Rows
from stepsight.metrics.protocol import Protocol
from stepsight.metrics.uncertainty import (
    aurg,
    ause,
    coverage,
    crps,
    gaussian_interval,
    interval_calibration,
    probability_calibration,
)
from stepsight.types import IGNORE, Batch

LEVEL = 0.9


class Case(NamedTuple):
    """A prediction beside the truth, as it is scored."""

    error: Tensor  # "b 1 h w", >= 0
    valid: Tensor  # bool "b 1 h w"
    truth: Tensor | None = None  # "b c h w", and
    members: Tensor | None = None  # "e b c h w" in its unit, where they can be compared
    stated: Tensor | None = None  # a probability "b 1 h w", and
    happened: Tensor | None = None  # bool "b 1 h w", whether what it speaks of is so
    outlines: tuple[Tensor, Tensor] | None = None  # masks or classes "b 1 h w", predicted and true


def uncertainty_rows(answer: Answer, batch: Batch, rule: Protocol, given: Space) -> Rows:
    """One row an image; empty without uncertainty, or where the protocol scores no pixel errors."""
    spread = answer.prediction.uncertainty
    case = None if spread is None else _case(answer, batch, rule, given)
    if case is None or spread is None:
        return {}
    rows = {
        "ause": ause(case.error, spread, case.valid),
        "aurg": aurg(case.error, spread, case.valid),
        "spread": masked.mean(spread, case.valid),
    }
    if case.members is not None and case.truth is not None:
        rows |= _of_members(case.members.double(), case.truth, case.valid)
    if case.outlines is not None:
        rows["edge_f1"] = outline_rows(*case.outlines, case.valid)["edge_f1"]
    if case.stated is not None and case.happened is not None:
        squares = (case.stated.double() - case.happened.double()).square()
        rows["brier"] = masked.mean(squares, case.valid)
        sums = probability_calibration(case.stated, case.happened, case.valid)
        rows["calibration"] = sums
    return rows


def _of_members(members: Tensor, truth: Tensor, valid: Tensor) -> Rows:
    """The rows that rest on the members "e b c h w" themselves."""
    mean, deviation = members.mean(0), members.std(0, correction=1)
    return {
        "coverage_90": coverage(gaussian_interval(mean, deviation, LEVEL), truth, valid),
        "crps": crps(members, truth, valid),
        "calibration": interval_calibration(mean, deviation, truth, valid),
    }


def _case(answer: Answer, batch: Batch, rule: Protocol, given: Space) -> Case | None:
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
            assert batch.amodal_valid is not None
            masks = batch.modal, batch.amodal, batch.amodal_valid
            valid = segmentation.scored_pixels(*masks, rule)
            found = values > 0.5
            error, outlines = (found != batch.amodal).float(), (found, batch.amodal)
            return Case(error, valid, stated=values, happened=batch.amodal, outlines=outlines)
        case "semantic" if batch.labels is not None:
            labels = batch.labels[:, None]
            wrong, votes = values != labels, answer.members
            share = None if votes is None else (votes == values).double().mean(0)
            outlines = values, labels
            return Case(
                wrong.float(), labels != IGNORE, stated=share, happened=~wrong, outlines=outlines
            )
        case "normals" if batch.normals is not None and batch.normals_valid is not None:
            cosine = F.cosine_similarity(values, batch.normals, dim=1)[:, None]
            return Case(cosine.clamp(-1, 1).arccos(), batch.normals_valid)
    return None


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
