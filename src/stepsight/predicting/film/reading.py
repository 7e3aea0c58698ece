"""Films frame by frame, by PyAV.

Frames come upright: the rotation that phones write beside the pictures is applied. Colours follow
the matrix and range that the file states; where it states none, players take BT.601 below 720 lines
and BT.709 from there on, and so does this.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from stepsight.errors import DataFormatError, UserError

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".gif")
FOLDER_RATE = Fraction(25)  # frames a second of a folder of pictures, which states none
MICROSECONDS = 1e6  # a second, of FFmpeg's durations
MISSING = 0.1  # share of a film's stated length without pictures that is remarked on
HD_LINES = 720  # from which on an unstated colour matrix is BT.709
ITU601, ITU709, UNSTATED = 5, 1, 2  # of colour matrices, as FFmpeg numbers them


def is_film(path: Path) -> bool:
    """Whether a path names a film by its suffix."""
    return path.suffix.lower() in SUFFIXES


def frames(path: str | Path) -> Iterator[Tensor]:
    """The frames of a film, uint8 RGB "3 h w", one at a time.

    Raises DataFormatError for a file without pictures, one that is damaged, or frames that change
    their size, and UserError without PyAV.
    """
    path, size = Path(path), None
    for number, frame in enumerate(_film(path)):
        size = size or frame.shape
        if frame.shape != size:
            was, now = (" x ".join(map(str, shape[-2:])) for shape in (size, frame.shape))
            raise DataFormatError(
                f"{path}: frame {number} has {now} pixels, those before it {was}. A film has one "
                f"size: cut it there."
            )
        yield frame
    if size is None:
        raise DataFormatError(f"{path}: holds no frame.")


def frame_rate(path: str | Path) -> Fraction:
    """Frames a second: of a film whose frames last differently, on average; of a folder of
    pictures, which states none, 25."""
    path = Path(path)
    if path.is_dir():
        return FOLDER_RATE
    with _opened(path) as container:
        stream = container.streams.video[0]
        return Fraction(stream.average_rate or stream.guessed_rate or FOLDER_RATE)


def av() -> Any:
    """PyAV. Raises UserError where it is not installed."""
    try:
        import av
    except ImportError as error:
        raise UserError("films need PyAV. Install it with `uv sync --extra film`.") from error
    return av


def _film(path: Path) -> Iterator[Tensor]:
    with _opened(path) as container, _damage(path):
        first = last = None
        for frame in container.decode(container.streams.video[0]):
            last = frame.time
            first = last if first is None else first
            yield upright(_rgb(frame), frame.rotation)
        stated = (container.duration or 0) / MICROSECONDS
        seen = (last or 0.0) - (first or 0.0)
        if last is not None and stated - seen > max(1.0, MISSING * stated):
            # Matroska is read up to where it was cut off, as if it ended there
            print(
                f"warning: {path}: its pictures end after {seen:.1f} of the {stated:.1f} s that it "
                "states. It may have been cut off.",
                file=sys.stderr,
            )


def _rgb(frame: VideoFrame) -> Tensor:
    """uint8 "3 h w"."""
    matrix = frame.colorspace
    if matrix == UNSTATED and frame.format.name.startswith("yuv"):
        matrix = ITU709 if frame.height >= HD_LINES else ITU601
        frame = frame.reformat(format="rgb24", src_colorspace=matrix, dst_colorspace=matrix)
    return torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1).contiguous()


def upright(frame: Tensor, degrees: float) -> Tensor:
    """ "c h w" turned counter-clockwise by quarter turns."""
    return torch.rot90(frame, round(degrees / 90) % 4, (-2, -1)).contiguous()


@contextmanager
def _opened(path: Path) -> Iterator[InputContainer]:
    if not path.is_file():
        raise UserError(f"{path}: no such film.")
    package = av()
    with _damage(path), package.open(str(path)) as container:
        if not container.streams.video:
            raise DataFormatError(f"{path}: a file without pictures.")
        yield container


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except av().FFmpegError as error:
        raise DataFormatError(f"{path}: not readable as a film: {error.strerror}.") from error
