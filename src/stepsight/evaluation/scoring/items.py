"""One image after the other: read, predicted, scored; or set aside by name.

What cannot be read, and a prediction in a file that cannot be scored, is a bad item (`data.bad`).
A model's answer never is: where it holds a NaN, or a number that a protocol cannot take, it has
failed, and says so beside every score.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stepsight.data.bad import BadItems
from stepsight.data.collate import collate
from stepsight.data.resize import Size
from stepsight.data.table import Source, read_sample, read_samples
from stepsight.errors import UserError
from stepsight.evaluation.predictors import Estimate, Predictor
from stepsight.evaluation.scoring.journal import Record, TableKey, TableKind, Usage
from stepsight.evaluation.spread import uncertainty_rows
from stepsight.evaluation.views import ProtocolView, cropped, size_of, view_of
from stepsight.metrics.masked import Rows
from stepsight.metrics.protocol import Protocol
from stepsight.metrics.reduce import count_names
from stepsight.metrics.tables import TABLES
from stepsight.pipeline.memory import Exhausted
from stepsight.pipeline.working import grid_of
from stepsight.types import Batch, Prediction, Sample

PIXELS = 2**23  # at most so many are scored at a time, or one image: scoring copies them often
PART = 3600.0  # seconds that a few images may take at all settings before a process counts as hung


@dataclass
class Items:
    """The images that a process scores, read when they are needed."""

    predictor: Predictor
    source: Source
    protocols: Sequence[Protocol]
    indices: Sequence[int]
    bad: BadItems
    size: Size = (1, 1)  # of the last images

    def parts(self, todo: Sequence[int]) -> Iterator[Sequence[int]]:
        """Places: at most `chunk_size`, and no more than `PIXELS` allows of images like the last
        ones."""
        if todo:
            self.size = self._size_at(todo[0])
        start = 0
        while start < len(todo):
            most = min(self.predictor.chunk_size, _fitting(self.size))
            yield todo[start : start + most]
            start += most

    def scored(self, places: Sequence[int]) -> list[Record]:
        """A record for each of them; of those that cannot be scored one that says why."""
        errors: dict[int, UserError] = {}
        indices = [self.indices[place] for place in places]
        samples = read_samples(self.source, indices, errors.__setitem__)
        there = {place: one for place, one in zip(places, samples) if one is not None}
        unread = [
            self._bad(place, key_of(self.source, index), errors[index])
            for place, index, sample in zip(places, indices, samples)
            if sample is None
        ]
        if there:
            self.size = max(map(size_of, there.values()), key=math.prod)
        return unread + self._scored(there)

    def _scored(self, samples: dict[int, Sample]) -> list[Record]:
        """Records of samples by their places; after an error, one by one."""
        records = [Record(place, sample.key) for place, sample in samples.items()]
        try:
            _score_part(self.predictor, [*samples.values()], self.protocols, records)
        except Exhausted:
            raise
        except UserError as error:
            if len(samples) > 1:
                return [one for item in samples.items() for one in self._scored(dict([item]))]
            ((place, sample),) = samples.items()
            named = error if sample.key in str(error) else type(error)(f"{sample.key}: {error}")
            if not self.predictor.of_files:  # a model's answer is never the image's fault
                raise named from error
            return [self._bad(place, sample.key, named)]
        return records

    def _bad(self, place: int, key: str, error: UserError) -> Record:
        self.bad.met(self.source.name, key, error, of=len(self.indices))
        return Record(place, key, bad=str(error))

    def _size_at(self, place: int) -> Size:
        try:
            return size_of(read_sample(self.source, self.indices[place]))
        except UserError:  # which is met again when it is scored
            return self.source.size


def key_of(source: Source, index: int) -> str:
    """The key of a sample, without decoding it where the entries of the source have it; its number
    for one that cannot be read."""
    entries = getattr(source, "entries", ())
    if index < len(entries) and hasattr(entries[index], "key"):
        return entries[index].key
    try:
        return read_sample(source, index).key
    except UserError:
        return f"sample {index}"


def _score_part(
    predictor: Predictor,
    samples: Sequence[Sample],
    protocols: Sequence[Protocol],
    records: Sequence[Record],
) -> None:
    """Fill the records of `samples`, in batches of images that are alike in size once cropped."""
    for view in dict.fromkeys(map(view_of, protocols)):
        alike = [protocol for protocol in protocols if view_of(protocol) == view]
        crops = [cropped(sample, view.crop) for sample in samples]
        for places in same_size(crops):
            group = [crops[i] for i in places]
            sizes = [size_of(samples[i]) for i in places]
            _score_batch(predictor, group, view, sizes, alike, [records[i] for i in places])


def _score_batch(
    predictor: Predictor,
    samples: list[Sample],
    view: ProtocolView,
    sizes: Sequence[Size],
    protocols: Sequence[Protocol],
    records: Sequence[Record],
) -> None:
    batch = collate(samples).to(predictor.device)
    working = None
    for estimate in predictor.estimates(batch, view, sizes):
        working = estimate.working
        usage = Usage(estimate.seconds, working, estimate.peak_gb, estimate.fits)
        failed = _failed(estimate.prediction)
        for record, fault in zip(records, failed.tolist()):
            record.failed |= fault
        if failed.any():
            estimate = _filled(estimate, failed)
        for protocol in protocols:
            key = TableKey(protocol.name, "score", *estimate.setting, estimate.merge)
            try:
                rows, stated = _measured(predictor, estimate, batch, protocol, failed)
            except UserError:
                if len(records) > 1 or predictor.of_files:
                    raise  # whose fault it is shows one by one
                # A number that this protocol cannot take, such as a negative depth, is a failure of
                # the answer; where even ones are refused, it is not the answer's fault.
                every = torch.ones_like(failed)
                whole = _filled(estimate, every)
                rows, stated = _measured(predictor, whole, batch, protocol, every)
                records[0].failed = True
            _keep(records, key, rows)
            for record in records:
                record.usage[key] = usage
            if stated:
                _keep(records, key._replace(kind="uncertainty"), stated)
    others: list[tuple[TableKind, str, Prediction]] = [
        ("baseline", name, prediction) for name, prediction in predictor.trivial(batch).items()
    ]
    if working and (best := predictor.best(samples, batch, working)):
        others.append(("native" if working == grid_of(batch) else "resized", "", best))
    for kind, name, prediction in others:
        for protocol in protocols:
            rows = predictor.score(prediction, batch, protocol)
            _keep(records, TableKey(protocol.name, kind, baseline=name), rows)


def _measured(
    predictor: Predictor, estimate: Estimate, batch: Batch, protocol: Protocol, failed: Tensor
) -> tuple[Rows, Rows | None]:
    """The rows of the scores and, where members say something of it, of the uncertainty."""
    rows = predictor.score(estimate.prediction, batch, protocol)
    stated = uncertainty_rows(estimate, batch, protocol, predictor.given)
    return _mistaken(rows, failed), stated and _mistaken(stated, failed)


def _failed(prediction: Prediction) -> Tensor:
    """For which images the answer holds a NaN or an infinity, bool "b"."""
    parts = (part for part in (prediction.x, prediction.values) if part.is_floating_point())
    finite = [part.isfinite().flatten(1).all(dim=1) for part in parts]
    return ~torch.stack(finite).all(dim=0) if finite else torch.zeros(len(prediction.x)).bool()


def _filled(estimate: Estimate, failed: Tensor) -> Estimate:
    """The estimate with ones for all of a failed answer, since some protocols would not look at a
    NaN."""

    def filled(x: Tensor) -> Tensor:
        return torch.where(failed.view(-1, 1, 1, 1), 1, x)  # "... b c h w"

    some = {"members": estimate.members, "chances": estimate.chances}
    prediction = estimate.prediction
    spread = prediction.uncertainty
    prediction = replace(
        prediction,
        values=filled(prediction.values),
        uncertainty=None if spread is None else filled(spread),
    )
    others = {name: filled(value) for name, value in some.items() if value is not None}
    return replace(estimate, prediction=prediction, **others)


def _mistaken(rows: Rows, failed: Tensor) -> Rows:
    """The rows, in which a failed answer measures NaN and mistakes every labelled pixel."""
    if not failed.any():
        return rows
    rows = dict(rows)
    for name in rows.keys() - count_names() - TABLES:
        where = failed.view(-1, *[1] * (rows[name].ndim - 1))
        rows[name] = torch.where(where, torch.nan if rows[name].ndim == 1 else 0.0, rows[name])
    if "confusion" in rows:
        wrong = rows["confusion"].sum(-1).diag_embed().roll(1, -1)
        rows["confusion"] = torch.where(failed[:, None, None], wrong, rows["confusion"])
    if "weighted" in rows:
        rows["weighted"] = rows["weighted"].clone()
        rows["weighted"][failed, :, :2] = 0.0
    if "angles" in rows:
        opposite = torch.zeros_like(rows["angles"])
        opposite[:, -1] = rows["angles"].sum(-1)
        rows["angles"] = torch.where(failed[:, None], opposite, rows["angles"])
    return rows


def _keep(records: Sequence[Record], key: TableKey, rows: Rows) -> None:
    rows = {name: value.cpu() for name, value in rows.items()}
    for i, record in enumerate(records):
        record.tables[key] = {name: value[i].clone() for name, value in rows.items()}


def same_size(samples: Sequence[Sample]) -> list[list[int]]:
    """Places of the samples that share a batch: of the same size, and no more than `PIXELS`."""
    groups: dict[Size, list[int]] = {}
    for place, sample in enumerate(samples):
        groups.setdefault(size_of(sample), []).append(place)
    return [
        group[start : start + _fitting(size)]
        for size, group in groups.items()
        for start in range(0, len(group), _fitting(size))
    ]


def _fitting(size: Size) -> int:
    """How many images of a size are scored at a time."""
    return max(1, PIXELS // math.prod(size))
