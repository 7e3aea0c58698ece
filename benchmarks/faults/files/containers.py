"""Specimens of what people keep pictures and arrays in besides the formats of published sets."""

from __future__ import annotations

import io
import json
from functools import partial
from pathlib import Path

import numpy as np
import OpenEXR
import pillow_heif
import tifffile

from benchmarks.faults.files import mutation
from benchmarks.faults.files.specimen import HEIGHT, WIDTH, Specimen, encoded, noise
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
