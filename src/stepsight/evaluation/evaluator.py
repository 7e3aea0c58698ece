"""Scoring: every image of a source, at any number of test-time settings and under any number of
protocols, against trivial predictors.

`score` is the loop that validation, evaluation, the sweep and imported predictions share. It
returns rows of numbers, one per image; means are taken once, after the rows of all processes are
together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from statistics import median_low

import torch

from stepsight.data.bad import BadItems
from stepsight.data.resize import Size
from stepsight.data.table import Source
from stepsight.distributed import barrier, gathered, phase, rank, world
from stepsight.errors import UserError
from stepsight.evaluation.predictors import Model, Predictor
from stepsight.evaluation.scoring.items import PART, Items
from stepsight.evaluation.scoring.journal import Journal, Record, TableKey
from stepsight.evaluation.statistics import stacked
from stepsight.metrics import protocol as protocol_table
from stepsight.metrics.masked import Rows
from stepsight.metrics.protocol import Protocol
from stepsight.pipeline.dense import DensePipeline
from stepsight.scaling.sampling.paired import Setting
from stepsight.signals import Preempted, requested


@dataclass
class Scores:
    """Rows of every image in the order of the source, under a protocol and a merge rule."""

    task: str
    source: str
    protocol: str
    keys: list[str] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)  # of these images in the source
    settings: dict[Setting, Rows] = field(default_factory=dict)
    baselines: dict[str, Rows] = field(default_factory=dict)
    ceiling: Rows = field(default_factory=dict)  # the truth of resized images, there and back
    uncertainty: dict[Setting, Rows] = field(default_factory=dict)  # see `spread`
    seconds: dict[Setting, float] = field(default_factory=dict)  # per image, median over batches
    working: Size = (0, 0)  # of most images
    sizes: Counter[Size] = field(default_factory=Counter)  # images worked at each size
    peak_gb: dict[Setting, float] = field(default_factory=dict)  # of memory
    unfit: int = 0  # images not seen at the size that the protocol asks for
    merge: str = ""  # the rule, where several were asked for
    skipped: dict[str, str] = field(default_factory=dict)  # images that were left out, and why
    failed: list[str] = field(default_factory=list)  # for which the model's answer is no number


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
    bad: BadItems | None = None,
    advance: Callable[[int], None] = lambda images: None,
) -> Scores:
    """A model's scores of a task under a protocol, at every pair of `nfe` and `members`."""
    sampler = sampler or pipeline.config.diffusion.sampler
    model = Model(pipeline, task, nfe, members, sampler, seed, chunk_size)
    protocols = [protocol_table.get(protocol, task)]
    (scores,) = score(model, source, protocols, indices, bad=bad, advance=advance)
    return scores


@torch.inference_mode()
def score(
    predictor: Predictor,
    source: Source,
    protocols: Sequence[Protocol],
    indices: Sequence[int],
    *,
    journal: Journal | None = None,
    bad: BadItems | None = None,
    advance: Callable[[int], None] = lambda images: None,
) -> list[Scores]:
    """Score `indices` of `source` under each of `protocols`, at every setting of the predictor; a
    predictor that merges by several rules has that many scores under each.

    Protocols that see an image alike (`views`) share its prediction. With several processes each
    takes every n-th image; all return the same scores, or raise the same UserError. Images in the
    journal are not done again. With a journal it can be interrupted: raises Preempted in all.
    bad: what to do about images, and predictions in files, that cannot be scored; None: stop.
    """
    bad = bad or BadItems()
    mine: list[Record | UserError | Preempted] = []
    left = len(indices)
    try:
        for part in _scored(predictor, source, protocols, indices, journal, bad):
            mine += part
            done = min(len(part) * world(), left)  # the last images are not one for each process
            left -= done
            advance(done)
    except (UserError, Preempted) as error:  # the others wait for this process
        mine.append(error)
    records, stopped = list[Record](), list[Preempted]()
    for each in (each for part in gathered(mine) for each in part):
        match each:
            case Record():
                records.append(each)
            case Preempted():
                stopped.append(each)
            case _:
                raise each
    if stopped:
        done = sum(not record.bad for record in records)
        what = f"{done} of {len(indices)} images of {predictor.name} are scored"
        raise Preempted(f"{stopped[0]}: {what}, and kept in {journal and journal.folder}.")
    return _together(predictor, source, protocols, indices, bad, records)


def _scored(
    predictor: Predictor,
    source: Source,
    protocols: Sequence[Protocol],
    indices: Sequence[int],
    journal: Journal | None,
    bad: BadItems,
) -> Iterator[list[Record]]:
    """The records of this process: those of the journal, then part by part what is scored now."""
    mine = range(rank(), len(indices), world())
    known = journal.records() if journal else {}
    barrier()  # what others write from now on is not of an earlier evaluation
    if done := [known[place] for place in mine if place in known and not known[place].bad]:
        yield done
    again = [place for place in mine if place in known and known[place].bad]  # may be repaired
    todo = [place for place in mine if place not in known]
    items = Items(predictor, source, protocols, indices, bad)
    for places in chain(items.parts(again), items.parts(todo)):
        phase(f"scores {predictor.name}, image {places[0] + 1} of {len(indices)}", PART)
        if journal and (asked := requested()):
            raise Preempted(asked)
        fresh = items.scored(places)
        if journal:
            journal.add(fresh)
        yield fresh


def _together(
    predictor: Predictor,
    source: Source,
    protocols: Sequence[Protocol],
    indices: Sequence[int],
    bad: BadItems,
    records: list[Record],
) -> list[Scores]:
    """The scores of all images, from the records of all processes."""
    records.sort(key=lambda record: record.place)
    skipped = {record.key: record.bad for record in records if record.bad}
    for key, reason in skipped.items():  # whichever process met them
        bad.met(source.name, key, reason, of=len(indices))
    title = getattr(source, "title", source.name)
    good = [record for record in records if not record.bad]
    if not good:
        raise UserError(f"{title}: none of {len(indices)} images can be scored.")
    merges = dict.fromkeys(key.merge for record in good for key in record.usage)
    found = [
        _scores(predictor.name, title, protocol.name, good, merge)
        for protocol in protocols
        for merge in merges
    ]
    for scores in found:
        scores.skipped, scores.indices = skipped, [indices[record.place] for record in good]
    return found


def _scores(
    task: str, source: str, protocol: str, records: Sequence[Record], merge: str = ""
) -> Scores:
    """The rows of a protocol and merge rule, from the records of all images in their order.

    Raises UserError if images differ in what was predicted for them.
    """
    scores = Scores(task, source, protocol, keys=[record.key for record in records], merge=merge)
    scores.failed = [record.key for record in records if record.failed]
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
            scores.unfit = sum(not used.fits for used in usage)
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
