"""Samples read per second on one core: each reader, shards against files, latents against images.

    OMP_NUM_THREADS=1 python benchmarks/readers.py [--seconds 2] [--names hypersim kitti ...]

Writes `benchmarks/results/<date>-readers.md` (or `--out`). The data are made by
`benchmarks/fixtures.py` at the native size of each set. All files are in the page cache: what is
timed is decoding, not the disk. Figures are per second of CPU time, which is per core and steadier
on a shared machine, and of wall time; the median of three rounds over all samples in order.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from fixtures import FIXTURES

from stepsight import data
from stepsight.bench import machine
from stepsight.bench.painting import Painter
from stepsight.coding import Layout
from stepsight.data.cache.bank import Bank
from stepsight.data.collate import collate
from stepsight.data.resize import resize_sample
from stepsight.data.sharded.writing import write_shards
from stepsight.data.table import Source
from stepsight.models.config import CodecSettings
from stepsight.models.vae import VAE, build_vae
from stepsight.tasks.config import DepthSettings
from stepsight.tasks.table import build_tasks
from stepsight.training.latents import Latents

ROUNDS = 3
PIXELS = 16 * 480 * 640  # of the images of a data set: as many samples as make these up, 2 to 16
SHARDED = ("hypersim", "nyuv2", "flyingchairs", "kitti2015", "ade20k")
QUALITY = 95
SIZE = (480, 640)  # working size of training
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Rate:
    """Samples per CPU second and per second."""

    cpu: float
    wall: float

    def __str__(self) -> str:
        return f"{self.cpu:.4g} / {self.wall:.4g}"


def rate(read: Callable[[int], object], count: int, seconds: float) -> Rate:
    """How fast `read(0), read(1), ...` goes, in rounds of at least `seconds` in all."""
    read(0)
    cpu, wall = [], []
    for _ in range(ROUNDS):
        before, done = (time.process_time(), time.perf_counter()), 0
        while not done or time.perf_counter() - before[1] < seconds / ROUNDS:
            for index in range(count):
                read(index)
            done += count
        cpu.append(done / (time.process_time() - before[0]))
        wall.append(done / (time.perf_counter() - before[1]))
    return Rate(statistics.median(cpu), statistics.median(wall))


def make(name: str, folder: Path) -> tuple[Source, float]:
    """The data set of that name with a few samples, and its megabytes a sample."""
    fixture, root = FIXTURES[name], folder / name
    if not root.is_dir():
        count = min(16, max(2, PIXELS // (fixture.height * fixture.width)))
        fixture.write(root, Painter(fixture.height, fixture.width), count)
    source = data.open(name, str(root), split=fixture.split, size=SIZE)
    return source, megabytes(root) / len(source)


def megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def reader_rows(names: list[str], folder: Path, seconds: float) -> Iterator[str]:
    yield "| reader | size | truth | MB a sample | samples/s: CPU / wall | Mpixel/s |"
    yield "|---|---|---|---|---|---|"
    for name in names:
        source, size = make(name, folder)
        height, width = source[0].image.shape[-2:]
        found = rate(source.__getitem__, len(source), seconds)
        truth, speed = ", ".join(sorted(source.quantities)), found.cpu * height * width / 1e6
        yield f"| {name} | {height} x {width} | {truth} | {size:.2f} | {found} | {speed:.3g} |"


def shard_rows(names: list[str], folder: Path, seconds: float) -> Iterator[str]:
    yield f"| data | files | shards, lossless | shards, JPEG {QUALITY} | MB a sample |"
    yield "|---|---|---|---|---|"
    for name in names:
        source, size = make(name, folder)
        rates, sizes = [rate(source.__getitem__, len(source), seconds)], [size]
        for quality in (None, QUALITY):
            out = folder / f"{name}-{quality}"
            write_shards(source, out, per_shard=8, quality=quality)
            shards = data.open("shards", str(out))
            rates.append(rate(shards.__getitem__, len(shards), seconds))
            sizes.append(megabytes(out) / len(shards))
        figures = " | ".join(map(str, rates))
        yield f"| {name} | {figures} | {' / '.join(f'{one:.2f}' for one in sizes)} |"


def latent_rows(folder: Path, seconds: float) -> Iterator[str]:
    """Depth samples as a training step takes them, by what they are read from."""
    source, size = make("hypersim", folder)
    tasks, how = build_tasks({"depth": DepthSettings()}), CodecSettings()
    codec = VAE.from_module(build_vae("vae-tiny"), how)
    layout, count = Layout.of(tasks, codec), len(source)
    bank = Bank(source, folder / "bank", "benchmark", count)
    cache = Latents(folder / "latents", source, "benchmark", tasks, codec, how, "float16")
    bank.fill()
    cache.fill()
    ways: dict[str, tuple[float, Callable[[int], object]]] = {
        "files, resized": (size, lambda i: collate([resize_sample(source[i], SIZE)])),
        "bank": (bank.store.dtype.itemsize / 1e6, lambda i: collate(bank.samples([i]))),
        "latents, float16, plain and mirrored": (
            cache.store.dtype.itemsize / 1e6,
            lambda i: cache.coded("depth", layout, [i], [False]),
        ),
    }
    yield "| from | MB a sample | samples/s: CPU / wall |"
    yield "|---|---|---|"
    for name, (size, read) in ways.items():
        yield f"| {name} | {size:.2f} | {rate(read, count, seconds)} |"


def report(names: list[str], folder: Path, seconds: float) -> Iterator[str]:
    sharded = [name for name in SHARDED if name in names]
    yield f"# {datetime.date.today()}, readers, {machine.processor()}, one thread"
    yield ""
    chosen = "" if len(names) == len(FIXTURES) else f" --names {' '.join(names)}"
    yield f"`OMP_NUM_THREADS=1 python benchmarks/readers.py --seconds {seconds:g}{chosen}`,"
    yield f"torch {torch.__version__}. Made-up data at native size, in the page cache: decoding is"
    yield "timed, not the disk. Samples per CPU second (per core) / per second of wall time."
    yield from ("", "## Readers", "", "All truth that the files offer, at the files' own size.", "")
    yield from reader_rows(names, folder, seconds)
    yield from ("", "## Shards against loose files", "")
    yield from shard_rows(sharded, folder, seconds)
    yield from ("", f"## Latents against images, depth at {SIZE[0]} x {SIZE[1]}", "")
    yield "Without the codec's own work, which the latent cache does once and the others each step."
    yield ""
    yield from latent_rows(folder, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description="Samples read per second.")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--names", nargs="+", default=list(FIXTURES), choices=list(FIXTURES))
    parser.add_argument("--out", type=Path, default=None, help="default: benchmarks/results")
    door = parser.parse_args()
    torch.set_num_threads(1)
    out = door.out or RESULTS / f"{datetime.date.today()}-readers.md"
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for line in report(door.names, Path(folder), door.seconds):
            print(line, flush=True)
            lines.append(f"{line}\n")
    out.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
