"""Picture grids with headings: samples during training, best, median and worst at evaluation.

Tiles are uint8 arrays "h w 3"; they are enlarged by whole factors without smoothing, so that every
pixel the model wrote can be seen. Beside a row may stand what its colours mean.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from einops import rearrange, repeat
from PIL import Image, ImageDraw, ImageFont

from stepsight.colours import Legend

GAP = 6
PAPER = (255, 255, 255)
INK = (32, 34, 38)
FONT_SIZE = 14
LINE = FONT_SIZE + 4

NOTE = "grey: no truth"

Tile = np.ndarray  # uint8 "h w 3"
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Label = str | Sequence[str]  # lines


def compose(
    rows: list[list[np.ndarray]],
    columns: list[str],
    labels: Sequence[Label] | None,
    path: Path,
    scale: int = 2,
    legends: Sequence[Legend | None] = (),
    note: str = "",
) -> Path:
    """Write `rows` of tiles as a PNG: column headings above, row labels on the left, on the right
    the legends of rows, and a note below.

    All tiles are uint8 "h w 3"; they may differ in size, and each column is as wide as its widest.
    Texts that do not fit are cut with an ellipsis.
    """
    assert rows and all(len(row) == len(columns) for row in rows), "one tile for every column"
    assert labels is None or len(labels) == len(rows), "one label for every row"
    assert all(tile.dtype == np.uint8 and tile.shape[-1] == 3 for row in rows for tile in row)
    enlarge = partial(repeat, pattern="h w c -> (h a) (w b) c", a=scale, b=scale)
    tiles = [[Image.fromarray(enlarge(tile)) for tile in row] for row in rows]
    font = ImageFont.load_default(FONT_SIZE)
    lines = [[label] if isinstance(label, str) else list(label) for label in labels or []]
    left = _label_width(lines, font)
    widths = [max(tile.width for tile in column) for column in zip(*tiles)]
    heights = [max(tile.height for tile in row) for row in tiles]
    lefts = _starts(left, widths)
    tops = _starts(FONT_SIZE + 2 * GAP, heights)

    width, foot = lefts[-1] + _legend_width(legends, font), LINE if note else 0
    page = Image.new("RGB", (width, tops[-1] + foot), PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((left, tops[-1]), _fit(note, width - left, font), INK, font)
    for x, width, heading in zip(lefts, widths, columns):
        text = _fit(heading, width, font)
        draw.text((x + width // 2, GAP), text, INK, font, anchor="ma")
    for y, height, label in zip(tops, heights, lines):
        for place, line in enumerate(label):
            middle = y + height // 2 + round(LINE * (place - (len(label) - 1) / 2))
            draw.text((GAP, middle), _fit(line, left - 2 * GAP, font), INK, font, anchor="lm")
    for y, row in zip(tops, tiles):
        for x, tile in zip(lefts, row):
            page.paste(tile, (x, y))
    for y, height, legend in zip(tops, heights, legends):
        if legend is not None:
            _place(page, legend, lefts[-1], y, height, font)
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path)
    return path


def _place(page: Image.Image, legend: Legend, x: int, y: int, height: int, font: Font) -> None:
    """A legend between its two texts, in the middle of a row."""
    picture = Image.fromarray(rearrange(legend.picture.cpu(), "c h w -> h w c").numpy())
    picture.thumbnail((picture.width, max(1, height - 2 * LINE)))
    top = y + (height - picture.height) // 2
    page.paste(picture, (x, top))
    draw = ImageDraw.Draw(page)
    draw.text((x, top - GAP // 2), legend.top, INK, font, anchor="ls")
    draw.text((x, top + picture.height + GAP // 2), legend.bottom, INK, font, anchor="la")


def _starts(first: int, sizes: list[int]) -> list[int]:
    """Where each tile starts along an axis, and last where the page ends."""
    return [first, *(first + np.cumsum([size + GAP for size in sizes]))]


def _label_width(labels: list[list[str]], font: Font) -> int:
    if not labels:
        return GAP
    widest = max(font.getlength(_visible(line)) for label in labels for line in label)
    return min(220, 2 * GAP + round(widest) + 1)


def _legend_width(legends: Sequence[Legend | None], font: Font) -> int:
    shown = [legend for legend in legends if legend is not None]
    texts = [font.getlength(text) for legend in shown for text in (legend.top, legend.bottom)]
    return round(max([*texts, *(legend.picture.shape[-1] for legend in shown), -GAP])) + GAP


def _visible(text: str) -> str:
    return "".join(c for c in text if unicodedata.category(c)[0] != "C")


def _fit(text: str, width: float, font: Font) -> str:
    """`text`, or its longest beginning that fits into `width` pixels with an ellipsis."""
    text = _visible(text)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"
