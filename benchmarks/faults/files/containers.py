"""Specimens of what people keep pictures and arrays in besides the formats of published sets."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import OpenEXR
import pillow_heif
import tifffile

from benchmarks.faults.files import mutation
from benchmarks.faults.files.specimen import HEIGHT, WIDTH, Read, Specimen, encoded, noise
from stepsight.data.decoding import formats, images, labels, masks, truth


def containers(folder: Path) -> dict[str, Specimen]:
    """All of them by kind; `folder` is for making them."""
    rgb = noise(64, 64, 3)
    coded = (images.read_image, images.image_size, images.orientation, masks.read_mask)
    found = {
        kind: Specimen(f"a.{kind}", encoded(rgb, kind.upper()), mutation.sized(60), coded)
        for kind in ("bmp", "gif", "avif")
    }
    pillow_heif.register_heif_opener(thumbnails=False)
    found["heic"] = Specimen("a.heic", encoded(rgb, "HEIF"), mutation.sized(300), coded)
    return found | _tiffs(coded) | _arrays(folder) | _outlines()


def _tiffs(coded: tuple) -> dict[str, Specimen]:
    metres = partial(truth.read_depth, scale=1000.0)
    depth = noise(HEIGHT, WIDTH, dtype=np.uint16) | 1
    lzw = {"compression": "lzw", "predictor": True}
    found = {
        "tiff, 8-bit RGB": (noise(HEIGHT, WIDTH, 3), {"photometric": "rgb"}, coded),
        "tiff, 16-bit RGB": (noise(HEIGHT, WIDTH, 3, dtype=np.uint16), {}, coded),
        "tiff, 16-bit": (depth, {}, (metres, images.read_image)),
        "tiff, float": (depth.astype(np.float32), lzw, (metres, truth.read_flow)),
    }
    made = {}
    for name, (values, options, reads) in found.items():
        file = io.BytesIO()
        tifffile.imwrite(file, values, **options)
        made[name] = Specimen("a.tif", file.getvalue(), mutation.flipped, reads)
    return made


def _arrays(folder: Path) -> dict[str, Specimen]:
    metres = partial(truth.read_depth, scale=1000.0)
    flow = np.random.default_rng(0).random((HEIGHT, WIDTH, 2), np.float32) + 1
    for name, channels in (("depth", {"Z": flow[..., 0].copy()}), ("flow", {"RG": flow})):
        header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
        half = {"half": channels["Z"].astype(np.float16)} if name == "depth" else {}
        OpenEXR.File(header, channels | half).write(str(folder / f"{name}.exr"))
    packed = io.BytesIO()
    np.savez_compressed(packed, depth=flow[..., 0], flow=flow)
    grey = (
        b"P5\n# as a camera writes it\n8 6\n65535\n"
        + noise(HEIGHT, WIDTH, dtype=np.uint16).tobytes()
    )
    whole = (metres, truth.read_flow)
    return {
        "exr, depth": Specimen(
            "a.exr", (folder / "depth.exr").read_bytes(), mutation.flipped, whole
        ),
        "exr, flow": Specimen(
            "a.exr", (folder / "flow.exr").read_bytes(), mutation.flipped, whole[::-1]
        ),
        "npz": Specimen("a.npz", packed.getvalue(), mutation.flipped, whole),
        "pgm, 16-bit": Specimen(
            "a.pgm", grey, mutation.sized(40), (formats.read_pgm, images.read_image, metres)
        ),
    }


def _outlines() -> dict[str, Specimen]:
    shape = {"label": "cup", "points": [[1, 1], [5, 1], [5, 4]], "shape_type": "polygon"}
    labelme = {"imageHeight": HEIGHT, "imageWidth": WIDTH, "imagePath": "a.jpg", "shapes": [shape]}
    region = {"id": 7, "image_id": 3, "category_id": 2, "segmentation": [[1, 1, 5, 1, 5, 4]]}
    coco = {
        "images": [{"id": 3, "file_name": "a.jpg", "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": 2, "name": "cup"}],
        "annotations": [region],
    }

    def drawn(path: Path) -> None:
        labels.label_codes("", path.parent, [path]).read(path)

    def outlined(path: Path) -> None:
        for part in ("0", "7"):
            masks.read_mask(f"{path}#{part}")

    reads = (drawn, outlined)
    return {
        name: Specimen("a.json", json.dumps(record).encode(), mutation.json_text, reads)
        for name, record in (("LabelMe", labelme), ("COCO instances", coco))
    }


def claims(folder: Path) -> Iterator[tuple[str, bytes, Read]]:
    """Small files that claim, or unpack to, much: their name, content and what reads them."""
    metres = partial(truth.read_depth, scale=1000.0)
    for side in (5000, 60_000):
        plane = np.zeros((min(side, 5000),) * 2, np.float32)
        header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
        OpenEXR.File(header, {"Z": plane}).write(str(folder / "made.exr"))
        content = (folder / "made.exr").read_bytes()
        corner = struct.pack("<ii", plane.shape[1] - 1, plane.shape[0] - 1)
        yield (
            f"z-{side}.exr",
            content.replace(corner, struct.pack("<ii", side - 1, side - 1)),
            metres,
        )
        file = io.BytesIO()
        tifffile.imwrite(file, plane, compression="zlib")
        content = file.getvalue().replace(
            struct.pack("<I", plane.shape[0]), struct.pack("<I", side)
        )
        yield f"z-{side}.tif", content, metres
        yield f"picture-{side}.tif", content, images.read_image
        frame = struct.pack("<6sHHBBB", b"GIF89a", side, side, 0xF0, 0, 0) + bytes(6)
        frame += struct.pack("<BHHHHB", 0x2C, 0, 0, side, side, 0) + b"\2\2\x4c\1\0;"
        yield f"frame-{side}.gif", frame, images.read_image
        size = struct.pack("<2sIIIIiiHHII", b"BM", 0, 0, 54, 40, side, side, 1, 24, 1, 0)
        yield f"packed-{side}.bmp", size + bytes(99), images.read_image
    zeros = io.BytesIO()
    with zipfile.ZipFile(zeros, "w", zipfile.ZIP_DEFLATED) as archive:
        shape = b"{'descr': '<f4', 'fortran_order': False, 'shape': (10000, 20000), }"
        start = b"\x93NUMPY\1\0" + struct.pack("<H", len(shape)) + shape
        archive.writestr("depth.npy", start + bytes(200 << 20))
    yield "zeros.npz", zeros.getvalue(), metres
    yield "huge.pgm", b"P5 99999999 99999999 65535\n" + bytes(9), metres
