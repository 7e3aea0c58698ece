"""Scoring: every image of a source, at one or many test-time settings, against trivial predictors,
under one or several protocols.

`score` is the one loop that validation, evaluation, the sweep and imported predictions share. It
returns rows of numbers, one an image; means are taken once, after the rows of all processes are
together.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from stepsight.data.collate import collate
from stepsight.data.resize import Size
from stepsight.data.table import Source
from stepsight.errors import UserError
from stepsight.evaluation.journal import Journal, Record
from stepsight.evaluation.predictors import Answer, Model, Predictor, Setting, grid_of
from stepsight.evaluation.spread import uncertainty_rows
from stepsight.evaluation.views import View, by_view, cropped
from stepsight.metrics import protocol as protocols
from stepsight.metrics.masked import Rows
from stepsight.metrics.protocol import Protocol
from stepsight.pipeline.dense import DensePipeline
from stepsight.types import Batch, Sample

PIXELS = 2**23  # at most so many are scored at a time, or one image: scoring copies them often
RESIZED, NATIVE = "resized", "native"  # tables of the ceiling
BY = "@"  # between a setting and the rule that merged its members


@dataclass
class Scores:
    """Rows of every image in the order of the source, under one protocol and one merge rule."""

    task: str
    source: str
    protocol: str
    keys: list[str] = field(default_factory=list)
    settings: dict[Setting, Rows] = field(default_factory=dict)
    baselines: dict[str, Rows] = field(default_factory=dict)
    ceiling: Rows = field(default_factory=dict)  # the truth of resized images, there and back
    uncertainty: dict[Setting, Rows] = field(default_factory=dict)  # see `spread`
    seconds: dict[Setting, float] = field(default_factory=dict)  # an image, median over batches
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
    rows: int = 64,
    advance: Callable[[int], None] = lambda images: None,
) -> Scores:
    """A model's scores of one task under one protocol, at every pair of `nfe` and `members`."""
    chosen = sampler or pipeline.config.diffusion.sampler
    model = Model(pipeline, task, nfe, members, chosen, seed, rows)
    (scores,) = score(model, source, [protocols.get(protocol, task)], indices, advance=advance)
    return scores


@torch.inference_mode()
def score(
    predictor: Predictor,
    source: Source,
    rules: Sequence[Protocol],
    indices: Sequence[int],
    *,
    journal: Journal | None = None,
    advance: Callable[[int], None] = lambda images: None,
) -> list[Scores]:
    """Score `indices` of `source` under each of `rules`, at every setting of the predictor; a
    predictor that merges by several rules has that many scores under each.

    Protocols that see an image alike (`views`) share its prediction. With several processes each
    takes every n-th image; all return the same scores, or raise the same UserError. Images in the
    journal are not done again.
    """
    own: list[Record | UserError] = []
    try:
        for part in _scored(predictor, source, rules, indices, journal):
            own += part
            advance(len(part) * world())
    except UserError as error:  # the others wait for this process, and the first one speaks
        own.append(error)
    found = all_gathered(own)
    for error in (one for one in found if isinstance(one, UserError)):
        raise error
    records = sorted(found, key=lambda record: record.place)
    assert records, "no image was scored"
    return [
        _scores(predictor.name, getattr(source, "title", source.name), rule.name, records, merge)
        for rule in rules
        for merge in _merges(records)
    ]


def _scored(
    predictor: Predictor,
    source: Source,
    rules: Sequence[Protocol],
    indices: Sequence[int],
    journal: Journal | None,
) -> Iterator[list[Record]]:
    """The records of this process: those of the journal, then part by part what is scored now."""
    mine = range(rank(), len(indices), world())
    known = journal.records() if journal else {}
    if world() > 1:
        dist.barrier()  # or one would take what another has just written for an earlier evaluation
    if done := [known[place] for place in mine if place in known]:
        yield done
    todo = [place for place in mine if place not in known]
    for places, samples in _parts(source, indices, todo, predictor.rows):
        fresh = [Record(place, sample.key) for place, sample in zip(places, samples)]
        _score_part(predictor, samples, rules, fresh)
        if journal:
            journal.add(fresh)
        yield fresh


def _parts(
    source: Source, indices: Sequence[int], todo: Sequence[int], rows: int
) -> Iterator[tuple[Sequence[int], list[Sample]]]:
    """Places and their samples, read when they are needed: at most `rows`, and no more than
    `PIXELS` allows of images like the last ones."""
    start, size = 0, _size(source[indices[todo[0]]]) if todo else (1, 1)
    while start < len(todo):
        places = todo[start : start + min(rows, _fitting(size))]
        samples = source.samples([indices[place] for place in places])
        yield places, samples
        size = max(map(_size, samples), key=math.prod)
        start += len(places)


