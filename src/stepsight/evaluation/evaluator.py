"""Scoring: every image of a source, at any number of test-time settings and under any number of
protocols, against trivial predictors.

`score` is the loop that validation, evaluation, the sweep and imported predictions share. It
returns rows of numbers, one per image; means are taken once, after the rows of all processes are
together.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median_low
from typing import Any

import torch
import torch.distributed

from stepsight.data.collate import collate
from stepsight.data.resize import Size
from stepsight.data.table import Source
from stepsight.distributed import barrier, rank, world
from stepsight.errors import UserError
from stepsight.evaluation.journal import Journal, Record, TableKey, TableKind, Usage
from stepsight.evaluation.predictors import Model, Predictor
from stepsight.evaluation.spread import uncertainty_rows
from stepsight.evaluation.statistics import stacked
from stepsight.evaluation.views import ProtocolView, cropped, size_of, view_of
from stepsight.metrics import protocol as protocol_table
from stepsight.metrics.masked import Rows
from stepsight.metrics.protocol import Protocol
from stepsight.pipeline.dense import DensePipeline
from stepsight.pipeline.working import grid_of
from stepsight.scaling.sampling.paired import Setting
from stepsight.types import Prediction, Sample

PIXELS = 2**23  # at most so many are scored at a time, or one image: scoring copies them often


@dataclass
class Scores:
    """Rows of every image in the order of the source, under a protocol and a merge rule."""

    task: str
    source: str
    protocol: str
    keys: list[str] = field(default_factory=list)
    settings: dict[Setting, Rows] = field(default_factory=dict)
    baselines: dict[str, Rows] = field(default_factory=dict)
    ceiling: Rows = field(default_factory=dict)  # the truth of resized images, there and back
    uncertainty: dict[Setting, Rows] = field(default_factory=dict)  # see `spread`
    seconds: dict[Setting, float] = field(default_factory=dict)  # per image, median over batches
    working: Size = (0, 0)  # of most images
    sizes: Counter[Size] = field(default_factory=Counter)  # images worked at each size
    peak_gb: dict[Setting, float] = field(default_factory=dict)  # of memory
    merge: str = ""  # the rule, where several were asked for


def score_source(
    pipeline: DensePipeline,
    source: Source,
    task: str,
    *,
    protocol: str,
    indices: Sequence[int],
    nfe: Sequence[int],
    members: Sequence[int],
    sampler: str | None = None,
    seed: int = 0,
    chunk_size: int = 64,
    advance: Callable[[int], None] = lambda images: None,
) -> Scores:
    """A model's scores of a task under a protocol, at every pair of `nfe` and `members`."""
    sampler = sampler or pipeline.config.diffusion.sampler
    model = Model(pipeline, task, nfe, members, sampler, seed, chunk_size)
    protocols = [protocol_table.get(protocol, task)]
    (scores,) = score(model, source, protocols, indices, advance=advance)
    return scores


@torch.inference_mode()
def score(
    predictor: Predictor,
    source: Source,
    protocols: Sequence[Protocol],
    indices: Sequence[int],
    *,
    journal: Journal | None = None,
    advance: Callable[[int], None] = lambda images: None,
) -> list[Scores]:
    """Score `indices` of `source` under each of `protocols`, at every setting of the predictor; a
    predictor that merges by several rules has that many scores under each.

    Protocols that see an image alike (`views`) share its prediction. With several processes each
    takes every n-th image; all return the same scores, or raise the same UserError. Images in the
    journal are not done again.
    """
    mine: list[Record | UserError] = []
    try:
        for part in _scored(predictor, source, protocols, indices, journal):
            mine += part
            advance(len(part) * world())
    except UserError as error:  # the others wait for this process, and the first one speaks
        mine.append(error)
    records: list[Record] = []
    for scored in all_gathered(mine):
        if isinstance(scored, UserError):
            raise scored
        records.append(scored)
    assert records, "no image was scored"
    records.sort(key=lambda record: record.place)
    merges = dict.fromkeys(key.merge for record in records for key in record.usage)
    title = getattr(source, "title", source.name)
    return [
        _scores(predictor.name, title, protocol.name, records, merge)
        for protocol in protocols
        for merge in merges
    ]


