"""Answers as the servers of benchmarks take them: trees that are packed and sent as they are.

    kitti-depth     <frame>.png, 16-bit grey, 256 steps a metre, 0 = none (KITTI's development kit)
    kitti-flow      flow/000000_10.png, 16-bit RGB: 64 u + 32768, 64 v + 32768, 1
    sintel          {clean,final}/<scene>/frame_0001.flo
    spring          0001/flow_{FW,BW}_{left,right}/flow_FW_left_0001.flo5, HDF5 of `flow` "h w 2" at
                    the size of the pictures
    ade20k          <picture>.png, 8-bit grey, class + 1 (1 .. 150)
    cityscapes      <frame>_labelIds.png, 8-bit grey, the set's own ids
    coco-panoptic   panoptic/<picture>.png, RGB of R + 256 G + 65536 B, and panoptic.json

Each lies in a folder of its name. What stands where follows from where its picture lies, which has
to be the benchmark's own tree; pictures of which it wants no answer are refused by name, as are
models whose classes are not the benchmark's.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from stepsight.data.decoding.disk import extra
from stepsight.data.decoding.formats import KITTI_STEPS, KITTI_ZERO, PIEH, PIEH_HEADER
from stepsight.data.decoding.images import read_ids, write_image, write_png16
from stepsight.data.decoding.png import HEADER, RGB, SIGNATURE
from stepsight.data.readers.masks.ade20k import CLASSES as ADE20K
from stepsight.data.readers.masks.cityscapes import CLASSES as CITYSCAPES
from stepsight.errors import UserError
from stepsight.predicting.item import Item
from stepsight.tasks.base import Task
from stepsight.types import IGNORE

MOST = 65535  # that 16 bits hold
PER_METRE = 256
STRIDE = 1000  # of panoptic ids: category * STRIDE + number of the instance
SINTEL = re.compile(r"(clean|final)/([^/]+)/(frame_\d{4})$")
SPRING = re.compile(r"(\d{4})/frame_(left|right)/frame_(?:left|right)_(\d{4})$")
# Category ids of COCO panoptic in their order, as its JSON files list them: 80 things, 53 stuff.
COCO = tuple(
    {*range(1, 91)} - {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
    | {92, 93, 95, 100, 107, 109, 112, 118, 119, 122, 125, 128, 130, 133, 138, 141, 144, 145, 147}
    | {148, 149, 151, 154, 155, 156, 159, 161, 166, 168, 171, 175, 176, 177, 178, 180, 181}
    | {*range(184, 201)}
)


class Submission(NamedTuple):
    """file: where the answer to a picture lies, below the folder of the benchmark. write: an array
    "c h w" to a path; may raise UserError for values that the file cannot hold. refuses: why a task
    cannot be sent so, "" where it can. finish: writes what there is one of, when all are there."""

    file: Callable[[Item], str]
    write: Callable[[Path, np.ndarray], None]
    holds: str
    refuses: Callable[[Task], str]
    finish: Callable[[Path], None] | None = None


def kitti_depth(path: Path, values: np.ndarray) -> None:
    """Less than a step becomes one, more than 255.996 m that. Raises UserError for NaN."""
    _finite(path, values)
    stored = np.rint(values.astype(np.float64) * PER_METRE).clip(1, MOST)
    write_png16(path, torch.from_numpy(stored.astype(np.uint16)))


def kitti_flow(path: Path, values: np.ndarray) -> None:
    """Raises UserError beyond the -512 .. 511.98 px that the format holds, and for NaN."""
    _finite(path, values)
    stored = np.rint(values.astype(np.float64) * KITTI_STEPS + KITTI_ZERO)
    if stored.min() < 0 or stored.max() > MOST:
        raise UserError(f"{path}: flow of {np.abs(values).max():.0f} px; KITTI's PNG ends at 511.")
    path.write_bytes(rgb16_bytes(np.concatenate([stored, np.ones_like(stored[:1])])))


def sintel(path: Path, values: np.ndarray) -> None:
    """Baker et al. 2011, `flowIO.h`. Raises UserError for NaN."""
    _finite(path, values)
    pixels = np.ascontiguousarray(values.transpose(1, 2, 0), "<f4")
    path.write_bytes(PIEH_HEADER.pack(PIEH, *pixels.shape[1::-1]) + pixels.tobytes())


def spring(path: Path, values: np.ndarray) -> None:
    """As the benchmark's `flow_IO.py` writes it: gzip of level 5. Raises UserError for NaN."""
    _finite(path, values)
    with extra("h5py", "Spring's files").File(path, "w") as file:
        pixels = np.ascontiguousarray(values.transpose(1, 2, 0), np.float32)
        file.create_dataset("flow", data=pixels, compression="gzip", compression_opts=5)


