"""A sample as the members of a tar file, and back, bit for bit.

A member is named `<escaped key>.<field>.<extension>`, which is webdataset's convention: members in
a row that agree up to the first dot are one sample. Pictures are PNG (or, when asked, JPEG), masks
1-bit PNG, everything else `.npy` in the narrowest integers, or float32; `<key>.json` holds the key,
the source and the class. A picture that a sample of the same tar has brought already, such as that
of many objects, is not stored again: `held` in the JSON gives its member, and the index its place.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
from numpy.lib import format as npy
from PIL import Image
from torch import Tensor

from stepsight.data.decoding.annotations import parse_json
from stepsight.data.decoding.formats import npy_header
from stepsight.data.decoding.images import DAMAGE, open_bounded, rgb
from stepsight.data.fields import DTYPES, Field, present, row_of
from stepsight.data.quantities.grids import Size
from stepsight.errors import DataFormatError, UserError
from stepsight.types import Sample

ABOUT = "json"
DAMAGED = (*DAMAGE, Image.DecompressionBombError)


def is_member(suffix: str) -> bool:
    """Whether `encode` gives `suffix` to some sample."""
    name, _, extension = suffix.partition(".")
    try:
        return suffix == ABOUT or extension in _extensions(row_of(name))
    except UserError:
        return False


def _extensions(row: Field) -> tuple[str, ...]:
    """Those that a field's members may have. The border of an object on white carries its mask, so
    that JPEG is not for it; numbers lie in the JSON."""
    match row.kind:
        case "picture":
            return ("png",) if row.on_white else ("png", "jpg")
        case "mask":
            return ("png",)
        case "number":
            return ()
    return ("npy",)


def escape(key: str) -> str:
    """`key` without dots and slashes: bytes of UTF-8 other than letters, digits and `_-~` as %XX.

    `urllib.parse.unquote` undoes it.
    """
    return quote(key, safe="").replace(".", "%2E")


def digests(sample: Sample) -> dict[str, bytes]:
    """A hash of each picture of a sample, by its field: equal pictures, equal hashes."""
    return {
        row.name: hashlib.sha256(
            str(tuple(value.shape)).encode() + value.contiguous().numpy().tobytes()
        ).digest()
        for row, value in present(sample)
        if row.kind == "picture"
    }


def encode(
    sample: Sample, quality: int | None = None, held: Mapping[str, str] | None = None
) -> dict[str, bytes]:
    """The members of a sample by suffix (`depth.npy`), the picture first.

    quality: of JPEG for the pictures of scenes; None writes PNG, which loses nothing. held: fields
    that are not encoded, and the member that holds each already.
    """
    held = held or {}
    members = {}
    for row, value in sorted(present(sample), key=lambda pair: pair[0].rank):
        extensions = _extensions(row)
        if extensions and row.name not in held:
            extension = extensions[0 if quality is None else -1]
            members[f"{row.name}.{extension}"] = _bytes(row, value, extension, quality)
    about = {"key": sample.key, "source": sample.source, "class_id": sample.class_id}
    about |= {"held": dict(held)} if held else {}
    return members | {ABOUT: json.dumps(about).encode()}


def decode(suffix: str, data: bytes, size: Size, where: str) -> Tensor | int | None:
    """The value of the field that `suffix` names (of `json`: the class), of a picture of `size`.

    Nothing larger than `size` allows is ever allocated. Raises `DataFormatError` naming `where`.
    """
    try:
        if suffix == ABOUT:
            return _class(parse_json(data.decode(), where))
        row = row_of(suffix.partition(".")[0])
        if row.kind == "picture":
            return rgb(_pixels(data, "RGB", size, where))
        if row.kind == "mask":
            inside = np.array(_pixels(data, "1", size, where))
            return torch.from_numpy(inside.view(np.uint8) > 0)[None]  # Pillow's True is 255
        return _tensor(row, data, size)
    except DAMAGED as error:
        raise DataFormatError(f"{where}: damaged ({error}).") from error


def _bytes(row: Field, value: Tensor, extension: str, quality: int | None) -> bytes:
    assert value.dtype == DTYPES[row.kind], (row.name, value.dtype)
    if extension == "npy":
        return _array_bytes(value)
    pixels = value.permute(1, 2, 0) if row.kind == "picture" else value[0]
    image, file = Image.fromarray(np.ascontiguousarray(pixels.numpy())), io.BytesIO()
    if extension == "jpg":
        image.save(file, "JPEG", quality=quality, subsampling=0)
    else:
        image.save(file, "PNG")
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


def _pixels(data: bytes, mode: str, size: Size, where: str) -> Image.Image:
    """A picture that is decoded when it is used."""
    image = open_bounded(data, 3, where)
    if image.mode != mode or image.size != size[::-1]:  # known before any pixel is decoded
        raise ValueError(f"mode {image.mode} and {image.size[1]} x {image.size[0]} pixels")
    return image


def _tensor(row: Field, data: bytes, size: Size) -> Tensor:
    array, kinds = _array(data), "f" if row.kind == "map" else "iu"
    shapes = {"map": (row.channels, *size), "ids": size, "points": (len(array), row.channels)}
    expected = shapes[row.kind]
    if array.shape != expected or array.dtype.kind not in kinds:
        raise ValueError(f"{array.dtype} values of shape {array.shape}")
    return torch.from_numpy(array.astype(np.float32 if kinds == "f" else np.int64))


def _array(data: bytes) -> np.ndarray:
    """A numeric `.npy` array whose header agrees with the number of bytes."""
    kind, fortran, shape, start = npy_header(io.BytesIO(data))
    dtype = np.dtype(kind)
    if fortran or dtype.kind not in "fiu" or not shape:
        raise ValueError(f"{dtype} values of shape {shape}, Fortran order {fortran}")
    if math.prod(shape) * dtype.itemsize != len(data) - start:
        raise ValueError(f"shape {shape} of {dtype} in {len(data) - start} bytes")
    return np.frombuffer(data, dtype, offset=start).reshape(shape)


def _class(about: Any) -> int | None:
    value = about["class_id"]
    if value is not None and not isinstance(value, int):
        raise ValueError(f"class {value!r}")
    return value
