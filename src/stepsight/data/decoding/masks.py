"""Masks of objects in whatever form people keep them: one meaning, or a refusal with a way out.

A file's own form decides where it can: values 0 and 1, 0 and 255, or 0 and any other single one (8
bits, 16 bits, one bit, a palette's indices); black and one colour; grey that is black or white but
for its soft border; alpha that varies. White, or what is not 0, is inside. Label maps, two values
that are both not 0, and files whose alpha or palette contradicts their colours are refused: there
`mask_inside` says what is inside.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import max_pool2d

from stepsight.data.decoding.disk import part_of
from stepsight.data.decoding.images import decode
from stepsight.data.decoding.outlines.objects import read_object
from stepsight.data.decoding.pixels import orientation_of, rgb, upright_view
from stepsight.data.decoding.truth import ARRAYS, read_array
from stepsight.errors import DataFormatError, UserError

WORDS = ("bright", "dark", "nonzero", "alpha")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", *ARRAYS, ".json")
MASK_BYTES = 12  # of a pixel, while its meaning is found
REACH = 3  # pixels from black and from white within which a border is soft
MOST = 0.5  # share of grey pixels
STRAY, SPECKS = 0.05, 1e-4  # shares of the grey pixels, or of all, that may lie elsewhere
NOISE = 8  # the part of the range that compression moves black and white by: 1 / 8
NOISY = 4  # distinct values near black, and near white, from which on it is noise
LOSSY = ("JPEG", "MPO", "WEBP", "AVIF", "HEIF")


class Stored(NamedTuple):
    """A mask as it is stored: what may say what is inside."""

    values: np.ndarray  # "h w" grey, or "h w 3" colours
    top: float  # of the range of the values
    codes: np.ndarray | None = None  # "h w", the indices of a palette
    alpha: np.ndarray | None = None  # "h w", 0 to 255
    lossy: bool = False


def read_mask(path: str | Path, inside: str = "") -> Tensor:
    """The mask bool "1 h w" of a picture, an array, or an object of LabelMe or COCO (`FILE#ID`).

    inside: `bright` or `dark` (than half the range), `nonzero`, `alpha`, one stored value (`1`, or
    `255,0,0`); "" for the one meaning that the file has. Raises `DataFormatError` if it is damaged
    or has no one meaning, and `UserError` for another `inside`.
    """
    path = Path(path)
    file, _ = part_of(path)
    if file.suffix.lower() == ".json":
        return read_object(path)
    if file.suffix.lower() in ARRAYS:
        return mask_of(read_array(path, "mask"), inside, path)
    image, bits = decode(path, MASK_BYTES)
    if bits > 8 and not image.mode.startswith("I;16"):
        raise DataFormatError(f"{path}: {bits}-bit picture of mode {image.mode} is no mask.")
    return mask_of(image, inside, path)


def mask_of(mask: Any, inside: str, where: object) -> Tensor:
    """The same of a PIL image, an array or a tensor: "h w", "1 h w", "h w 1", or colours
    uint8 "h w 3" or "h w 4"."""
    if isinstance(mask, Image.Image):
        mask.load()  # before it is asked how it lies: Pillow turns a TIFF while it is loaded
        turn, stored = orientation_of(mask), _of_picture(mask)
    else:
        turn, stored = 1, _of_array(mask, where)
    found = _named(stored, inside, where) if inside else _one_meaning(stored, where)
    return torch.from_numpy(upright_view(found, turn).copy())[None]


def _of_picture(image: Image.Image) -> Stored:
    lossy = image.format in LOSSY
    if image.mode == "1":
        return Stored(np.asarray(image).astype(np.uint8), 1)
    if image.mode == "L" or image.mode.startswith("I;16"):
        return Stored(np.asarray(image), 255 if image.mode == "L" else 65535, lossy=lossy)
    transparent = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    alpha = np.asarray(image.convert("RGBA").getchannel("A")) if transparent else None
    codes = np.asarray(image) if image.mode == "P" else None
    colours = rgb(image).permute(1, 2, 0).numpy()
    grey = (colours == colours[..., :1]).all()
    return Stored(colours[..., 0] if grey else colours, 255, codes, alpha, lossy)


def _of_array(mask: Any, where: object) -> Stored:
    values = mask.detach().cpu().numpy() if isinstance(mask, Tensor) else np.asarray(mask)
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[-1]):
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    if values.ndim == 3 and values.dtype == np.uint8 and values.shape[-1] in (3, 4):
        return _of_picture(Image.fromarray(values))
    if values.ndim != 2 or values.dtype.kind not in "biuf" or not values.size:
        reason = f"{values.dtype} of shape {values.shape}, where a mask is h w"
        raise DataFormatError(f"{where}: {reason}.")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise DataFormatError(f"{where}: a mask that holds NaN or infinity.")
    tops = {"b": 1, "f": 1, "i": 255, "u": 65535 if values.dtype == np.uint16 else 255}
    kept = values.astype(np.uint8) if values.dtype == bool else values
    return Stored(kept, tops[values.dtype.kind])


def _named(stored: Stored, inside: str, where: object) -> np.ndarray:
    """bool "h w" by what the user says is inside."""
    values = stored.values
    if inside == "alpha":
        if stored.alpha is None:
            raise DataFormatError(f"{where}: has no alpha, which mask_inside=alpha asks for.")
        return stored.alpha > 127
    if inside in ("bright", "dark"):
        light = values if values.ndim == 2 else values @ np.array([0.299, 0.587, 0.114])
        return (light > stored.top / 2) == (inside == "bright")
    codes = values if stored.codes is None else stored.codes
    if inside == "nonzero":
        return codes != 0 if codes.ndim == 2 else (codes != 0).any(-1)
    try:
        value = [float(number) for number in inside.split(",")]
    except ValueError:
        reason = f"is none of {', '.join(WORDS)}, nor a stored value such as 1 or 255,0,0"
        raise UserError(f"mask_inside={inside} {reason}.") from None
    if len(value) == 1:
        if codes.ndim == 3:
            raise DataFormatError(f"{where}: in colours; mask_inside takes one as R,G,B.")
        return codes == value[0]
    return np.all(np.atleast_3d(values) == np.array(value), axis=-1)


def _one_meaning(stored: Stored, where: object) -> np.ndarray:
    """bool "h w" by the file alone."""
    alpha = stored.alpha
    if alpha is None or (alpha == alpha.flat[0]).all():
        return _opaque(stored, where)
    by_alpha = _by_levels(alpha, 255, stored.lossy, where)
    if (stored.values != stored.values[0, 0]).any():
        try:
            by_colour = _opaque(stored, where)
        except DataFormatError:
            return by_alpha  # a cut-out: its colours are the object's
        if (by_colour != by_alpha).any():
            raise _refused(where, "whose alpha and colours are two different masks")
    return by_alpha


def _opaque(stored: Stored, where: object) -> np.ndarray:
    values, codes = stored.values, stored.codes
    if values.ndim == 3 and codes is None:
        return _by_colour(values, stored.lossy, where)
    if codes is None:
        return _by_levels(values, stored.top, stored.lossy, where)
    used = np.unique(codes)
    if values.ndim == 2:  # a palette of greys
        by_grey = _by_levels(values, stored.top, stored.lossy, where)
        if len(used) < 3 and ((codes != 0) != by_grey).any():
            raise _refused(where, "whose palette shows index 0 brighter than the other")
        return by_grey
    if len(used) > 2 or used[0] != 0:
        raise _refused(where, f"of the palette's indices {_shown(used)}")
    return codes != 0


def _by_colour(colours: np.ndarray, lossy: bool, where: object) -> np.ndarray:
    inside = colours.any(-1)
    found = colours[inside]
    if lossy or (found != found[:1]).any():
        raise _refused(where, "in several colours")
    if inside.all():
        raise _refused(where, "of one colour and no black")
    return np.asarray(inside)


def _by_levels(values: np.ndarray, top: float, lossy: bool, where: object) -> np.ndarray:
    """bool "h w" by grey values in 0 to `top`."""
    used = (
        np.flatnonzero(np.bincount(values.ravel()))
        if values.dtype == np.uint8
        else np.unique(values)
    )
    if used[0] < 0:
        raise _refused(where, f"with the values {_shown(used)}")
    if not lossy and len(used) == 2 and used[0] == 0 or len(used) == 1 and used[0] in (0, 1, top):
        return values != 0
    soft = top / NOISE
    near = [((used > 0) & (used < soft)).sum(), ((used > top - soft) & (used < top)).sum()]
    slack = soft if lossy or min(near) >= NOISY or len(used) == 2 else 0
    black, white = values <= slack, values >= top - slack
    unlit = not white.any() and not (lossy and used[-1] < soft / 4)
    if unlit or not _soft(black, white):
        raise _refused(where, f"with the values {_shown(used)}")
    return values > top / 2


def _soft(black: np.ndarray, white: np.ndarray) -> bool:
    """Whether all that is neither lies where the two meet."""
    between = ~(black | white)
    if not between.any():
        return True
    ends = torch.from_numpy(np.stack([black, white])).float()[None]
    met = max_pool2d(ends, 2 * REACH + 1, 1, REACH)[0].bool().all(0).numpy()
    stray = int((between & ~met).sum())
    return between.mean() <= MOST and stray <= max(STRAY * between.sum(), SPECKS * between.size)


def _shown(used: np.ndarray) -> str:
    more = f" and {len(used) - 6} more" if len(used) > 6 else ""
    return ", ".join(f"{value:g}" for value in used[:6].tolist()) + more


def _refused(where: object, what: str) -> DataFormatError:
    way_out = f"say what is inside: {', '.join(WORDS)}, or a stored value"
    return DataFormatError(
        f"{where}: a mask {what}; {way_out} (--mask-inside, data.folder.mask_inside)."
    )