def _scored(
    predictor: Predictor,
    source: Source,
    protocols: Sequence[Protocol],
    indices: Sequence[int],
    journal: Journal | None,
) -> Iterator[list[Record]]:
    """The records of this process: those of the journal, then part by part what is scored now."""
    mine = range(rank(), len(indices), world())
    known = journal.records() if journal else {}
    barrier()  # what others write from now on is not of an earlier evaluation
    if done := [known[place] for place in mine if place in known]:
        yield done
    todo = [place for place in mine if place not in known]
    for places, samples in _parts(source, indices, todo, predictor.chunk_size):
        fresh = [Record(place, sample.key) for place, sample in zip(places, samples)]
        _score_part(predictor, samples, protocols, fresh)
        if journal:
            journal.add(fresh)
        yield fresh


def _parts(
    source: Source, indices: Sequence[int], todo: Sequence[int], chunk_size: int
) -> Iterator[tuple[Sequence[int], list[Sample]]]:
    """Places and their samples, read when they are needed: at most `chunk_size`, and no more than
    `PIXELS` allows of images like the last ones."""
    start, size = 0, size_of(source[indices[todo[0]]]) if todo else (1, 1)
    while start < len(todo):
        places = todo[start : start + min(chunk_size, _fitting(size))]
        samples = source.samples([indices[place] for place in places])
        yield places, samples
        size = max(map(size_of, samples), key=math.prod)
        start += len(places)


def _fitting(size: Size) -> int:
    """How many images of a size are scored at a time."""
    return max(1, PIXELS // math.prod(size))


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
        usage = Usage(estimate.seconds, working, estimate.peak_gb)
        for protocol in protocols:
            key = TableKey(protocol.name, "score", *estimate.setting, estimate.merge)
            _keep(records, key, predictor.score(estimate.prediction, batch, protocol))
            for record in records:
                record.usage[key] = usage
            if stated := uncertainty_rows(estimate, batch, protocol, predictor.given):
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


def _keep(records: Sequence[Record], key: TableKey, rows: Rows) -> None:
    rows = {name: value.cpu() for name, value in rows.items()}
    for i, record in enumerate(records):
        record.tables[key] = {name: value[i].clone() for name, value in rows.items()}


def _scores(
    task: str, source: str, protocol: str, records: Sequence[Record], merge: str = ""
) -> Scores:
    """The rows of a protocol and merge rule, from the records of all images in their order.

    Raises UserError if images differ in what was predicted for them.
    """
    scores = Scores(task, source, protocol, keys=[record.key for record in records], merge=merge)
    scores.ceiling = _ceiling(protocol, records)
    for key in dict.fromkeys(key for record in records for key in record.tables):
        if key.protocol != protocol:
            continue
        if key.kind == "baseline":
            scores.baselines[key.baseline] = _of_all(key, records)
        elif key.kind == "uncertainty" and key.merge == merge:
            scores.uncertainty[key.setting] = _of_all(key, records)
        elif key.kind == "score" and key.merge == merge:
            scores.settings[key.setting] = _of_all(key, records)
            usage = [record.usage[key] for record in records]
            scores.seconds[key.setting] = median_low(used.seconds for used in usage)
            scores.peak_gb[key.setting] = max(used.peak_gb for used in usage)
            scores.sizes = Counter(used.working for used in usage)
            scores.working = scores.sizes.most_common(1)[0][0]
    return scores


def _ceiling(protocol: str, records: Sequence[Record]) -> Rows:
    """The truth through the working size and back, of every image; {} where none was resized."""
    resized, native = TableKey(protocol, "resized"), TableKey(protocol, "native")
    if not any(resized in record.tables for record in records):
        return {}
    return stacked([record.tables.get(resized) or record.tables[native] for record in records])


def _of_all(key: TableKey, records: Sequence[Record]) -> Rows:
    """The rows of all images. Raises UserError unless all have them: a mean over some of them is
    another score."""
    if lacking := next((record.key for record in records if key not in record.tables), None):
        having = next(record.key for record in records if key in record.tables)
        what = "an uncertainty" if key.kind == "uncertainty" else f"{key.members} members"
        raise UserError(f"{having} has {what}, {lacking} has not. Score them apart.")
    return stacked([record.tables[key] for record in records])


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


def all_gathered(mine: list[Any]) -> list[Any]:
    """What all processes hold, together."""
    if world() == 1:
        return mine
    parts: list[Any] = [None] * world()
    torch.distributed.all_gather_object(parts, mine)
    return [record for part in parts for record in part]
