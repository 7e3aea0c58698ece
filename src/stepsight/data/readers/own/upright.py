"""A user's truth on the grid of its picture, which is read upright.

Depth of a phone or of ScanNet, and masks at half size, are coarser than their picture: they are
picked at the nearest pixel, flow in pixels of the grid it comes to. What was drawn on the stored
grid of a photograph whose tag turns it by a quarter (EXIF orientation 5 to 8) shows it by its size,
and is turned along; of orientations 2 to 4 the size tells nothing: what labelling tools draw is
upright.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from stepsight.data.decoding.pictures import turn_of
from stepsight.data.fields import Field
from stepsight.data.quantities.grids import Size, nearest
from stepsight.distributed.board import say
from stepsight.errors import DataFormatError

PIXELS, SHARE = 1.5, 0.02  # how far sides of the coarser grid may be off: the smaller of the two
FLIPPED: dict[int, tuple[int, ...]] = {
    5: (),
    6: (-1,),
    7: (-1, -2),
    8: (-2,),
}  # axes, after x <-> y


_said: set[tuple[str, ...]] = set()  # in this process, of whichever split or copy of a source


class Upright:
    """Brings truths to the grids of their pictures, and says once what was done to them."""

    def __init__(self, name: str, root: Path) -> None:
        self.name, self.root = name, root  # of the source

    def bring(self, value: Tensor, row: Field, path: Path, picture: Path, size: Size) -> Tensor:
        """A plane "... h w" of a field on the upright grid `size` (height, width) of `picture`.

        Raises `DataFormatError` naming the file `path` where it has another shape than the picture.
        """
        turn, own, name = turn_of(picture), _size(value), _name(row)
        if not same_shape(own, size) and same_shape((own[1], own[0]), size):
            if turn < 5:
                raise DataFormatError(
                    f"{path}: {_text(own)} pixels, a quarter turn from its image's {_text(size)}. "
                    "Turn one of them."
                )
            value = turned(value, turn, bool(row.negated))
            self._say(
                f"{name} is drawn as photographs are stored, such as {picture.name} with EXIF "
                f"orientation {turn}: it is turned along with them",
                name,
                "turned",
            )
        elif not same_shape(own, size):
            raise DataFormatError(
                f"{path}: {_text(own)} pixels, where its image has {_text(size)}."
            )
        elif turn > 1:
            self._say(
                f"{name} of photographs with an EXIF orientation, such as {picture.name} with "
                f"{turn}: taken as drawn over the upright picture",
                name,
                "upright",
            )
        return self._at(value, row, path, size)

    def _at(self, value: Tensor, row: Field, path: Path, size: Size) -> Tensor:
        own, name = _size(value), _name(row)
        if own == tuple(size):
            return value
        self._say(
            f"{name} has {_text(own)} pixels at pictures of {_text(size)}, such as "
            f"{path.name}: each pixel takes the nearest",
            name,
            "size",
        )
        value = nearest(value, size)
        return value if row.resized is None else row.resized(value, own, size)

    def _say(self, sentence: str, *what: str) -> None:
        if (key := (self.name, str(self.root), *what)) not in _said:
            _said.add(key)
            say(f"{self.name}: {sentence}.")


def same_shape(own: Size, size: Size) -> bool:
    """Whether one grid is the other at some scale, the coarser off by rounding or a border."""
    spans = []
    for side, whole in zip(*sorted([tuple(own), tuple(size)])):
        off = min(PIXELS, SHARE * side)
        spans.append(((side - off) / whole, (side + off) / whole))
    return max(low for low, _ in spans) <= min(high for _, high in spans)


def turned(value: Tensor, turn: int, vectors: bool) -> Tensor:
    """A stored plane "... h w" as EXIF orientation 5 to 8 says that it is to be shown, "... w h".

    vectors: its first two channels point right and down, and turn along (EXIF 2.32, table 4.6.4).
    """
    value = value.transpose(-1, -2).flip(FLIPPED[turn])
    if not vectors:
        return value.contiguous()
    value = value.clone()
    value[[0, 1]] = value[[1, 0]]
    for axis in FLIPPED[turn]:
        value[-1 - axis].neg_()  # x is the last axis and the first channel
    return value


def _name(row: Field) -> str:
    """What a mask of where a quantity counts belongs to is said of the quantity."""
    return row.name.removesuffix("_valid")


def _size(value: Tensor) -> Size:
    return value.shape[-2], value.shape[-1]


def _text(size: Size) -> str:
    return " x ".join(map(str, size))
