"""Would predictions score clearly better if their files were read in another way?

A few images are scored once more as if the predictions were flipped, moved by a pixel, in another
unit or of another encoding. Whatever cuts the error to less than half is no accident: it is said,
with both scores. Where a protocol's alignment makes a reading meaningless it changes no score, and
nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from stepsight.data.collate import collate
from stepsight.data.fields import present, with_values
from stepsight.data.table import Source, read_samples
from stepsight.errors import UserError
from stepsight.evaluation.predictions.imported import Imported
from stepsight.evaluation.predictions.reading import CITYSCAPES, FROM_ONE, decoded
from stepsight.evaluation.views import cropped, size_of, view_of
from stepsight.measures import main_metric, measure, number
from stepsight.metrics.alignment.align import Space
from stepsight.metrics.masked import Rows
from stepsight.metrics.protocol import Protocol
from stepsight.metrics.reduce import reduce
from stepsight.tasks.config import scored_tasks
from stepsight.tasks.table import score
from stepsight.types import Batch

IMAGES = 4  # that are tried
PIXELS = 1 << 15  # of an image that are scored, of more every so many
CLEARLY = 0.5  # of the error as given: less is another reading's
ABOVE = 1e-3  # smaller errors are as good as none
FALLING = -0.5  # correlation of ranks below which predictions fall where the truth rises
FACTORS = (1000.0, 100.0, 10.0, 256.0, 5000.0, 1 / 0.3048)  # units a metre, and in feet

Change = Callable[[Tensor], Tensor]  # of values "b c h w"
Scored = list[tuple[Tensor, Batch]]


@dataclass(frozen=True)
class TrialReading:
    """Another way to read predictions. do: what to do then. given, codes: the flag's value."""

    how: str
    change: Change = lambda x: x
    do: str = "Write them so, and score them again."
    given: Space | None = None
    codes: str = ""


class BetterReading(NamedTuple):
    """A reading that is clearly better, with scores of a metric (NaN: cannot be scored)."""

    reading: TrialReading
    metric: str
    value: float
    as_given: float
    images: int

    def __str__(self) -> str:
        label = measure(self.metric).label
        given = (
            f"{number(self.as_given)} as given"
            if math.isfinite(self.as_given)
            else "as given they cannot be scored"
        )
        return (
            f"these predictions would score {label} {number(self.value)} {self.reading.how} "
            f"({given}; {self.images} images tried). {self.reading.do}"
        )


@torch.inference_mode()
def tried(
    predictor: Imported, source: Source, protocol: Protocol, indices: Sequence[int]
) -> BetterReading | None:
    """The reading under which predictions score clearly better, of those that can be told apart."""
    scored = _scored(predictor, source, protocol, indices) if protocol.needs is None else []
    first = _rows(predictor, scored, protocol, TrialReading("")) if scored else None
    metrics = reduce(first, protocol) if first else {}
    main = main_metric(predictor.name, metrics, protocol.metrics) if first else None
    if scored and main is None:  # as given they cannot be scored
        usual = *protocol.metrics, *scored_tasks()[predictor.name].in_one_line()
        main = main_metric(predictor.name, usual, protocol.metrics)
    if main is None:
        return None
    reports = replace(protocol, metrics=(main,)) if protocol.metrics else protocol
    as_given = metrics.get(main, math.nan)
    least, best = _error(main, as_given) * CLEARLY, None
    for reading in readings(predictor, protocol, scored):
        rows = _rows(predictor, scored, reports, reading)
        value = reduce(rows, reports).get(main, math.nan) if rows else math.nan
        if (error := _error(main, value)) < least:
            least, best = error, BetterReading(reading, main, value, as_given, len(scored))
    return best if _error(main, as_given) > ABOVE else None


def falling(
    predictor: Imported, source: Source, protocol: Protocol, indices: Sequence[int]
) -> str | None:
    """What to say where predicted depths fall as the truth rises, which a fit with any slope makes
    up for: its scores are those of predictions turned around."""
    if predictor.name != "depth" or not protocol.alignment.startswith(("affine", "ransac")):
        return None
    scored = _scored(predictor, source, protocol, indices)
    signs = [_ranks(values, batch) for values, batch in scored]
    if predictor.given == "disparity":
        signs = [-sign for sign in signs]
    if not signs or sum(sign < FALLING for sign in signs) <= len(signs) / 2:
        return None
    other = "depth" if predictor.given == "disparity" else "disparity"
    return (
        f"these predictions fall where the true {predictor.given} rises, and the fit turns them "
        f"around ({len(signs)} images tried). If they are {other}, say --given {other}."
    )


