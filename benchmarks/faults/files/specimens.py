"""A whole specimen of every kind of file that data are read from, how it is damaged, and what reads
it. `benchmarks/faults/malformed.py` damages them by the thousand."""

from __future__ import annotations

import io
import json
import random
import struct
import zlib
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.faults.files import mutation
from benchmarks.faults.files.containers import containers
from benchmarks.faults.files.listings import listings
from benchmarks.faults.files.specimen import HEIGHT, WIDTH, Specimen, encoded, noise, opened
from stepsight import data
from stepsight.data.decoding import formats, hdf5, images, masks, mat5, truth
from stepsight.data.sharded.writing import write_shards


def specimens(folder: Path) -> dict[str, Specimen]:
    """All of them by kind; `folder` is for making them."""
    found = {**_pictures(), **_numbers(folder), **containers(folder), **listings()}
    found["shards: members"], found["shards: index"] = _shards(folder)
    return found


def _png16() -> bytes:
    rows = b"".join(
        b"\0" + row.astype(">u2").tobytes() for row in noise(HEIGHT, 3 * WIDTH, dtype=np.uint16)
    )
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(mutation.png_chunk(*chunk) for chunk in chunks)


def _pictures() -> dict[str, Specimen]:
    grey, rgb = noise(HEIGHT, WIDTH), noise(HEIGHT, WIDTH, 3)
    palette = Image.fromarray(grey % 4).convert("P")
    file = io.BytesIO()
    palette.save(file, "PNG", transparency=1)
    metres = partial(truth.read_depth, scale=1000.0)
    grey_reads = (images.read_gray, masks.read_mask, images.read_labels, images.read_image)
    coded = (images.read_image, images.image_size)
    flows = (images.read_rgb16, truth.read_flow, formats.read_vkitti_flow)
    jpeg = mutation.sized(200)
    return {
        "png, 8-bit grey": Specimen("a.png", encoded(grey, "PNG"), mutation.png, grey_reads),
        "png, 8-bit RGB": Specimen(
            "a.png",
            encoded(rgb, "PNG"),
            mutation.png,
            (images.read_image, images.read_ids, truth.read_normals),
        ),
        "png, palette": Specimen(
            "a.png", file.getvalue(), mutation.png, (images.read_image, images.read_labels)
        ),
        "png, 16-bit grey": Specimen(
            "a.png",
            encoded(noise(HEIGHT, WIDTH, dtype=np.uint16), "PNG"),
            mutation.png,
            (images.read_gray, images.read_depth_png, metres),
        ),
        "png, 16-bit RGB": Specimen("a.png", _png16(), mutation.png, flows),
        "jpeg": Specimen("a.jpg", encoded(rgb, "JPEG"), jpeg, coded),
        "jpeg, progressive": Specimen("a.jpg", encoded(rgb, "JPEG", progressive=True), jpeg, coded),
        "webp": Specimen("a.webp", encoded(rgb, "WEBP"), mutation.sized(30), coded),
        "ppm": Specimen("a.ppm", encoded(rgb, "PPM"), mutation.sized(12), coded),
        "ppm, plain": Specimen(
            "a.ppm",
            b"P3\n4 2\n255\n" + b" ".join(b"%d" % n for n in range(24)),
            mutation.text,
            coded,
        ),
    }


