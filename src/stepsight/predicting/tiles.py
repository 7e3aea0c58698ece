"""Large pictures in tiles that overlap, blended so that no seam shows.

A network sees a picture at the size that it was trained at, so that detail of a large photograph is
lost before it is looked at. Here each tile of it is seen at that size. What a tile answers alone is
brought together with an overview, the answer to the whole picture shrunk:

* depth that is right up to scale and shift has another scale and shift in every tile: those that
  bring it closest to the overview (Huber's loss) are applied. A tile that disagrees with the
  overview altogether, as empty sky may, is taken from the overview;
* flow is looked for around the overview's: the second tile is moved by its median flow. What moves
  otherwise by more than the network finds at the size of a tile is not found;
* a mask is completed in tiles that show some of the object, and elsewhere taken from the overview.

Tiles are blended in the target space of the task (of flow in pixels, of classes by their codes)
under weights that fall to 0 at their edges and add up to 1, and decoded afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from stepsight.data.decoding.images import read_image
from stepsight.errors import UserError
from stepsight.pipeline.dense import DensePipeline
from stepsight.pipeline.inputs import mask_of, picture_of
from stepsight.tasks.base import Task, resize
from stepsight.tasks.semantic import Semantic
from stepsight.types import Batch, Prediction

WIDTH = 4  # a tile is so many overlaps wide, unless told otherwise
OVERVIEW = 1024  # pixels of the longer side that the whole picture is shrunk to
REFUSED = {"image": "generates pictures", "panoptic": "numbers objects, which tiles would cut"}
ROUNDS, TUNING = 10, 1.345  # of Huber's loss: 95 % as good as least squares on normal errors
AGREEING = 0.2  # correlation with the overview below which a tile's depth is not believed
BAND = 1 << 21  # pixels that are coloured at a time


@dataclass(frozen=True)
class _Tile:
    """Where a tile lies: rows and columns of the picture."""

    top: int
    left: int
    high: int
    wide: int

    def of(self, x: Tensor) -> Tensor:
        """The part of "... h w" that it shows."""
        return x[..., self.top :, self.left :][..., : self.high, : self.wide]

    def moved(self, x: Tensor, down: int, right: int) -> Tensor:
        """The part that it shows when it is moved; what lies beyond repeats the edge."""
        rows = torch.arange(self.top + down, self.top + down + self.high).clamp(0, x.shape[-2] - 1)
        columns = torch.arange(self.left + right, self.left + right + self.wide)
        return x[..., rows[:, None], columns.clamp(0, x.shape[-1] - 1)]


@dataclass
class _Canvas:
    """Weighted sums of tiles, of the rows that further tiles may still add to."""

    width: int
    sums: Tensor = field(default_factory=lambda: torch.zeros(0))  # "c r w", the weight last
    top: int = 0  # row of the picture that the sums begin at

    def add(self, tile: _Tile, x: Tensor, weight: Tensor) -> None:
        """x "c h w" under weight "h w"."""
        below = tile.top + tile.high - self.top
        if not self.sums.numel():
            self.sums = x.new_zeros(len(x) + 1, below, self.width)
        self.sums = F.pad(self.sums, (0, 0, 0, max(0, below - self.sums.shape[1])))
        part = _Tile(tile.top - self.top, tile.left, tile.high, tile.wide).of(self.sums)
        part += torch.cat([x, torch.ones_like(x[:1])]) * weight

    def done(self, row: int) -> Tensor:
        """Means "c r w" of all rows above `row`, which are let go."""
        ready, self.sums = self.sums.split([row - self.top, self.sums.shape[1] + self.top - row], 1)
        self.top, self.sums = row, self.sums.clone()
        return ready[:-1] / ready[-1:]


def predict_tiled(
    pipeline: DensePipeline,
    picture: Any,
    task: str,
    tile: int,
    overlap: int | None = None,
    **how: Any,
) -> Prediction:
    """The answer to one picture, "1 c h w" on its own grid and on the CPU, from tiles of `tile`
    pixels that overlap by `overlap` (a quarter of them).

    picture, second, mask and `how`: as `DensePipeline.__call__` takes them; `size` is that of a
    tile's longer side. `x` is that of the overview. Raises UserError for a task without tiles, and
    for tiles that are too small or overlap by more than half.
    """
    chosen = pipeline.task(task)
    if task in REFUSED:
        raise UserError(f"task {task} is not answered in tiles: it {REFUSED[task]}.")
    overlap = tile // WIDTH if overlap is None else overlap
    if not 0 < overlap <= tile // 2:
        raise UserError(
            f"tiles of {tile} pixels that overlap by {overlap}: give 1 to {tile // 2}, "
            "half of a tile."
        )
    seen = _bytes(picture)
    height, width = seen.shape[-2:]
    if max(height, width) <= tile:
        return pipeline(seen, task, **how).to("cpu")
    work = _Work(pipeline, chosen, seen, how)
    answer, spread = _blended(work, _rows(height, width, tile, overlap), overlap)
    decoded = chosen.in_pixels or isinstance(chosen, Semantic)
    values = answer[None] if decoded else chosen.decode(answer[None]).values
    picture = _coloured(chosen, values, seen, work.mask)
    return Prediction(task, work.overview.x, values, spread, picture)


class _Work:
    """What answers tiles of one picture."""

    def __init__(
        self, pipeline: DensePipeline, task: Task, picture: Tensor, how: dict[str, Any]
    ) -> None:
        self.pipeline, self.task, self.picture = pipeline, task, picture
        self.how = dict(how)
        self.second, self.mask = self.how.pop("second", None), self.how.pop("mask", None)
        if self.second is not None and "second" in task.required_inputs:
            self.second = _bytes(self.second)
        if self.mask is not None and "modal" in task.required_inputs:
            self.mask = mask_of(self.mask).cpu()
        scale = min(1.0, OVERVIEW / max(picture.shape[-2:]))
        size = [max(1, round(side * scale)) for side in picture.shape[-2:]]
        beside: dict[str, Any] = {}
        if self.second is not None:
            beside["second"] = _shrunk(self.second, size)
        if self.mask is not None:
            beside["mask"] = resize(self.mask[None].float(), (size[0], size[1]))[0, 0] > 0.5
        found = pipeline(_shrunk(picture, size), task.name, **beside, **self.how)
        self.overview = found.to("cpu")
        self.scale = picture.shape[-1] / size[1]

    def answers(self, tiles: Sequence[_Tile]) -> Iterator[tuple[Tensor, Tensor | None]]:
        """What is blended "c h w", and the uncertainty "1 h w", of tiles of one size."""
        moves = [self._moved(tile) for tile in tiles]
        shown = [self.mask is None or bool(tile.of(self.mask).any()) for tile in tiles]
        asked = [place for place, some in enumerate(shown) if some]
        how = dict(self.how)
        if self.second is not None:
            how["second"] = [tiles[i].moved(self.second, *moves[i]) for i in asked]
        if self.mask is not None:
            how["mask"] = [tiles[i].of(self.mask) for i in asked]
        pictures = [tiles[i].of(self.picture) for i in asked]
        found = dict(zip(asked, self.pipeline(pictures, self.task.name, **how)))
        for place, tile in enumerate(tiles):
            if place in found:
                yield self._placed(tile, found[place].to("cpu"), moves[place])
            else:
                yield self._from_overview(tile)

    def _moved(self, tile: _Tile) -> tuple[int, int]:
        """By how many rows and columns the second picture's tile lies elsewhere."""
        if not self.task.in_pixels:
            return 0, 0
        flow = self._overviewed(self.overview.values, tile).flatten(1) * self.scale
        right, down = flow.median(dim=1).values.round().int().tolist()
        return down, right

    def _placed(
        self, tile: _Tile, found: Prediction, moved: tuple[int, int]
    ) -> tuple[Tensor, Tensor | None]:
        spread = None if found.uncertainty is None else found.uncertainty[0]
        if self.task.in_pixels:
            return found.values[0] + torch.tensor(moved[::-1])[:, None, None], spread
        x = found.x
        if getattr(self.task, "range", "") == "quantile":
            near = self._overviewed(self.overview.x, tile, (x.shape[-2], x.shape[-1]))
            fit = robust_affine(x.flatten(), near.flatten())
            if fit is None:
                return self._from_overview(tile)
            x, spread = fit[0] * x + fit[1], None if spread is None else fit[0] * spread
        return resize(x, (tile.high, tile.wide))[0], spread

    def _from_overview(self, tile: _Tile) -> tuple[Tensor, Tensor | None]:
        """What the overview answers there."""
        grid, spread = (tile.high, tile.wide), self.overview.uncertainty
        x = self._overviewed(self.overview.x, tile, grid)
        return x, None if spread is None else self._overviewed(spread, tile, grid)

    def _overviewed(self, x: Tensor, tile: _Tile, grid: tuple[int, int] | None = None) -> Tensor:
        """The part "c h w" of a map "1 c h' w'" of the whole picture that a tile shows, at the
        map's own size or on another grid."""
        height, width = self.picture.shape[-2:]
        down, right = x.shape[-2] / height, x.shape[-1] / width
        if grid is None:
            grid = max(1, round(tile.high * down)), max(1, round(tile.wide * right))
        rows = (tile.top + (torch.arange(grid[0]) + 0.5) * tile.high / grid[0]) / height
        columns = (tile.left + (torch.arange(grid[1]) + 0.5) * tile.wide / grid[1]) / width
        y, column = torch.meshgrid(2 * rows - 1, 2 * columns - 1, indexing="ij")
        places = torch.stack([column, y], dim=-1)[None]
        return F.grid_sample(
            x.float(), places, mode="bilinear", padding_mode="border", align_corners=False
        )[0]


