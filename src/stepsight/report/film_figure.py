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

TILE, GAP, CAPTION = 1.28, 0.12, 0.3  # inches, of which each is 150 dots: 64 pixels are 192
HEADING, MARGIN, FOOT, SIDE = 0.56, 0.42, 0.2, 0.75
DOTS = 150  # pixels of a legend per inch
PICTURES: dict[Any, Any] = {"image.interpolation": "nearest", "image.aspect": "auto"}


class Shot(NamedTuple):
    """A tile of the strip, with the metric of its setting."""

    tile: Tile
    over_set: float
    on_image: float
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


@matplotlib.rc_context(figures.STYLE | PICTURES)
def draw(film: Film) -> Figure:
    """The strip as a figure: what is given on the left, then a column per NFE."""
    labels = [*film.rows, *(["spread"] if film.spreads else [])]
    aside = -(-len(film.given) // len(labels))  # columns of input, prompt and truth
    height, width = next(iter(film.given.values())).shape[:2]
    tall, across = TILE * height / width, TILE + GAP
    left = aside * across + MARGIN
    end = left + len(film.nfe) * across
    size = end + SIDE, HEADING + len(labels) * (tall + CAPTION) + FOOT
    figure = Figure(figsize=size)

    def axes_of(start: float, columns: int) -> np.ndarray:
        """Empty axes, a row per label."""
        edges = {"top": 1 - HEADING / size[1], "bottom": (FOOT + CAPTION) / size[1]}
        edges |= {"left": start / size[0], "right": (start + columns * across - GAP) / size[0]}
        spaces = {"wspace": GAP / TILE, "hspace": CAPTION / tall}
        grid = figure.add_gridspec(len(labels), columns, **edges, **spaces).subplots(squeeze=False)
        for axes in grid.flat:
            _bare(axes)
        return grid

    given, strip = axes_of(0, aside), axes_of(left, len(film.nfe))
    for axes, (name, tile) in zip(given.T.flat, film.given.items()):
        axes.imshow(tile)
        axes.set_xlabel(name)
    for axes, label in zip(strip[:, 0], labels):
        axes.set_ylabel(label, fontsize=9)
    for axes, calls in zip(strip.T, film.nfe):
        axes[0].set_title(f"{calls} NFE", loc="center", fontsize=9.5, weight="normal")
        for place, row in zip(axes, film.rows.values()):
            if calls in row:
                _shoot(place, row[calls])
        if calls in film.spreads:
            axes[-1].imshow(film.spreads[calls])
    if film.legend is not None:
        _draw_legend(strip[0, -1], film.legend, tall)
    if film.spreads:
        scale = strip[-1, -1].inset_axes((across / TILE, 0, 0.1 / TILE, 1))
        shown = ScalarMappable(Normalize(0, film.brightest), "inferno")
        figure.colorbar(shown, cax=scale).outline.set_visible(False)  # type: ignore[operator]
    _explain(figure, film, right=(end - GAP) / size[0])
    return figure


def _bare(axes: Axes) -> None:
    """For a picture: no ticks, grid and frame."""
    axes.set(xticks=[], yticks=[])
    figures.bare(axes)
    axes.xaxis.labelpad = 2


def _shoot(axes: Axes, shot: Shot) -> None:
    """A tile with what the set and the image say of its setting."""
    axes.imshow(shot.tile)
    for spine in axes.spines.values():
        spine.set(visible=shot.best, edgecolor=figures.PALETTE[1], linewidth=3)
    if np.isfinite(shot.over_set) and axes.figure is not None:
        axes.set_xlabel(number(shot.over_set), weight="bold" if shot.best else "normal")
        small = {"ha": "right", "va": "top", "size": 6.5, "alpha": 0.75}
        axes.figure.text(1, -0.05, number(shot.on_image), transform=axes.transAxes, **small)


def _draw_legend(beside: Axes, legend: Legend, tall: float) -> None:
    """What the colours stand for, at the upper right of the axes, which are `tall` inches."""
    tile = rearrange(legend.picture.cpu(), "c h w -> h w c").numpy()
    height, width = tile.shape[0] / DOTS / tall, tile.shape[1] / DOTS / TILE
    axes = beside.inset_axes((1 + GAP / TILE, 1 - 0.16 / tall - height, width, height))
    _bare(axes)
    axes.imshow(tile)
    axes.set_title(legend.top, fontsize=8, loc="left", pad=3, weight="normal")
    axes.set_xlabel(legend.bottom, fontsize=8, loc="left")


def _explain(figure: Figure, film: Film, right: float) -> None:
    """The image, the direction of the metric, and how to read the captions."""
    height, note = figure.get_figheight(), NOTE
    heading = 1 - 0.18 / height
    figure.text(0, heading, f"{film.task}: {film.key}", weight="bold", size=11)
    if film.metric:
        figure.text(right, heading, measure(film.metric).axis, ha="right", size=9.5)
        note = f"below: over all {film.images} images, small: this one; framed: best; {NOTE}"
    figure.text(right, (FOOT - 0.1) / height, note, ha="right", size=7.5)
