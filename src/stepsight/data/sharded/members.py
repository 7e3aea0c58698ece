"""A sample as the members of a tar file, and back, bit for bit.

A member is named `<escaped key>.<field>.<extension>`, which is webdataset's convention: members in
a row that agree up to the first dot are one sample. Pictures are PNG (or, when asked, JPEG), masks
1-bit PNG, everything else `.npy` in the narrowest integers, or float32; `<key>.json` holds the key,
the source and the class.
"""

from __future__ import annotations

import io
import json
import math
from urllib.parse import quote

import numpy as np
import torch
from numpy.lib import format as npy
from PIL import Image
from torch import Tensor

from stepsight.data.cache.rows import MASKS
from stepsight.errors import DataFormatError
from stepsight.types import Sample

PICTURES = ("image", "second", "whole")
LOSSY = ("image", "second")  # what JPEG may be used for: the borders of `whole` carry its mask
CHANNELS = {"depth": 1, "flow": 2, "normals": 3}  # float32 "c h w"
INTEGERS = ("labels", "instances", "order")
ABOUT = "json"
DAMAGED = (  # what Pillow, numpy and json raise for bytes that are not what they should be
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    Image.DecompressionBombError,
)
SUFFIXES = frozenset(
    {ABOUT}
    | {f"{name}.png" for name in (*PICTURES, *MASKS)}
    | {f"{name}.jpg" for name in LOSSY}
    | {f"{name}.npy" for name in (*CHANNELS, *INTEGERS)}
)

Size = tuple[int, int]  # height, width


def escape(key: str) -> str:
    """`key` without dots and slashes: bytes of UTF-8 other than letters, digits and `_-~` as %XX.

    `urllib.parse.unquote` undoes it.
    """
    return quote(key, safe="").replace(".", "%2E")


def encode(sample: Sample, quality: int | None = None) -> dict[str, bytes]:
    """The members of a sample by suffix (`depth.npy`), the picture first.

    quality: of JPEG for the fields `LOSSY`; None writes PNG, which loses nothing.
    """
    members = {}
    for name in PICTURES:
        if (picture := getattr(sample, name)) is not None:
            jpeg = quality if name in LOSSY else None
            members[f"{name}.{'png' if jpeg is None else 'jpg'}"] = _picture_bytes(picture, jpeg)
    for name in MASKS:
        if (mask := getattr(sample, name)) is not None:
            members[f"{name}.png"] = _mask_bytes(mask)
    for name in (*CHANNELS, *INTEGERS):
        if (values := getattr(sample, name)) is not None:
            members[f"{name}.npy"] = _array_bytes(values)
    about = {"key": sample.key, "source": sample.source, "class_id": sample.class_id}
    return members | {ABOUT: json.dumps(about).encode()}


def decode(suffix: str, data: bytes, size: Size, where: str) -> Tensor | int | None:
    """The value of the field that `suffix` names (of `json`: the class), of a picture of `size`.

    Nothing larger than `size` allows is ever allocated. Raises `DataFormatError` naming `where`.
    """
    name = suffix.partition(".")[0]
    try:
        if name in PICTURES:
            return torch.from_numpy(_pixels(data, "RGB", size)).permute(2, 0, 1).contiguous()
        if name in MASKS:
            return torch.from_numpy(_pixels(data, "1", size))[None]
        return _class(data) if suffix == ABOUT else _tensor(name, data, size)
    except DAMAGED as error:
        raise DataFormatError(f"{where}: damaged ({error}).") from error


def _picture_bytes(picture: Tensor, quality: int | None) -> bytes:
    assert picture.dtype == torch.uint8 and picture.ndim == 3, picture.shape
    image = Image.fromarray(np.ascontiguousarray(picture.permute(1, 2, 0).numpy()))
    if quality is None:
        return _saved(image, "PNG")
    return _saved(image, "JPEG", quality=quality, subsampling=0)


def _mask_bytes(mask: Tensor) -> bytes:
    assert mask.dtype == torch.bool and mask.ndim == 3, mask.shape
    return _saved(Image.fromarray(np.ascontiguousarray(mask[0].numpy())), "PNG")


def _saved(image: Image.Image, kind: str, **options: int) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _array_bytes(values: Tensor) -> bytes:
    array = np.ascontiguousarray(values.numpy())
    if array.dtype == np.int64:
        array = array.astype(_narrowest(array))
    assert array.dtype.kind in "iu" or array.dtype == np.float32, array.dtype
    file = io.BytesIO()
    npy.write_array(file, array, version=(1, 0), allow_pickle=False)
    return file.getvalue()


def _narrowest(values: np.ndarray) -> np.dtype:
    if not values.size:
        return np.dtype(np.uint8)
    return np.promote_types(np.min_scalar_type(values.min()), np.min_scalar_type(values.max()))


def _pixels(data: bytes, mode: str, size: Size) -> np.ndarray:
    image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
    if image.mode != mode or image.size != size[::-1]:  # known before any pixel is decoded
        raise ValueError(f"mode {image.mode} and {image.size[1]} x {image.size[0]} pixels")
    pixels = np.array(image)
    return pixels if mode != "1" else pixels.view(np.uint8) > 0  # Pillow's True is a byte of 255


def _tensor(name: str, data: bytes, size: Size) -> Tensor:
    array = _array(data)
    if name in CHANNELS:
        expected, kinds = (CHANNELS[name], *size), "f"
    else:
        expected, kinds = (size if name != "order" else (len(array), 4)), "iu"
    if array.shape != expected or array.dtype.kind not in kinds:
        raise ValueError(f"{array.dtype} values of shape {array.shape}")
    return torch.from_numpy(array.astype(np.float32 if kinds == "f" else np.int64))


def _array(data: bytes) -> np.ndarray:
    """A numeric `.npy` array whose header agrees with the number of bytes."""
    file = io.BytesIO(data)
    if npy.read_magic(file) != (1, 0):
        raise ValueError("not version 1.0 of .npy")
    shape, fortran, dtype = npy.read_array_header_1_0(file)
    if fortran or dtype.kind not in "fiu" or not shape:
        raise ValueError(f"{dtype} values of shape {shape}, Fortran order {fortran}")
    if math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise ValueError(f"shape {shape} of {dtype} in {len(data) - file.tell()} bytes")
    return np.frombuffer(data, dtype, offset=file.tell()).reshape(shape)


def _class(data: bytes) -> int | None:
    value = json.loads(data)["class_id"]
    if value is not None and not isinstance(value, int):
        raise ValueError(f"class {value!r}")
    return value