def robust_affine(x: Tensor, y: Tensor) -> tuple[float, float] | None:
    """Scale above 0 and shift that bring x "n" closest to y "n" by Huber's loss, as reweighted
    least squares; None where the two hardly agree (`AGREEING`) or run against each other."""
    x, y = x.double(), y.double()
    weight = torch.ones_like(x)
    scale, shift = 0.0, float(y.median())
    for _ in range(ROUNDS):
        share = weight / weight.sum()
        middle, centre = (share * x).sum(), (share * y).sum()
        along, up = x - middle, y - centre
        spread, height = (share * along**2).sum(), (share * up**2).sum()
        both = (share * along * up).sum()
        if not both > AGREEING * (spread * height).sqrt():
            return None
        scale, shift = float(both / spread), float(centre - both / spread * middle)
        off = (y - scale * x - shift).abs()
        width = 1.4826 * TUNING * off.median()
        weight = (width / off.clamp_min(1e-12)).clamp(1e-6, 1)
    return scale, shift


def starts(side: int, tile: int, overlap: int) -> list[int]:
    """Where tiles of a side begin, evenly, the last one ending with it."""
    if side <= tile:
        return [0]
    count = 1 + -(-(side - tile) // (tile - overlap))
    return [round(i * (side - tile) / (count - 1)) for i in range(count)]


def _rows(height: int, width: int, tile: int, overlap: int) -> list[list[_Tile]]:
    high, wide = min(tile, height), min(tile, width)
    across = starts(width, tile, overlap)
    return [
        [_Tile(top, left, high, wide) for left in across] for top in starts(height, tile, overlap)
    ]


def _blended(
    work: _Work, rows: Sequence[Sequence[_Tile]], overlap: int
) -> tuple[Tensor, Tensor | None]:
    """The whole answer "c h w", as far as it is blended, and its uncertainty "1 1 h w"."""
    height, width = work.picture.shape[-2:]
    canvas, parts, spreads = _Canvas(width), list[Tensor](), list[Tensor]()
    ends = [row[0].top for row in rows[1:]] + [height]
    for row, end in zip(rows, ends):
        for tile, (x, spread) in zip(row, work.answers(row)):
            x = _votes(work.task, x)
            x = x if spread is None else torch.cat([x, spread])
            canvas.add(tile, x, _weight(tile, height, width, overlap))
        ready = canvas.done(end)
        if work.overview.uncertainty is not None:
            spreads.append(ready[-1:])
            ready = ready[:-1]
        parts.append(_decided(work.task, ready))
    whole = torch.cat(parts, dim=1)
    return whole, torch.cat(spreads, dim=1)[None] if spreads else None


def _votes(task: Task, x: Tensor) -> Tensor:
    """Codes "c h w" whose means stand for no third class: colours are read, and counted."""
    if not isinstance(task, Semantic) or task.encoding != "palette":
        return x
    ids = task.decode(x[None]).values[0, 0]
    return rearrange(F.one_hot(ids, task.classes).float(), "h w k -> k h w")


def _decided(task: Task, x: Tensor) -> Tensor:
    """Blended codes "c h w" as class ids "1 h w", which take less room; others as they are."""
    if not isinstance(task, Semantic):
        return x
    if task.encoding == "palette":
        return x.argmax(dim=0, keepdim=True)
    return task.decode(x[None]).values[0]


def _weight(tile: _Tile, height: int, width: int, overlap: int) -> Tensor:
    """ "h w": 1 inside, falling to 0 over `overlap` pixels where the picture goes on."""

    def ramp(first: int, count: int, side: int) -> Tensor:
        inward = torch.arange(count) + 0.5
        before = inward if first > 0 else torch.full_like(inward, overlap)
        after = inward.flip(0) if first + count < side else torch.full_like(inward, overlap)
        return ((before.minimum(after) / overlap).clamp(max=1) * (math.pi / 2)).sin().square()

    down, across = ramp(tile.top, tile.high, height), ramp(tile.left, tile.wide, width)
    return down[:, None] * across


def _coloured(task: Task, values: Tensor, picture: Tensor, mask: Tensor | None) -> Tensor:
    """The answer in colours, uint8 "1 3 h w", some rows at a time."""
    limits, rows, parts = task.limits(values), max(1, BAND // values.shape[-1]), list[Tensor]()
    for top in range(0, values.shape[-2], rows):
        some = values[..., top : top + rows, :]
        if limits is not None:
            parts.append(task.coloured(some, limits))
            continue
        batch = Batch(picture[None, :, top : top + rows].float() / 127.5 - 1, [""], [""])
        batch.modal = None if mask is None else mask[None, :, top : top + rows]
        parts.append(task.picture(some, batch))
    return torch.cat(parts, dim=2)


def _bytes(picture: Any) -> Tensor:
    """A picture in any form as uint8 "3 h w" on the CPU."""
    if isinstance(picture, str | Path):
        return read_image(Path(picture))
    x = picture_of(picture)
    if isinstance(picture, Tensor) and picture.dtype == torch.uint8:
        return picture.cpu()
    return ((x + 1) * 127.5).round().to(torch.uint8).cpu()


def _shrunk(picture: Tensor, size: Sequence[int]) -> Tensor:
    """uint8 "3 h w" at another size."""
    shape = int(size[0]), int(size[1])
    return F.interpolate(picture[None], size=shape, mode="bilinear", antialias=True)[0]