def _numbers(folder: Path) -> dict[str, Specimen]:
    flow = np.random.default_rng(0).random((HEIGHT, WIDTH, 2), np.float32) + 1
    depth, normals = flow[..., :1], np.concatenate([flow, flow[..., :1]], axis=-1)
    size = struct.pack("<4sii", b"PIEH", WIDTH, HEIGHT)
    metres = partial(truth.read_depth, scale=1000.0)
    file = io.BytesIO()
    np.save(file, flow)
    raw = partial(formats.read_raw_float, height=HEIGHT, width=WIDTH)
    whole = (formats.read_npy, truth.read_flow, metres, truth.read_normals)
    found = {
        "flo": Specimen(
            "a.flo",
            size + flow.tobytes(),
            mutation.sized(12),
            (formats.read_flo, truth.read_flow, formats.read_known_flo),
        ),
        "dpt": Specimen(
            "a.dpt", size + depth.tobytes(), mutation.sized(12), (formats.read_dpt, metres)
        ),
        "pfm": Specimen(
            "a.pfm",
            f"PF\n{WIDTH} {HEIGHT}\n-1.0\n".encode() + normals.tobytes(),
            mutation.sized(14),
            (formats.read_pfm, truth.read_flow, metres),
        ),
        "npy": Specimen("a.npy", file.getvalue(), mutation.sized(128), whole),
        "raw": Specimen("a.JPG", depth.tobytes(), mutation.flipped, (raw,)),
    }
    numbers = np.arange(1, 5, dtype=np.float64)
    matrix = _matrix("trainNdxs", numbers) + _matrix("testNdxs", numbers)
    packed = zlib.compress(_matrix("trainNdxs", numbers))
    packed = struct.pack("<II", 15, len(packed)) + packed + _matrix("testNdxs", numbers)
    start = b"MATLAB 5.0".ljust(124) + b"\x00\x01IM"
    found["mat"] = Specimen("a.mat", start + matrix, mutation.mat5, (mat5.read_mat5,))
    found["mat, packed"] = Specimen("a.mat", start + packed, mutation.mat5, (mat5.read_mat5,))
    import h5py

    with h5py.File(folder / "a.h5", "w") as made:
        made.create_dataset("flow", data=flow, compression="gzip", chunks=(3, 4, 2))
        made.create_dataset("plain", data=flow)
        made["link"] = h5py.ExternalLink("b.h5", "/flow")
    keys = [partial(hdf5.read_hdf5, key=key) for key in ("flow", "plain", "link")]
    shape = partial(hdf5.shape_hdf5, key="flow")
    named = (folder / "a.h5").read_bytes()
    found["hdf5"] = Specimen("a.flo5", named, mutation.flipped, (*keys, shape, truth.read_flow))
    return found


def _matrix(name: str, values: np.ndarray) -> bytes:
    def element(kind: int, content: bytes) -> bytes:
        return struct.pack("<II", kind, len(content)) + content.ljust(
            -(-len(content) // 8) * 8, b"\0"
        )

    flags, sizes = struct.pack("<II", 6, 0), struct.pack("<ii", len(values), 1)
    parts = element(6, flags) + element(5, sizes) + element(1, name.encode())
    return element(14, parts + element(9, values.tobytes()))


def _shards(folder: Path) -> tuple[Specimen, Specimen]:
    """Members of a tar damaged under a right checksum, and the index."""
    lines = [
        {"image": "a.png", "depth": "d.png", "labels": "l.png", "key": f"k{n}"} for n in range(2)
    ]
    root = folder / "folder"
    root.mkdir()
    (root / "a.png").write_bytes(encoded(noise(HEIGHT, WIDTH, 3), "PNG"))
    (root / "d.png").write_bytes(encoded(noise(HEIGHT, WIDTH, dtype=np.uint16) | 1, "PNG"))
    (root / "l.png").write_bytes(encoded(noise(HEIGHT, WIDTH) % 3, "PNG"))
    (root / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    source = data.open("folder", str(root), list="list.jsonl")
    write_shards(source, folder / "shards", per_shard=2)
    tar = (folder / "shards/shard-000000.tar").read_bytes()
    index = (folder / "shards/index.json").read_bytes()

    def members(content: bytes, draw: random.Random) -> bytes:
        """The index of a tar that was changed: it ends with that tar, for `read` to put apart."""
        about = json.loads(index)
        row = draw.choice(about["tars"][0]["members"])
        at = draw.randrange(len(row))
        offset, size, _ = row[at]
        kind = about["tars"][0]["suffixes"][at]
        change = {"png": mutation.png, "npy": mutation.sized(128), "json": mutation.json_text}
        new = change[kind.rpartition(".")[2]](content[offset : offset + size], draw)
        changed = content + new
        row[at] = [len(content), len(new), zlib.crc32(new)]
        about["tars"][0]["bytes"] = len(changed)
        return json.dumps(about).encode() + b"\n" + changed

    def read(path: Path) -> None:
        about, _, changed = path.read_bytes().partition(b"\n")
        (path.parent / "index.json").write_bytes(about)
        path.write_bytes(changed)
        opened("shards")(path)

    apart = ("index.json", index), ("shard-000000.tar", tar)
    whole = index + b"\n" + tar
    inside = Specimen("shard-000000.tar", whole, lambda _, draw: members(tar, draw), (read,))
    listed = Specimen("index.json", index, mutation.json_text, (opened("shards"),), (apart[1],))
    return inside, listed
