"""`stepsight data show`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stepsight.cli.data.text import ranges_text
from stepsight.cli.sources import SourceArgs, picture_path

if TYPE_CHECKING:
    import numpy as np

    from stepsight.data.drawing import PaintedField
    from stepsight.data.table import Source
    from stepsight.legends import Legend
    from stepsight.types import Sample

WIDTH = 256  # of a picture; larger ones are shrunk, smaller ones enlarged by whole factors
SMALL = 128  # height up to which they are enlarged


@dataclass(frozen=True, kw_only=True)
class Args(SourceArgs):
    """A picture of samples with their truth beside them."""

    images: int = 8  # spread evenly over the split
    out: Path = Path("grid.png")  # the picture


def run(args: Args) -> int:
    from stepsight.data.check import ranges_of
    from stepsight.data.table import notes_of

    out, source = picture_path(args.out), args.open(args.images)
    samples = chosen(source, args.images, None if args.size is None else source.size)
    for sample in samples:
        height, width = sample.image.shape[-2:]
        text = label(sample, source)
        print(f"{text}  {height} x {width}  {ranges_text(ranges_of(sample))}".rstrip())
    for note in notes_of(source):
        print(note)
    print(f"written to {draw_samples(samples, source, out)}")
    return 0


def draw_samples(samples: list[Sample], source: Source, out: Path, ranges: bool = False) -> Path:
    """Write a picture with a row per sample: its image, and each truth that it has.

    ranges: whether the label of a row says the ranges of its truth, too.
    """
    from stepsight.data.check import ranges_of
    from stepsight.data.drawing import draw
    from stepsight.report.grids import NOTE, compose

    drawn = [draw(sample, WIDTH) for sample in samples]
    columns = list(dict.fromkeys(name for row in drawn for name in row))
    rows = [_row(row, columns) for row in drawn]
    keys = [[_key(row.get(name), source) for name in columns] for row in drawn]
    labels = [list(filter(None, (sample.key, category(sample, source)))) for sample in samples]
    for lines, sample in zip(labels, samples if ranges else ()):
        for name, values in ranges_of(sample).items():
            lines += ranges_text({name: values}).split(", ")
    return compose(rows, columns, labels, out, scale=_scale(rows), keys=keys, note=NOTE)


def chosen(source: Source, count: int, size: tuple[int, int] | None) -> list[Sample]:
    """So many samples, spread evenly over the source, at their own size unless one is given."""
    from stepsight.data.resize import resize_sample

    count = min(count, len(source))
    samples = source.samples([number * len(source) // count for number in range(count)])
    return samples if size is None else [resize_sample(sample, size) for sample in samples]


def label(sample: Sample, source: Source) -> str:
    """The key, and the class if the sample has one."""
    of = category(sample, source)
    return f"{sample.key} ({of})" if of else sample.key


def category(sample: Sample, source: Source) -> str:
    """The class of the whole image, by its name where that is known; "" without one."""
    if sample.class_id is None:
        return ""
    names = source.categories
    return names[sample.class_id] if sample.class_id < len(names) else str(sample.class_id)


def _scale(rows: list[list[np.ndarray]]) -> int:
    height, width = (max(tile.shape[axis] for row in rows for tile in row) for axis in (0, 1))
    return max(1, min(round(SMALL / height), WIDTH // width))


def _row(drawn: dict[str, PaintedField], columns: list[str]) -> list[np.ndarray]:
    """Tiles "h w c"; a truth that this sample lacks is left empty."""
    from torch import tensor, uint8

    from stepsight.report.grids import PAPER

    image = drawn["image"].picture
    empty = tensor(PAPER, dtype=uint8).view(3, 1, 1).expand_as(image)
    pictures = [drawn[name].picture if name in drawn else empty for name in columns]
    return [picture.permute(1, 2, 0).numpy() for picture in pictures]


def _key(drawn: PaintedField | None, source: Source) -> Legend | None:
    """What its colours mean, with classes called as the source does."""
    return drawn and drawn.key and drawn.key.called(source.classes)
