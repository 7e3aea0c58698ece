"""Picture grids with headings: samples during training, best, median and worst at evaluation.

Tiles are uint8 arrays "h w 3"; they are enlarged by whole factors without smoothing, so that every
pixel the model wrote can be seen.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
from einops import repeat
from PIL import Image, ImageDraw, ImageFont

GAP = 6
PAPER = (255, 255, 255)
INK = (32, 34, 38)
FONT_SIZE = 14

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def compose(
    rows: list[list[np.ndarray]],
    columns: list[str],
    labels: list[str] | None,
    path: Path,
    scale: int = 2,
) -> Path:
    """Write `rows` of tiles as one PNG, column headings above and row labels on the left.

    All tiles are uint8 "h w 3"; they may differ in size, and each column is as wide as its widest.
    Texts that do not fit are cut with an ellipsis.
    """
    assert rows and all(len(row) == len(columns) for row in rows), "one tile for every column"
    assert labels is None or len(labels) == len(rows), "one label for every row"
    tiles = [[_enlarge(tile, scale) for tile in row] for row in rows]
    font = ImageFont.load_default(FONT_SIZE)
    left = _label_width(labels, font)
    widths = [max(tile.width for tile in column) for column in zip(*tiles)]
    heights = [max(tile.height for tile in row) for row in tiles]
    lefts = _starts(left, widths)
    tops = _starts(FONT_SIZE + 2 * GAP, heights)

    page = Image.new("RGB", (lefts[-1], tops[-1]), PAPER)
    draw = ImageDraw.Draw(page)
    for x, width, heading in zip(lefts, widths, columns):
        text = _fit(heading, width, font)
        draw.text((x + width // 2, GAP), text, INK, font, anchor="ma")
    for y, height, label in zip(tops, heights, labels or []):
        draw.text((GAP, y + height // 2), _fit(label, left - 2 * GAP, font), INK, font, anchor="lm")
    for y, row in zip(tops, tiles):
        for x, tile in zip(lefts, row):
            page.paste(tile, (x, y))
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path, optimize=True)
    return path


def _enlarge(tile: np.ndarray, scale: int) -> Image.Image:
    assert tile.dtype == np.uint8 and tile.shape[-1] == 3, "tiles are uint8 h w 3"
    return Image.fromarray(repeat(tile, "h w c -> (h a) (w b) c", a=scale, b=scale))


def _starts(first: int, sizes: list[int]) -> list[int]:
    """Where each tile starts along one axis, and last where the page ends."""
    return [first, *(first + np.cumsum([size + GAP for size in sizes]))]


def _label_width(labels: list[str] | None, font: Font) -> int:
    if not labels:
        return GAP
    return min(220, 2 * GAP + round(max(font.getlength(_visible(label)) for label in labels)) + 1)


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
