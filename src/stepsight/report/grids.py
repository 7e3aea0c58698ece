"""Picture grids with headings as PNG files: samples during training, samples of data, codecs.

Tiles are uint8 arrays "h w 3"; they are enlarged by whole factors without smoothing, so that every
pixel the model wrote can be seen. Below a tile may stand what its colours mean. The ground is dark,
so that it glares neither on a light page nor on a dark one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path

import numpy as np
from einops import repeat
from PIL import Image, ImageColor, ImageDraw, ImageFont

from stepsight.legends import Legend
from stepsight.measures import number

GAP = 6
PAPER = (24, 27, 31)
INK = (228, 230, 234)
FAINT = (164, 170, 178)
FONT_SIZE = 14
LINE = FONT_SIZE + 4
SMALL = 11  # letters of keys
BAR, WHEEL, SWATCH = 8, 34, 9  # pixels of keys
KEY_LINES = 4  # of names of classes

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
    keys: Sequence[Sequence[Legend | None]] = (),
    note: str = "",
) -> Path:
    """Write `rows` of tiles as a PNG: column headings above, row labels on the left, below a tile
    the key to its colours, and a note below all.

    All tiles are uint8 "h w 3"; they may differ in size, and each column is as wide as its widest.
    keys: none, or one or None for every tile. Texts that do not fit are cut with an ellipsis.
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
    drawn = [[key and draw_key(key, w) for key, w in zip(row, widths)] for row in keys]
    feet = [max((key.height + GAP for key in row if key), default=0) for row in drawn]
    feet = feet or [0] * len(rows)
    lefts = _starts(left, widths)
    tops = _starts(FONT_SIZE + 2 * GAP, [height + foot for height, foot in zip(heights, feet)])

    page = Image.new("RGB", (lefts[-1], tops[-1] + (LINE if note else 0)), PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((left, tops[-1]), _fit(note, page.width - left, font), FAINT, font)
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
    for y, height, row in zip(tops, heights, drawn):
        for x, key in zip(lefts, row):
            if key is not None:
                page.paste(key, (x, y + height + GAP // 2))
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path)
    return path


def draw_key(legend: Legend, width: int) -> Image.Image:
    """What colours stand for, so many pixels wide on the ground of a grid: a bar between its two
    ends, a wheel as wide as its longest vector, or the names of classes."""
    font = ImageFont.load_default(SMALL)
    match legend.kind:
        case "values":
            return _bar(legend, width, font)
        case "flow":
            return _wheel(legend, width, font)
        case _:
            return _names(legend, width, font)


def _bar(legend: Legend, width: int, font: Font) -> Image.Image:
    key = Image.new("RGB", (width, BAR + SMALL + 5), PAPER)
    draw = ImageDraw.Draw(key)
    stops = np.array([ImageColor.getrgb(stop) for stop in legend.stops], float)
    places = np.linspace(0, len(stops) - 1, width)
    ramp = np.stack([np.interp(places, range(len(stops)), part) for part in stops.T], axis=-1)
    key.paste(Image.fromarray(np.tile(ramp.round().astype(np.uint8), (BAR, 1, 1))))
    low, high = number(legend.low, 2), f"{number(legend.high, 2)} {legend.unit}".rstrip()
    draw.text((0, BAR + 2), low, INK, font)
    draw.text((width - 1, BAR + 2), high, INK, font, anchor="ra")
    return key


def _wheel(legend: Legend, width: int, font: Font) -> Image.Image:
    """As CSS would paint it: hues around, fading to white in the middle."""
    v, u = np.meshgrid(*[np.linspace(-1, 1, WHEEL)] * 2, indexing="ij")
    length, angle = np.hypot(u, v)[..., None], np.arctan2(v, u) % (2 * np.pi) / (2 * np.pi)
    stops = np.array([ImageColor.getrgb(stop) for stop in (*legend.stops, legend.stops[0])])
    places = angle * len(legend.stops), range(len(stops))
    hue = np.stack([np.interp(*places, part) for part in stops.T], axis=-1)
    painted = np.where(length <= 1, 255 - length * (255 - hue), PAPER).round().astype(np.uint8)
    key = Image.new("RGB", (width, WHEEL), PAPER)
    key.paste(Image.fromarray(painted))
    text = f"to {number(legend.high, 2)} {legend.unit}"
    place = WHEEL + GAP, WHEEL // 2
    ImageDraw.Draw(key).text(place, _fit(text, width - place[0], font), INK, font, anchor="lm")
    return key


def _names(legend: Legend, width: int, font: Font) -> Image.Image:
    """Squares and names, in as many lines as they take, but for those that find no room."""
    line = SMALL + 4
    key = Image.new("RGB", (width, KEY_LINES * line), PAPER)
    draw, x, y = ImageDraw.Draw(key), 0, 0
    for name, colour in legend.classes:
        needed = SWATCH + 3 + font.getlength(name)
        if x and x + needed > width:
            x, y = 0, y + line
        if y >= key.height:
            break
        draw.rectangle((x, y + 2, x + SWATCH - 1, y + 1 + SWATCH), colour, outline=FAINT)
        draw.text((x + SWATCH + 3, y), _fit(name, width - SWATCH - 3, font), INK, font)
        x += round(needed) + GAP
    return key.crop((0, 0, width, min(key.height, y + line)))


def _starts(first: int, sizes: list[int]) -> list[int]:
    """Where each tile starts along an axis, and last where the page ends."""
    return list(accumulate((size + GAP for size in sizes), initial=first))


def _label_width(labels: list[list[str]], font: Font) -> int:
    if not labels:
        return GAP
    widest = max(font.getlength(_visible(line)) for label in labels for line in label)
    return min(220, 2 * GAP + round(widest) + 1)


def _visible(text: str) -> str:
    return "".join(c for c in text if unicodedata.category(c)[0] != "C")


def _fit(text: str, width: float, font: Font) -> str:
    """`text`, or its longest beginning that fits into `width` pixels with an ellipsis."""
    text = _visible(text)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
