"""Predicted values of any task, one row of numbers an image, under one protocol.

The one door to the metrics: a model's predictions and those of another program's files are scored
by the same call, so one dump may be scored under as many protocols as there are.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from stepsight.errors import UserError
from stepsight.metrics.alignment.align import Space
from stepsight.metrics.alignment.normalised import normalised_rows
from stepsight.metrics.depth import depth_rows
from stepsight.metrics.flow import axis_fit, flow_rows, scored_pixels
from stepsight.metrics.masked import Rows
from stepsight.metrics.masks.panoptic import panoptic_rows
from stepsight.metrics.masks.segmentation import amodal_rows, semantic_rows
from stepsight.metrics.normals import normals_rows
from stepsight.metrics.ordering import ordering_rows
from stepsight.metrics.protocol import Protocol
from stepsight.metrics.reduce import reported
from stepsight.metrics.truth import require
from stepsight.types import IGNORE, Batch


def score(
    values: Tensor, batch: Batch, protocol: Protocol, *, given: Space = "depth", classes: int = 0
) -> Rows:
    """Rows of `values` against the truth of `batch`: what the protocol reports, with its counts.

    `values` by the protocol's task: depth "b 1 h w" in what `given` says (metres, 1/metres,
    logarithms, if only up to the fit), flow "b 2 h w" in pixels, amodal probability "b 1 h w",
    semantic class ids "b 1 h w", panoptic (class, instance number) "b 2 h w" int64, normals
    "b 3 h w". `classes` counts those of the last but one and two.

    Raises UserError where the batch lacks the truth, a class id has no class, or the alignment
    meets values it cannot take.
    """
    scorer = _SCORERS.get(protocol.task)
    if scorer is None:
        raise UserError(f"Values alone cannot be scored under {protocol.name}: it needs a model.")
    return reported(scorer(values, batch, protocol, given, classes), protocol)


def _depth(values: Tensor, batch: Batch, protocol: Protocol, given: Space, _: int) -> Rows:
    if protocol.needs == "order":
        (order,) = _truth(batch, protocol, "order")
        return ordering_rows(values, order, given=given)
    depth, valid = _truth(batch, protocol, "depth", "depth_valid")
    if protocol.scored_in == "normalised":
        if given != "depth":
            raise UserError(f"{protocol.name} scores depth up to scale and shift, not {given}.")
        return normalised_rows(values, depth, valid)
    return depth_rows(values, depth, valid, protocol, given=given, keys=batch.keys)


def _flow(values: Tensor, batch: Batch, protocol: Protocol, *_: object) -> Rows:
    flow, valid = _truth(batch, protocol, "flow", "flow_valid")
    valid = scored_pixels(flow, valid, protocol)
    if protocol.alignment == "affine":
        values = axis_fit(values, flow, valid)
    rows = flow_rows(values, flow, valid, batch.occluded)
    return rows if protocol.unit is None else rows | {"epe_units": rows["epe"] / protocol.unit}


def _amodal(values: Tensor, batch: Batch, protocol: Protocol, *_: object) -> Rows:
    modal, amodal, valid = _truth(batch, protocol, "modal", "amodal", "amodal_valid")
    return amodal_rows(values > 0.5, modal, amodal, valid, protocol)


def _semantic(values: Tensor, batch: Batch, protocol: Protocol, _: Space, classes: int) -> Rows:
    (labels,) = _truth(batch, protocol, "labels")
    _refuse_unknown(values[:, 0], labels != IGNORE, classes, batch)
    return semantic_rows(values[:, 0], labels, classes)


def _panoptic(values: Tensor, batch: Batch, protocol: Protocol, _: Space, classes: int) -> Rows:
    labels, instances = _truth(batch, protocol, "labels", "instances")
    _refuse_unknown(values[:, 0], values[:, 0] != IGNORE, classes, batch)
    return panoptic_rows(values, labels, instances, classes)


def _normals(values: Tensor, batch: Batch, protocol: Protocol, *_: object) -> Rows:
    return normals_rows(values, *_truth(batch, protocol, "normals", "normals_valid"))


_SCORERS: dict[str, Callable[[Tensor, Batch, Protocol, Space, int], Rows]] = {
    "depth": _depth,
    "flow": _flow,
    "amodal": _amodal,
    "semantic": _semantic,
    "panoptic": _panoptic,
    "normals": _normals,
}


def _truth(batch: Batch, protocol: Protocol, *names: str) -> tuple[Tensor, ...]:
    return require(f"{protocol.task} under {protocol.name}", batch, *names)


def _refuse_unknown(ids: Tensor, where: Tensor, classes: int, batch: Batch) -> None:
    """Predicted class ids "b h w" have to be 0 .. classes - 1 where they count."""
    wrong = where & ((ids < 0) | (ids >= classes))
    if wrong.any():
        image = int(torch.nonzero(wrong)[0, 0])
        raise UserError(
            f"{batch.keys[image]}: class {int(ids[wrong][0])} is predicted where there are "
            f"{classes} classes, 0 to {classes - 1}. Write class numbers from 0, not colours or "
            "the data set's own ids."
        )