def ade20k(path: Path, values: np.ndarray) -> None:
    _png8(path, np.arange(1, len(ADE20K) + 1), values)


def cityscapes(path: Path, values: np.ndarray) -> None:
    _png8(path, np.array(list(CITYSCAPES.values())), values)


def coco_panoptic(path: Path, values: np.ndarray) -> None:
    """Classes "1 h w", each one segment, or classes and numbers of instances "2 h w"; 255 is void.

    Raises UserError for classes and numbers that there are not.
    """
    labels = values[0].astype(np.int64)
    numbers = values[1].astype(np.int64) if len(values) > 1 else np.zeros_like(labels)
    void = labels == IGNORE
    if numbers.min() < 0 or numbers.max() >= STRIDE:
        raise UserError(f"{path}: instance {numbers.max()}, where 0 to {STRIDE - 1} can be told.")
    categories = _looked_up(path, np.array(sorted(COCO)), np.where(void, 0, labels))
    ids = np.where(void, 0, categories * STRIDE + numbers)
    planes = np.stack([ids >> shift & 255 for shift in (0, 8, 16)]).astype(np.uint8)
    write_image(path, torch.from_numpy(planes))


def list_segments(folder: Path) -> None:
    """Write `panoptic.json` of the PNG files in `panoptic/`: their ids tell the categories."""
    annotations = [
        {
            "image_id": int(path.stem),
            "file_name": path.name,
            "segments_info": [
                {"id": number, "category_id": number // STRIDE}
                for number in read_ids(path).unique().tolist()
                if number
            ],
        }
        for path in sorted((folder / "panoptic").glob("*.png"))
    ]
    (folder / "panoptic.json").write_text(json.dumps({"annotations": annotations}))


def rgb16_bytes(planes: np.ndarray) -> bytes:
    """Whole numbers "3 h w" as a 16-bit RGB PNG, rows unfiltered (which Pillow cannot write)."""
    height, width = planes.shape[1:]
    rows = np.zeros((height, 1 + 6 * width), np.uint8)  # each row opens with its filter, 0
    rows[:, 1:] = planes.transpose(1, 2, 0).astype(">u2").reshape(height, -1).view(np.uint8)
    header = HEADER.pack(width, height, 16, RGB, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b""))
    return SIGNATURE + b"".join(_chunks(chunks))


def _chunks(chunks: tuple[tuple[bytes, bytes], ...]) -> Iterator[bytes]:
    for kind, content in chunks:
        check = zlib.crc32(kind + content)
        yield struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def _png8(path: Path, table: np.ndarray, values: np.ndarray) -> None:
    stored = _looked_up(path, table, values).astype(np.uint8)
    _save_grey(path, stored[0])


def _save_grey(path: Path, pixels: np.ndarray) -> None:
    from PIL import Image

    Image.fromarray(pixels).save(path, "PNG")


