"""`stepsight data show`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stepsight.cli.data.text import ranges_text
from stepsight.cli.sources import SourceArgs, picture_path

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from stepsight.data.table import Source
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
    from stepsight.report.grids import compose

    pictures = [_drawn(sample) for sample in samples]
    columns = list(dict.fromkeys(name for tiles in pictures for name in tiles))
    rows = [_row(tiles, columns) for tiles in pictures]
    labels = [[label(sample, source)] for sample in samples]
    for lines, sample in zip(labels, samples if ranges else ()):
        for name, values in ranges_of(sample).items():
            lines += ranges_text({name: values}).split(", ")
    return compose(rows, columns, labels, out, scale=_scale(rows))


def chosen(source: Source, count: int, size: tuple[int, int] | None) -> list[Sample]:
    """So many samples, spread evenly over the source, at their own size unless one is given."""
    from stepsight.data.resize import resize_sample

    count = min(count, len(source))
    samples = source.samples([number * len(source) // count for number in range(count)])
    return samples if size is None else [resize_sample(sample, size) for sample in samples]


def label(sample: Sample, source: Source) -> str:
    """The key, and the class if the sample has one."""
    if sample.class_id is None:
        return sample.key
    names = source.categories
    known = sample.class_id < len(names)
    return f"{sample.key} ({names[sample.class_id] if known else sample.class_id})"


def _drawn(sample: Sample) -> dict[str, Tensor]:
    from stepsight.data.drawing import draw

    return draw(sample, WIDTH)


def _scale(rows: list[list[np.ndarray]]) -> int:
    height, width = (max(tile.shape[axis] for row in rows for tile in row) for axis in (0, 1))
    return max(1, min(round(SMALL / height), WIDTH // width))


def _row(pictures: dict[str, Tensor], columns: list[str]) -> list[np.ndarray]:
    """Tiles "h w c"; a truth that this sample lacks is left white."""
    from torch import full_like

    missing = full_like(pictures["image"], 255)
    return [pictures.get(name, missing).permute(1, 2, 0).numpy() for name in columns]
