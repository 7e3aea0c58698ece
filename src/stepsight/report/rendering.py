"""Pages from templates, and how values are written in them.

A page is one HTML file that needs no other file, has no script and may load nothing. All text is
escaped unless a template wrote it: a name from a run folder may be anything, `<img onerror=...>`
included, and becomes visible text. A name that is unknown to a template raises an error.
"""

from __future__ import annotations

import base64
import io
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from stepsight.errors import command
from stepsight.legends import Legend
from stepsight.measures import duration, measure, number, spoken
from stepsight.report.figures import house_order, to_svg
from stepsight.report.panels import Kind, PicturePanel, read_panels
from stepsight.report.run_folder import by
from stepsight.scaling.sampling.wording import count

GOOD = ("holds", "wins", "law")  # verdicts that are told first
PICTURE_BYTES = 1_900_000  # of PNG files in the page, about 2.5 MB once inside
TILE = {"panels": 360, "extremes": 240, "films": 160}  # pixels: sides of a panel's tiles, at most


def render(template: str, **values: object) -> str:
    """The page that `templates/<template>.html.j2` makes of `values`."""
    return _environment().get_template(f"{template}.html.j2").render(values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("stepsight.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"command": command, "measure": measure, "svg": to_svg}
    environment.filters |= {"by": by, "duration": duration, "interval": interval}
    environment.filters |= {"number": known_number, "percent": percent, "plural": count}
    environment.filters |= {"labelled": labelled, "short_name": short_name, "spoken": spoken}
    return environment


def counted(verdicts: Iterable[str]) -> str:
    """How often each verdict was reached: the good ones, then the most frequent."""
    found = Counter(verdicts).most_common()
    found.sort(key=lambda one: one[0] not in GOOD)
    return ", ".join(f"{verdict}: {times}" for verdict, times in found)


def known_number(value: float | str | None, digits: int = 3) -> str:
    """A number with so many digits; a dash where it is unknown."""
    return number(_float(value), digits) if math.isfinite(_float(value)) else "-"


def percent(value: float | str | None) -> str:
    """A change such as `+5.0%`; a dash where it is unknown."""
    return f"{_float(value):+.1%}" if math.isfinite(_float(value)) else "-"


def interval(ends: Iterable[float | str | None] | None, changes: bool = False) -> str:
    """`[low, high]`, of relative changes in percent; empty where an end is unknown."""
    write = percent if changes else known_number
    known = [write(end) for end in ends or () if math.isfinite(_float(end))]
    return f"[{', '.join(known)}]" if len(known) == 2 else ""


def labelled(rows: Markup, header: Sequence[str]) -> Markup:
    """Rows of a table with the heading of its column in every cell, which is shown where cells
    stand below each other."""

    def label(row: re.Match[str]) -> str:
        names = iter(header)
        return re.sub(
            r"<td\b", lambda _: f'<td data-label="{escape(next(names, ""))}"', row.group()
        )

    rows = Markup(re.sub(r"(<td\b[^>]*>)\s+</td>", r"\1</td>", rows))  # which CSS calls empty
    return Markup(re.sub(r"<tr\b.*?</tr>", label, rows, flags=re.DOTALL))


def short_name(whole: str) -> str:
    """A protocol without its digests, the last part of a path, the first seven digits of a digest;
    `depth-affine-log@fa32a147` is `depth-affine-log`."""
    if re.fullmatch(r"[0-9a-f]{10,}", whole):
        return whole[:7]
    return re.sub(r"@[0-9a-f]{6,}", "", whole.rstrip("/").rpartition("/")[2])


def _float(value: float | str | None) -> float:
    """Also of a cell of a table and of JSON, where what is unknown is empty."""
    return math.nan if value in (None, "") else float(value)


def write_page(target: Path, page: str) -> Path:
    """Write a page at once, as somebody may be looking at the one before; returns its path."""
    staged = target.with_suffix(".staged")
    staged.write_text(page, encoding="utf-8")
    os.replace(staged, target)
    return target


class EmbeddedPicture(NamedTuple):
    """A PNG file to put into a page."""

    path: Path
    caption: str
    data: str  # base64; empty where it would make the page too large


class ShownPanel(NamedTuple):
    """A panel of pictures to put into a page."""

    panel: PicturePanel
    data: dict[str, str]  # base64 of the PNG by the file of a tile

    @property
    def widest(self) -> int:
        """Tiles in its longest row."""
        return max(len(tiles) for _, tiles in by(self.panel.tiles, "row"))

    @property
    def of_set(self) -> bool:
        """Whether all scores are known for the whole set, which says more than one image does."""
        return all(tile.over_set is not None for tile in self.panel.tiles if tile.score is not None)

    @property
    def legends(self) -> list[tuple[str, Legend]]:
        """What colours mean, each with a word for what it is of."""
        panel, names = self.panel, [tile.name for tile in self.panel.tiles]
        others = {"spread": panel.spread_scale, "error": panel.error_scale}
        scales = {"": panel.scale} | {name: others[name] for name in others if name in names}
        return [(name, scale) for name, scale in scales.items() if scale is not None]


def shown_panels(folder: Path, kind: Kind = "panels") -> list[ShownPanel]:
    """The panels of a kind that an evaluation or a sweep left in its folder."""
    return [
        ShownPanel(panel, {t.file: _small(folder / kind / t.file, TILE[kind]) for t in panel.tiles})
        for panel in read_panels(folder, kind)
    ]


def first_panels(*folders: Path) -> list[ShownPanel]:
    """A panel a task, of the first of these folders that has one."""
    found = [shown for folder in reversed(folders) for shown in shown_panels(folder)]
    by_task = {shown.panel.task: shown for shown in found}
    return [by_task[task] for task in sorted(by_task, key=lambda task: house_order(f"/{task}"))]


def _small(path: Path, side: int) -> str:
    """The PNG as base64, made smaller where its longer side is more than `side`."""
    sink = io.BytesIO()
    with Image.open(path) as picture:
        picture.thumbnail((side, side))
        picture.save(sink, format="PNG", optimize=True)
    return base64.b64encode(sink.getvalue()).decode()


class Pictures:
    """Reads pictures for a page until their budget is spent."""

    def __init__(self, budget: int = PICTURE_BYTES) -> None:
        self._left = budget

    def read(self, path: Path, caption: str) -> EmbeddedPicture:
        size = path.stat().st_size
        if size > self._left:
            return EmbeddedPicture(path, caption, "")
        self._left -= size
        return EmbeddedPicture(path, caption, base64.b64encode(path.read_bytes()).decode())
