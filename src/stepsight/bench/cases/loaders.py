"""Reading samples: loose files, shards and banks beside plain decoding of the same files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stepsight import data
from stepsight.bench.painting import Painter
from stepsight.bench.protocol import Contest, Row, Setup, Work, assert_close
from stepsight.data.cache.bank import Bank
from stepsight.data.sharded.writing import write_shards
from stepsight.types import Sample

PROTOCOL = """Pictures with depth, painted with the spectrum of photographs and written as
Hypersim's PNG files; all of them read once, in order, from the page cache: decoding is timed, not
the disk. PIL: the files decoded by PIL and made tensors, nothing checked. Ours: the reader,
lossless tar shards and those of JPEG 95, and a bank at the size of the files. Pictures and depth
equal PIL's to the last bit, those of JPEG to 5e-2 (relative norm), depth of banks to 1e-3. CPU
time of one thread, on any device. CPU and GPU: 8 samples of 480 x 640."""

QUALITY = 95
REFERENCES = {"ours, files": 1.0}


def run(setup: Setup) -> Iterator[Row]:
    height, width = setup.pick((32, 48), (480, 640), (480, 640))
    count = setup.pick(2, 8, 8)
    with tempfile.TemporaryDirectory() as name:
        one = contest(Path(name), height, width, count)
        yield from Setup("cpu", setup.tiny, setup.rounds).timed(one)


def contest(folder: Path, height: int, width: int, count: int) -> Contest:
    root = folder / "files"
    names = write_files(root, Painter(height, width), count)
    source = data.open("hypersim", str(root), split="train", size=(height, width))
    bank = Bank(source, folder / "bank", "bench", count)
    bank.fill()
    readers: dict[str, Callable[[int], Sample]] = {
        "ours, files": source.__getitem__,
        "ours, shards": _sharded(source, folder / "lossless", None).__getitem__,
        f"ours, shards, JPEG {QUALITY}": _sharded(source, folder / "jpeg", QUALITY).__getitem__,
        "ours, bank": bank.__getitem__,
    }
    for name, read in readers.items():
        for index in range(count):
            image, depth = plainly(root, *names[index])
            sample = read(index)
            assert sample.depth is not None
            assert_close(sample.image, image, 5e-2 if "JPEG" in name else 0, f"pictures, {name}")
            assert_close(sample.depth, depth, 1e-3 if "bank" in name else 1e-6, f"depth, {name}")
    sides: dict[str, Work] = {"PIL": lambda: [plainly(root, *pair) for pair in names]}
    for name, read in readers.items():
        sides[name] = lambda read=read: [read(index) for index in range(count)]
    return Contest(f"{count} samples of {height} x {width}", sides, "PIL", REFERENCES)


def write_files(root: Path, painter: Painter, count: int) -> list[tuple[str, str]]:
    """Pictures and depth in Hypersim's layout; their names."""
    names = [(f"s/rgb_{i:04d}.png", f"s/depth_plane_{i:04d}.png") for i in range(count)]
    (root / "train" / "s").mkdir(parents=True)
    for rgb, depth in names:
        Image.fromarray(painter.picture()).save(root / "train" / rgb)
        Image.fromarray((painter.depth() * 1000).astype(np.uint16)).save(root / "train" / depth)
    lines = "".join(f"{rgb} {depth}\n" for rgb, depth in names)
    (root / "filename_list_train.txt").write_text(lines, encoding="utf-8")
    return names


def plainly(root: Path, rgb: str, depth: str) -> tuple[Tensor, Tensor]:
    """Picture uint8 "3 h w" and depth float32 "1 h w" in metres."""
    picture = np.asarray(Image.open(root / "train" / rgb).convert("RGB"))
    metres = np.asarray(Image.open(root / "train" / depth)).astype(np.float32) / 1000
    return torch.from_numpy(picture.copy()).permute(2, 0, 1), torch.from_numpy(metres)[None]


def _sharded(source: data.Source, out: Path, quality: int | None) -> data.Source:
    write_shards(source, out, per_shard=8, quality=quality)
    return data.open("shards", str(out))