def _fitting(size: Size) -> int:
    """How many images of a size are scored at a time."""
    return max(1, PIXELS // math.prod(size))


def _score_part(
    predictor: Predictor,
    samples: Sequence[Sample],
    rules: Sequence[Protocol],
    records: Sequence[Record],
) -> None:
    """Fill the records of `samples`, batch by batch of images that are one size once cropped."""
    for view, alike in by_view(rules).items():
        looks = [cropped(sample, view.crop) for sample in samples]
        for places in _same_size(looks):
            group = [looks[i] for i in places]
            sizes = [_size(samples[i]) for i in places]
            own = [records[i] for i in places]
            _score_batch(predictor, group, view, sizes, alike, own)


def _score_batch(
    predictor: Predictor,
    samples: list[Sample],
    view: View,
    sizes: Sequence[Size],
    rules: Sequence[Protocol],
    records: Sequence[Record],
) -> None:
    batch = collate(samples).to(predictor.device)
    working = None
    for answer in predictor.answers(batch, view, sizes):
        working = answer.working
        for rule in rules:
            for kind, rows in _rows(predictor, answer, batch, rule):
                _keep(records, f"{rule.name}/{kind}/{_text(answer)}", rows)
    others = {f"baseline/{name}": one for name, one in predictor.trivial(batch).items()}
    if working and (best := predictor.best(samples, batch, working)):
        others[f"ceiling/{NATIVE if working == grid_of(batch) else RESIZED}"] = best
    for table, prediction in others.items():
        for rule in rules:
            rows = predictor.score(prediction, batch, rule)
            _keep(records, f"{rule.name}/{table}", rows)


def _rows(
    predictor: Predictor, answer: Answer, batch: Batch, rule: Protocol
) -> Iterator[tuple[str, Rows]]:
    """Everything about an answer that is kept, by kind."""
    yield "setting", predictor.score(answer.prediction, batch, rule)
    if found := uncertainty_rows(answer, batch, rule, predictor.given):
        yield "uncertainty", found
    facts = [answer.seconds, *answer.working, answer.peak_gb]
    yield "cost", {"cost": torch.tensor(facts, dtype=torch.float64).expand(len(batch), -1)}


def _keep(records: Sequence[Record], table: str, rows: Rows) -> None:
    rows = {name: value.cpu() for name, value in rows.items()}
    for i, record in enumerate(records):
        record.tables[table] = {name: value[i].clone() for name, value in rows.items()}


def _merges(records: Sequence[Record]) -> list[str]:
    """The rules that members were merged by; [""] where only the task's own was."""
    tables = (table for record in records for table in record.tables)
    return list(dict.fromkeys(_rule(table) for table in tables if "/setting/" in table))


def _scores(
    task: str, source: str, protocol: str, records: Sequence[Record], merge: str = ""
) -> Scores:
    """The rows of one protocol and merge, from the records of all images in their order.

    Raises UserError if images differ in what was predicted for them.
    """
    scores = Scores(task, source, protocol, keys=[record.key for record in records], merge=merge)
    scores.ceiling = _ceiling(protocol, records)
    tables = dict.fromkeys(table for record in records for table in record.tables)
    for table in tables:
        rule, kind, name = table.split("/", 2)
        if rule != protocol or kind == "ceiling" or (kind != "baseline" and _rule(name) != merge):
            continue
        _refuse_gaps(table, records)
        rows = _stacked([record.tables[table] for record in records])
        match kind:
            case "setting":
                scores.settings[_setting(name)] = rows
            case "uncertainty":
                scores.uncertainty[_setting(name)] = rows
            case "baseline":
                scores.baselines[name] = rows
            case "cost":
                seconds, height, width, peak = rows["cost"].unbind(dim=1)
                scores.seconds[_setting(name)] = float(seconds.median())
                scores.sizes = Counter(zip(height.int().tolist(), width.int().tolist()))
                scores.working = scores.sizes.most_common(1)[0][0]
                scores.peak_gb[_setting(name)] = float(peak.max())
    return scores


def _ceiling(protocol: str, records: Sequence[Record]) -> Rows:
    """The truth through the working size and back, of every image; {} where none was resized."""
    resized, native = (f"{protocol}/ceiling/{name}" for name in (RESIZED, NATIVE))
    if not any(resized in record.tables for record in records):
        return {}
    return _stacked([record.tables.get(resized) or record.tables[native] for record in records])


def _refuse_gaps(table: str, records: Sequence[Record]) -> None:
    """Raise UserError unless all images have a table: a mean over some of them is another score."""
    if lacking := next((one.key for one in records if table not in one.tables), None):
        having = next(one.key for one in records if table in one.tables)
        _, kind, name = table.split("/", 2)
        count = name.partition(BY)[0].split("x")[-1]
        what = {"uncertainty": "an uncertainty"}.get(kind, f"{count} members")
        raise UserError(f"{having} has {what}, {lacking} has not. Score them apart.")


def _stacked(rows: Sequence[Rows]) -> Rows:
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def _text(answer: Answer) -> str:
    """Such as 4x8, or 4x8@median where members are merged by several rules."""
    return "x".join(map(str, answer.setting)) + (BY + answer.merge if answer.merge else "")


def _setting(text: str) -> Setting:
    calls, members = map(int, text.partition(BY)[0].split("x"))
    return calls, members


def _rule(text: str) -> str:
    return text.partition(BY)[2]


def _size(sample: Sample) -> Size:
    return int(sample.image.shape[-2]), int(sample.image.shape[-1])


def _same_size(samples: Sequence[Sample]) -> list[list[int]]:
    """Places of the samples that share a batch: of one size, and no more than `PIXELS`."""
    groups: dict[Size, list[int]] = {}
    for place, sample in enumerate(samples):
        groups.setdefault(_size(sample), []).append(place)
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
    dist.all_gather_object(parts, mine)
    return [one for part in parts for one in part]


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1
