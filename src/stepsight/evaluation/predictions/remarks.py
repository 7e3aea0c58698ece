"""What is implausible about predictions by themselves, by the rules that samples are held to."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from stepsight.data.collate import collate
from stepsight.data.plausible.judging import FIRST, prediction_remarks
from stepsight.data.plausible.rules import Remark
from stepsight.data.table import Source, read_samples
from stepsight.errors import UserError
from stepsight.evaluation.predictions.imported import Imported
from stepsight.evaluation.views import cropped, size_of, view_of
from stepsight.metrics.protocol import Protocol
from stepsight.types import Sample

FIELDS = {"depth": "depth", "flow": "flow", "normals": "normals", "amodal": "amodal"}


def remarks_on(
    predictor: Imported, source: Source, protocol: Protocol, indices: Sequence[int]
) -> list[Remark]:
    """Of the first few predictions that can be read. Depth is only held to the rules of depth where
    it is given as that, in metres."""
    field = FIELDS.get(predictor.name)
    if field is None or (field == "depth" and not _metric(predictor, protocol)):
        return []
    found, view = list[tuple[Sample, Tensor]](), view_of(protocol)
    for sample in read_samples(source, indices[:FIRST], lambda index, error: None):
        if sample is None:
            continue
        part = cropped(sample, view.crop)
        try:
            (estimate,) = predictor.estimates(collate([part]), view, [size_of(sample)])
        except UserError:  # which is met again, by name, when it is scored
            continue
        values = estimate.prediction.values[0]
        found.append((part, values > 0.5 if field == "amodal" else values))
    return prediction_remarks(field, found)


def _metric(predictor: Imported, protocol: Protocol) -> bool:
    return predictor.given == "depth" and protocol.alignment == "none"