def _looked_up(path: Path, table: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """What a benchmark calls classes from 0. Raises UserError for those it has not."""
    low, high = int(classes.min()), int(classes.max())
    if low < 0 or high >= len(table):
        wrong = low if low < 0 else high
        raise UserError(f"{path}: class {wrong}, where the benchmark has 0 to {len(table) - 1}.")
    return table[classes.astype(np.int64)]


def _finite(path: Path, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise UserError(f"{path}: holds NaN or infinity, and an answer everywhere is wanted.")


def _named(suffix: str, folder: str = "", drop: str = "") -> Callable[[Item], str]:
    return lambda item: f"{folder}{item.path.stem.removesuffix(drop)}{suffix}"


def _kitti_flow_file(item: Item) -> str:
    if not re.fullmatch(r"\d{6}_10", item.path.stem):
        raise UserError(f"{item.path}: KITTI wants flow of the frames 000000_10 alone, to _11.")
    _check_second(item, f"{item.path.stem[:-3]}_11")
    return f"flow/{item.path.stem}.png"


def _sintel_file(item: Item) -> str:
    if not (match := SINTEL.search(item.path.absolute().with_suffix("").as_posix())):
        raise UserError(f"{item.path}: Sintel's frames are {{clean,final}}/<scene>/frame_0001.png.")
    _check_second(item, f"frame_{int(match[3][-4:]) + 1:04d}")
    return "/".join(match.groups()) + ".flo"


def _spring_file(item: Item) -> str:
    """To the next frame (FW), or to the one before (BW)."""
    match = SPRING.search(item.path.absolute().with_suffix("").as_posix())
    if not match:
        raise UserError(f"{item.path}: Spring's frames are 0001/frame_left/frame_left_0001.png.")
    scene, camera, number = match.groups()
    after, before = (f"frame_{camera}_{int(number) + step:04d}" for step in (1, -1))
    _check_second(item, after, before)
    way = "BW" if item.second and item.second.stem == before else "FW"
    return f"{scene}/flow_{way}_{camera}/flow_{way}_{camera}_{number}.flo5"


def _check_second(item: Item, *stems: str) -> None:
    """Raise UserError where the flow would lead to another frame than the benchmark's."""
    if item.second is None or item.second.stem not in stems:
        found = item.second.name if item.second else "none"
        raise UserError(
            f"{item.path}: its second frame is {' or '.join(stems)}, not {found}. Name pairs in a "
            f"list of JSON lines, image and second."
        )


def _coco_file(item: Item) -> str:
    if not item.path.stem.isdecimal():
        raise UserError(
            f"{item.path}: COCO's pictures are called by their number, as 000000142238."
        )
    return f"panoptic/{item.path.stem}.png"


def _only(name: str) -> Callable[[Task], str]:
    return lambda task: "" if task.name == name else f"it wants {name}"


def _classes(count: int, first: str, *names: str) -> Callable[[Task], str]:
    """Refuses other tasks, and other numbers of classes: by one, there is one for the rest."""

    def refuses(task: Task) -> str:
        if task.name not in names:
            return f"it wants {names[0]}"
        has = int(getattr(task, "classes", 0))
        if has == count:
            return ""
        about = f"it has {count} classes, of which 0 is {first}, and the model has {has}"
        return f"{about}: off by one, if one of them is the rest" if has == count + 1 else about

    return refuses


_FLOW = "16-bit RGB PNG, 64 steps a pixel"
SUBMISSIONS: dict[str, Submission] = {
    "kitti-depth": Submission(
        _named(".png"), kitti_depth, "16-bit PNG, 256 a metre", _only("depth")
    ),
    "kitti-flow": Submission(_kitti_flow_file, kitti_flow, _FLOW, _only("flow")),
    "sintel": Submission(_sintel_file, sintel, ".flo", _only("flow")),
    "spring": Submission(_spring_file, spring, ".flo5", _only("flow")),
    "ade20k": Submission(
        _named(".png"), ade20k, "class + 1", _classes(len(ADE20K), ADE20K[0], "semantic")
    ),
    "cityscapes": Submission(
        _named("_labelIds.png", drop="_leftImg8bit"),
        cityscapes,
        "labelIds",
        _classes(len(CITYSCAPES), next(iter(CITYSCAPES)), "semantic"),
    ),
    "coco-panoptic": Submission(
        _coco_file,
        coco_panoptic,
        "RGB PNG of ids, and JSON",
        _classes(len(COCO), "person", "semantic", "panoptic"),
        list_segments,
    ),
}
