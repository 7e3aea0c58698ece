"""A film strip as a figure: what it shows, and where each tile stands.

Below a tile stands what its setting reaches over the set, and smaller what it reaches on the image;
the setting that is best over the set is framed. The last row is the spread of the largest ensemble,
on one scale for all columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from einops import rearrange
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from stepsight.colours import Legend
from stepsight.measures import measure, number
from stepsight.report import figures
from stepsight.report.grids import NOTE, Tile

TILE, GAP, CAPTION = 1.28, 0.12, 0.3  # inches, of which there are 150 dots: 64 pixels are 192
HEADING, MARGIN, FOOT, SIDE = 0.56, 0.42, 0.2, 0.75
DOTS = 150  # pixels of a legend an inch


class Shot(NamedTuple):
    """A tile of the strip."""

    tile: Tile
    over_set: float  # the metric of the set
    own: float  # and of the image
    best: bool = False  # over the set


@dataclass(frozen=True)
class Film:
    """What a film strip shows of one image of a task."""

    task: str
    key: str
    metric: str | None  # None: nothing was measured
    images: int  # of the set
    given: dict[str, Tile]  # input, prompt and truth, by caption
    legend: Legend | None  # of the colours
    rows: dict[str, dict[int, Shot]]  # by label, and by NFE
    spreads: dict[int, Tile]  # of the most members, by NFE; empty for single members
    brightest: float  # the spread painted brightest

    @property
    def nfe(self) -> list[int]:
        return sorted({calls for row in self.rows.values() for calls in row})


class Sheet:
    """A figure on which tiles of one size are placed in inches from the upper left corner."""

    def __init__(self, size: tuple[float, float], tile: tuple[float, float]) -> None:
        self.figure = Figure(figsize=size)
        self.tile = tile
        self._size = size

    def place(self, x: float, y: float, tile: Tile) -> Axes:
        """A tile with its upper left corner at (x, y)."""
        return self.picture(x, y, *self.tile, tile)

    def picture(self, x: float, y: float, width: float, height: float, tile: Tile) -> Axes:
        """A picture of another size."""
        axes = self.box(x, y, width, height)
        axes.imshow(tile, interpolation="nearest", aspect="auto")
        axes.set(xticks=[], yticks=[])
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.xaxis.labelpad = 2
        return axes

    def box(self, x: float, y: float, width: float, height: float) -> Axes:
        """Axes of another size."""
        whole, tall = self._size
        return self.figure.add_axes(
            (x / whole, 1 - (y + height) / tall, width / whole, height / tall)
        )

    def write(self, x: float, y: float, text: str, **look: Any) -> None:
        whole, tall = self._size
        self.figure.text(x / whole, 1 - y / tall, text, **look)


@matplotlib.rc_context(figures.STYLE)
def draw(film: Film) -> Figure:
    """The strip as a figure."""
    rows = len(film.rows) + bool(film.spreads)
    aside = -(-len(film.given) // rows)  # columns of input, prompt and truth
    height, width = next(iter(film.given.values())).shape[:2]
    tile = (TILE, TILE * height / width)
    left = aside * (TILE + GAP) + MARGIN
    across, down = TILE + GAP, tile[1] + CAPTION
    end = left + len(film.nfe) * across
    sheet = Sheet((end + SIDE, HEADING + rows * down + FOOT), tile)
    sheet.write(0, 0.18, f"{film.task}: {film.key}", weight="bold", size=11)
    for place, (name, picture) in enumerate(film.given.items()):
        column, row = divmod(place, rows)
        sheet.place(column * across, HEADING + row * down, picture).set_xlabel(name)
    for x, calls in enumerate(film.nfe):
        centre = left + x * across + TILE / 2
        sheet.write(centre, HEADING - 0.07, f"{calls} NFE", ha="center", size=9.5)
        for y, row in enumerate(film.rows.values()):
            if calls in row:
                _place(sheet, left + x * across, HEADING + y * down, row[calls])
    labels = [*film.rows, *(["spread"] if film.spreads else [])]
    for y, label in enumerate(labels):
        middle = HEADING + y * down + tile[1] / 2
        sheet.write(left - 0.2, middle, label, rotation=90, ha="center", va="center", size=9)
    _legend(sheet, film, end)
    _draw_spreads(sheet, film, left, HEADING + len(film.rows) * down)
    _explain(sheet, film, end - GAP, HEADING + rows * down)
    return sheet.figure


def _place(sheet: Sheet, x: float, y: float, shot: Shot) -> None:
    """A tile with what the set and the image say of its setting."""
    axes = sheet.place(x, y, shot.tile)
    for spine in axes.spines.values():
        spine.set(visible=shot.best, edgecolor=figures.PALETTE[1], linewidth=3)
    if np.isfinite(shot.over_set):
        axes.set_xlabel(number(shot.over_set), weight="bold" if shot.best else "normal")
        below = y + sheet.tile[1] + 0.14
        sheet.write(x + TILE, below, number(shot.own), ha="right", size=6.5, alpha=0.75)


def _legend(sheet: Sheet, film: Film, x: float) -> None:
    """What the colours stand for, beside the first row."""
    if film.legend is None:
        return
    tile = rearrange(film.legend.picture.cpu(), "c h w -> h w c").numpy()
    height, width = (side / DOTS for side in tile.shape[:2])
    sheet.write(x, HEADING + 0.1, film.legend.top, size=8)
    sheet.picture(x, HEADING + 0.16, width, height, tile)
    sheet.write(x, HEADING + 0.3 + height, film.legend.bottom, size=8)


def _draw_spreads(sheet: Sheet, film: Film, left: float, top: float) -> None:
    """The last row with its scale; nothing for single members."""
    if not film.spreads:
        return
    for x, calls in enumerate(film.nfe):
        if calls in film.spreads:
            sheet.place(left + x * (TILE + GAP), top, film.spreads[calls])
    scale = sheet.box(left + len(film.nfe) * (TILE + GAP), top, 0.1, sheet.tile[1])
    shown = ScalarMappable(Normalize(0, film.brightest), "inferno")
    sheet.figure.colorbar(shown, cax=scale).outline.set_visible(False)  # type: ignore[operator]


def _explain(sheet: Sheet, film: Film, right: float, y: float) -> None:
    """The direction of the metric, and how to read the captions."""
    said = NOTE
    if film.metric:
        sheet.write(right, 0.18, measure(film.metric).axis, ha="right", size=9.5)
        said = f"below: of all {film.images} images, small: of this one; framed: best; {NOTE}"
    sheet.write(right, y + 0.1, said, ha="right", size=7.5)