def readings(predictor: Imported, protocol: Protocol, scored: Scored) -> Iterator[TrialReading]:
    """All that are tried of a task, for images of these sizes."""
    square = all(values.shape[-2] == values.shape[-1] for values, _ in scored)
    yield from _flips(square)
    for rows, columns in ((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j):
        how = f"moved by {rows:+} rows down and {columns:+} columns right"
        yield TrialReading(how, lambda x, by=(rows, columns): x.roll(by, (-2, -1)))
    yield from KINDS.get(predictor.name, lambda *_: ())(predictor, protocol)


def _flips(square: bool) -> Iterator[TrialReading]:
    yield TrialReading("mirrored left to right", lambda x: x.flip(-1))
    yield TrialReading("upside down", lambda x: x.flip(-2))
    yield TrialReading("turned by 180 degrees", lambda x: x.flip(-1, -2))
    if square:
        yield TrialReading("with rows and columns exchanged", lambda x: x.mT)
        yield TrialReading("turned by 90 degrees clockwise", lambda x: x.mT.flip(-1))
        yield TrialReading("turned by 90 degrees the other way", lambda x: x.mT.flip(-2))
        yield TrialReading("exchanged and turned by 180 degrees", lambda x: x.mT.flip(-1, -2))


def _depth(predictor: Imported, protocol: Protocol) -> Iterator[TrialReading]:
    spaces: tuple[Space, ...] = ("depth", "disparity", "log", "log1p")
    for space in spaces:
        if space != predictor.given:
            how = {"depth": "as depth", "disparity": "as disparity"}.get(space, f"as {space} depth")
            yield TrialReading(how, do=f"Say --given {space}.", given=space)
    if protocol.alignment != "none" or predictor.given != "depth":
        return
    for factor in FACTORS:
        do = f"Divide them by {factor:.5g}; whole numbers: --scale {predictor.scale * factor:.5g}."
        yield TrialReading(f"divided by {factor:.5g}", lambda x, f=factor: x / f, do)
        do = f"Multiply them; whole numbers: --scale {predictor.scale / factor:.5g}."
        yield TrialReading(f"times {factor:.5g}", lambda x, f=factor: x * f, do)


def _flow(predictor: Imported, protocol: Protocol) -> Iterator[TrialReading]:
    def by(u: int, v: int) -> Change:
        return lambda x: x * x.new_tensor([u, v]).view(2, 1, 1)

    def in_size(share: float) -> Change:
        return lambda x: x * x.new_tensor([x.shape[-1], x.shape[-2]]).view(2, 1, 1) * share

    yield TrialReading("with u and v swapped", lambda x: x.flip(-3))
    yield TrialReading("with u and v swapped and turned", lambda x: -x.flip(-3))
    yield TrialReading("with both signs turned", by(-1, -1))
    yield TrialReading("with the sign of u turned", by(-1, 1))
    yield TrialReading("with the sign of v turned", by(1, -1))
    yield TrialReading("as shares of the width and height", in_size(1))
    yield TrialReading("as shares of half the width and height", in_size(0.5))
    for factor in (64.0, 20.0, 8.0, 4.0, 2.0):
        yield TrialReading(f"times {factor:g}", lambda x, f=factor: x * f)
        yield TrialReading(f"divided by {factor:g}", lambda x, f=factor: x / f)


def _amodal(predictor: Imported, protocol: Protocol) -> Iterator[TrialReading]:
    yield TrialReading("with inside and outside swapped", lambda x: 1 - x.float())
    yield TrialReading("with all above 0 as inside", lambda x: (x > 0).float())
    yield TrialReading("with all above 127 as inside", lambda x: (x > 127).float())


def _semantic(predictor: Imported, protocol: Protocol) -> Iterator[TrialReading]:
    yield TrialReading(
        "with ids from 1",
        lambda x: decoded(x, FROM_ONE),
        f"Say --codes {FROM_ONE}, or --codes classes to score them as they are.",
        codes=FROM_ONE,
    )
    yield TrialReading("with 1 added to all ids", lambda x: x + 1)
    yield TrialReading(
        "as Cityscapes' labelIds",
        lambda x: decoded(x, CITYSCAPES),
        f"Say --codes {CITYSCAPES}, or --codes classes to score them as they are.",
        codes=CITYSCAPES,
    )


def _panoptic(predictor: Imported, protocol: Protocol) -> Iterator[TrialReading]:
    def add(step: int) -> Change:
        return lambda x: x + x.new_tensor([step, 0]).view(2, 1, 1)

    yield TrialReading("with 1 taken from all classes", add(-1))
    yield TrialReading("with 1 added to all classes", add(1))
    yield TrialReading("with class and instance exchanged", lambda x: x.flip(-3))


def _normals(predictor: Imported, protocol: Protocol) -> Iterator[TrialReading]:
    for name, signs in {
        "with all signs turned": (-1, -1, -1),
        "with the sign of x turned": (-1, 1, 1),
        "with the sign of y turned": (1, -1, 1),
        "with the sign of z turned": (1, 1, -1),
        "with y up and z out of the picture": (1, -1, -1),
        "with x left and z out of the picture": (-1, 1, -1),
        "with x left and y up": (-1, -1, 1),
    }.items():
        yield TrialReading(name, lambda x, s=signs: x * x.new_tensor(s).view(3, 1, 1))
    yield TrialReading("with z, y, x in the place of x, y, z", lambda x: x.flip(-3))
    yield TrialReading("as colours from 0 to 1", lambda x: 2 * x - 1)
    yield TrialReading("as colours from 0 to 255", lambda x: x / 127.5 - 1)


KINDS: dict[str, Callable[[Imported, Protocol], Iterator[TrialReading]]] = {
    "depth": _depth,
    "flow": _flow,
    "amodal": _amodal,
    "semantic": _semantic,
    "panoptic": _panoptic,
    "normals": _normals,
}


def _scored(
    predictor: Imported, source: Source, protocol: Protocol, indices: Sequence[int]
) -> Scored:
    """Predictions as they are read and the truth, "1 c h w" each, of a few images that can be."""
    found = Scored()
    view = view_of(protocol)
    for sample in read_samples(source, indices[:IMAGES], lambda index, error: None):
        if sample is None:
            continue
        batch = collate([cropped(sample, view.crop)])
        try:
            (estimate,) = predictor.estimates(batch, view, [size_of(sample)])
        except UserError:  # which is met again, by name, when it is scored
            continue
        found.append((estimate.prediction.values, batch))
    return found


def _rows(
    predictor: Imported, scored: Scored, protocol: Protocol, reading: TrialReading
) -> Rows | None:
    """Rows of all images under a reading; None where one cannot be scored."""
    found: list[Rows] = []
    for values, batch in scored:
        changed = reading.change(values)
        step = max(1, math.isqrt(math.prod(values.shape[-2:]) // PIXELS))
        for by in (step, 1):
            given = reading.given or predictor.given
            thin = _every(batch, by), protocol
            try:
                rows = score(
                    changed[..., ::by, ::by], *thin, given=given, classes=predictor.classes
                )
            except UserError:  # a region of another size, or values that cannot be scored
                if by == 1:
                    return None
                continue
            found.append(rows)
            break
    return {name: torch.cat([rows[name] for rows in found]) for name in found[0]}


def _every(batch: Batch, step: int) -> Batch:
    """Every so many pixels of a batch."""
    if step == 1:
        return batch
    dense = {row.name: value[..., ::step, ::step] for row, value in present(batch) if row.dense}
    return with_values(batch, dense)


def _error(metric: str, value: float) -> float:
    return measure(metric).error(value) if math.isfinite(value) else math.inf


def _ranks(values: Tensor, batch: Batch) -> float:
    """Correlation of the ranks of predicted and true depths; 0 where there are none."""
    assert batch.depth is not None and batch.depth_valid is not None
    step = max(1, math.isqrt(values.numel() // PIXELS))
    maps = values, batch.depth, batch.depth_valid
    p, g, valid = (x[..., ::step, ::step] for x in maps)
    if valid.sum() < 3:
        return 0.0
    ranks = [x[valid].argsort().argsort().double() for x in (p, g)]
    if (p[valid] == p[valid][0]).all():
        return 0.0
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])
