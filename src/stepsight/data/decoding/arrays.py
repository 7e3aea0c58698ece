"""Arrays of numbers in picture files: OpenEXR and TIFF, read by their own libraries where those are
installed. What a file claims to hold is held against memory before its pixels are read.

EXR keeps named channels of half floats, floats or whole numbers, by layers ("Depth.Z") and parts.
Their order means nothing; their names do (OpenEXR, "Technical Introduction").
"""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from stepsight.data.decoding.disk import extra, pick, reading
from stepsight.data.decoding.memory import check_memory
from stepsight.data.decoding.pixels import ORIENTATION, TURNS, upright_view
from stepsight.errors import DataFormatError, UserError

COPIES = 2.5  # of the values, as they are stored, while they are read
EXR_MAGIC = b"v/1\x01"
TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two: BigTIFF

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # damage is told by `_named`


def read_tiff(path: str | Path) -> np.ndarray:
    """The first page of a TIFF, or the array that tifffile wrote over its pages, "h w" or "h w c"
    in its own type, upright.

    Raises `DataFormatError` if the file is damaged or too large, `UserError` without tifffile.
    """
    path = Path(path)
    tifffile = extra("tifffile", "TIFF files of numbers")
    _check_start(path, TIFF_MAGICS, "TIFF")
    with _named(path, "TIFF"), tifffile.TiffFile(path) as file:
        page = file.pages[0]
        whole = file.series[0] if page.is_shaped else page  # an array of tifffile's, over all pages
        width = max(4, page.dtype.itemsize if page.dtype else 0)
        size = f"{page.dtype} of {whole.shape}"
        check_memory(COPIES * width * math.prod(whole.shape), size, path)
        check_memory(COPIES * width * math.prod(page.chunks), f"pieces of {page.chunks}", path)
        values = whole.asarray(maxworkers=1)
        tag = page.tags.get(ORIENTATION)
        turn = tag.value if tag and tag.value in TURNS else 1
        planar = values.ndim == 3 and page.planarconfig == 2  # "c h w"
    if values.ndim not in (2, 3) or not values.size:
        raise DataFormatError(f"{path}: a TIFF of {values.shape}, where one plane is expected.")
    values = values if values.ndim == 2 or planar else np.moveaxis(values, -1, 0)
    values = upright_view(values, turn)
    return values if values.ndim == 2 else np.moveaxis(values, 0, -1)


def read_exr(path: Path, part: str, wanted: Sequence[tuple[str, ...]]) -> np.ndarray:
    """Channels of an EXR as "h w c", float32 or uint32.

    part: a channel, or the layer of the channels; "" for any. wanted: names of channels without
    their layer, in small letters, by preference; a file of a single channel has that one whatever
    its name. Raises `DataFormatError` if the file is damaged, too large, cropped, or lacks them;
    `UserError` without OpenEXR.
    """
    library = extra("OpenEXR", "EXR files")
    _check_start(path, (EXR_MAGIC,), "EXR")
    with _named(path, "EXR"):
        header = library.File(str(path), header_only=True)
        for one in header.parts:
            _check_window(one.header, path)
        found = [(n, name) for n, one in enumerate(header.parts) for name in _names(one.header)]
        chosen = _channels([name for _, name in found], part, wanted, path)
        places = [next(place for place in found if place[1] == name) for name in chosen]
        with redirect_stdout(io.StringIO()):  # to which the library tells of damage
            file = library.File(str(path), separate_channels=True)
        planes = [file.parts[number].channels[name].pixels for number, name in places]
    if len({plane.shape for plane in planes}) > 1 or planes[0].ndim != 2:
        raise DataFormatError(f"{path}: channels of several sizes ({', '.join(chosen)}).")
    values = np.stack(planes, axis=-1) if len(planes) > 1 else planes[0][..., None]
    return values if values.dtype.kind == "u" else values.astype(np.float32, copy=False)


def _channels(
    names: list[str], part: str, wanted: Sequence[tuple[str, ...]], path: Path
) -> list[str]:
    if part in names:
        return [part]
    layer = [name for name in names if not part or name.rpartition(".")[0] == part]
    if len(layer) == 1:
        return layer
    for group in wanted:
        for prefix in dict.fromkeys(name.rpartition(".")[0] for name in layer):
            inside = {
                n.rpartition(".")[2].lower(): n for n in layer if n.rpartition(".")[0] == prefix
            }
            if all(name in inside for name in group):
                return [inside[name] for name in group]
    pick(layer, "", (), path)  # which says what is there
    raise AssertionError(layer)


def _names(header: dict[str, Any]) -> list[str]:
    return [channel.name for channel in header["channels"]]


def _check_window(header: dict[str, Any], path: Path) -> None:
    """Raise `DataFormatError` unless a part fits in memory and fills its picture."""
    (left, top), (right, bottom) = (np.asarray(c, np.int64).tolist() for c in header["dataWindow"])
    shown = [np.asarray(c, np.int64).tolist() for c in header["displayWindow"]]
    height, width = bottom - top + 1, right - left + 1
    if min(height, width) < 1:
        raise DataFormatError(f"{path}: damaged EXR, {height} x {width} pixels.")
    needed = COPIES * 4 * len(header["channels"]) * height * width
    check_memory(needed, f"{height} x {width} pixels", path)
    if shown != [[left, top], [right, bottom]]:
        reason = f"holds {height} x {width} pixels cut out of a picture; save the whole window"
        raise DataFormatError(f"{path}: {reason}.")


def _check_start(path: Path, magics: tuple[bytes, ...], kind: str) -> None:
    with reading(path), path.open("rb") as file:
        start = file.read(12)
    if not start.startswith(magics):
        raise DataFormatError(f"{path}: not a readable {kind} file, it starts with {start!r}.")


@contextmanager
def _named(path: Path, kind: str) -> Iterator[None]:
    """Whatever a library raises for damaged data, as an error that names the file."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise DataFormatError(
            f"{path}: damaged {kind}, or of a kind not read ({error})."
        ) from error
