"""The scores of a stated uncertainty: does it say where, and how far, a prediction errs?

    ause, aurg    of the uncertainty against the pixel's error: |p - g| / g of aligned depth,
                  end-point error, angle, wrong class
    spread_error  Spearman's rank correlation of the two
    spread        mean of the uncertainty over the scored pixels
    coverage_90   share of the truth within the 90 % interval of a normal distribution about the
                  members' mean, `Estimate.scale` times as wide as their standard deviation (depth
                  and flow); `coverage_90_raw` of the members as they are
    crps          of the raw members, in metres or pixels (depth and flow); `crps_calibrated` of the
                  members moved away from their mean by the scale
    brier         mean square of a probability less what happened (Brier 1950): of the object
                  (amodal); summed over the classes, 0 to 2 (semantic)
    edge_f1       of outlines, within a pixel (amodal, semantic; depth has a metric of that name)
    calibration   sums "b k 3" behind a reliability diagram (`metrics.uncertainty`): of such
                  intervals at nine levels (depth and flow; `calibration_raw` of the members as they
                  are), of the probability of the object (amodal), of the answer (semantic)

Rows of the raw members beside calibrated ones are there where a scale was fitted, that is not 1.

The uncertainty is what the prediction states, a calibrated one where its pipeline
calibrates it. The order of an image's pixels, all that `ause`, `aurg` and `spread_error` look at,
does not depend on that. A mask or a one-hot class map states probabilities without any ensemble
(`Estimate.chances`): the uncertainty of a single member is sqrt(p (1 - p)) of the probability of
the object, and 1 - p of that of the answer. Class probabilities are the mean of the members';
classes in another encoding have the share of the members that vote for them.

Depth that is known up to scale and shift is aligned first: the protocol's fit of the merged
prediction is applied to every member, so that what the members disagree on is not fitted away.
The uncertainty itself only orders the pixels of an image, in the space the values were given in.
Pixels and objects that the protocol leaves out are left out here too. These are means over images,
whatever the protocol's averaging.
"""

from __future__ import annotations

from torch import Tensor

from stepsight.evaluation.predictors import Estimate
from stepsight.metrics import masked, uncertainty
from stepsight.metrics.alignment.align import Space
from stepsight.metrics.masked import Rows
from stepsight.metrics.masks.edges import outline_rows
from stepsight.metrics.protocol import Protocol
from stepsight.metrics.uncertainty import Case, Stated
from stepsight.pipeline.working import grid_of
from stepsight.tasks.table import task_for
from stepsight.types import Batch, Prediction

LEVEL = 0.9


def uncertainty_rows(estimate: Estimate, batch: Batch, rule: Protocol, given: Space) -> Rows:
    """A row per image; empty without uncertainty, or where the protocol scores no pixel errors."""
    case, spread = case_of(estimate, batch, rule, given), estimate.prediction.uncertainty
    if case is not None and spread is None:
        spread = case.doubt
    if case is None or spread is None:
        return {}
    rows = uncertainty.ordering(case.error, spread, case.valid)
    rows["spread"] = masked.mean(spread, case.valid)
    if case.members is not None and case.truth is not None:
        rows |= _of_members(case.members, case.truth, case.valid, estimate.scale)
    if case.outlines is not None:
        rows["edge_f1"] = outline_rows(*case.outlines, case.valid)["edge_f1"]
    if case.stated is not None and case.happened is not None and case.squares is not None:
        rows["brier"] = masked.mean(case.squares, case.valid)
        rows["calibration"] = uncertainty.probability_calibration(
            case.stated, case.happened, case.valid
        )
    return rows


def pixel_errors(
    prediction: Prediction, batch: Batch, rule: Protocol, given: Space = "depth"
) -> tuple[Tensor, Tensor] | None:
    """The error "b 1 h w" of every pixel in the metric's unit, and bool "b 1 h w" which of them the
    protocol scores; None where it scores no pixel errors."""
    case = case_of(Estimate((1, 1), prediction, grid_of(batch)), batch, rule, given)
    return None if case is None else (case.error * case.unit, case.valid)


def _of_members(members: Tensor, truth: Tensor, valid: Tensor, scale: float) -> Rows:
    """The rows that rest on the members "e b c h w" themselves."""
    members = members.double()
    rows = _of_intervals(members, truth, valid, scale)
    rows["crps"] = uncertainty.crps(members, truth, valid)
    if scale != 1:
        wide = uncertainty.widened(members, scale)
        rows["crps_calibrated"] = uncertainty.crps(wide, truth, valid)
        raw = _of_intervals(members, truth, valid, 1.0)
        rows |= {f"{name}_raw": value for name, value in raw.items()}
    return rows


def _of_intervals(members: Tensor, truth: Tensor, valid: Tensor, scale: float) -> Rows:
    mean, deviation = uncertainty.moments(members)
    interval = uncertainty.gaussian_interval(mean, scale * deviation, LEVEL)
    return {
        "coverage_90": uncertainty.coverage(interval, truth, valid),
        "calibration": uncertainty.interval_calibration(mean, scale * deviation, truth, valid),
    }


def case_of(estimate: Estimate, batch: Batch, rule: Protocol, given: Space) -> Case | None:
    """None where the protocol scores no pixel errors."""
    stated = Stated(estimate.prediction.values, estimate.members, estimate.chances, given)
    return task_for(rule.task).case(stated, batch, rule)
