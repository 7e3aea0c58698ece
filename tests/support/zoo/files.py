"""Writers of files in the bytes of their formats, apart from those that stepsight reads with."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np


def place(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(path: Path, values: np.ndarray, palette: np.ndarray | None = None, bits: int = 0) -> Path:
    """PNG (W3C, 3rd edition) of "h w", "h w 3" or "h w 4": 8 or 16 bits by the type of the values,
    indices of a palette uint8 "n 3", or one bit of a bool."""
    colour = (
        3 if palette is not None else {1: 0, 3: 2, 4: 6}[1 if values.ndim == 2 else values.shape[2]]
    )
    height, width = values.shape[:2]
    bits = bits or (1 if values.dtype == bool else 8 * values.itemsize)
    rows = np.packbits(values, axis=1) if bits == 1 else values.astype(f">u{bits // 8}")
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = [_chunk(b"IHDR", header)]
    if palette is not None:
        parts.append(_chunk(b"PLTE", palette.astype(np.uint8).tobytes()))
    parts += [_chunk(b"IDAT", zlib.compress(data)), _chunk(b"IEND", b"")]
    place(path).write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def npy(path: Path, values: np.ndarray) -> Path:
    """NumPy's own file, version 1.0 of NEP 1."""
    place(path).write_bytes(npy_bytes(values))
    return path


def npy_bytes(values: np.ndarray) -> bytes:
    values = np.ascontiguousarray(values)
    about = f"{{'descr': '{values.dtype.str}', 'fortran_order': False, 'shape': {values.shape}, }}"
    header = about.encode().ljust(64 * -(-(len(about) + 11) // 64) - 11) + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + values.tobytes()


def pfm(path: Path, values: np.ndarray) -> Path:
    """Portable float map, little-endian, rows from the bottom up."""
    height, width = values.shape[:2]
    start = f"{'Pf' if values.ndim == 2 else 'PF'}\n{width} {height}\n-1.0\n".encode()
    place(path).write_bytes(start + np.ascontiguousarray(values[::-1], "<f4").tobytes())
    return path


def pieh(path: Path, values: np.ndarray) -> Path:
    """Middlebury's .flo of "h w 2", and Sintel's .dpt of "h w"."""
    start = struct.pack("<fii", 202021.25, values.shape[1], values.shape[0])
    place(path).write_bytes(start + np.ascontiguousarray(values, "<f4").tobytes())
    return path


def pgm(path: Path, values: np.ndarray) -> Path:
    """Netpbm's grey map: two bytes a pixel, the high one first."""
    start = f"P5\n{values.shape[1]} {values.shape[0]}\n65535\n".encode()
    place(path).write_bytes(start + values.astype(">u2").tobytes())
    return path


def tiff(path: Path, values: np.ndarray) -> Path:
    """TIFF 6.0: one strip, little-endian, whole numbers or floats "h w"."""
    height, width = values.shape
    data = np.ascontiguousarray(values).tobytes()
    kind = 3 if values.dtype.kind == "f" else 1
    tags = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, 8 * values.itemsize),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (277, 3, 1),
        (278, 4, height),
        (279, 4, len(data)),
        (339, 3, kind),
    ]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    data += b"\0" * (len(data) % 2)
    place(path).write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory)
    return path


def exr(path: Path, channels: dict[str, np.ndarray]) -> Path:
    """OpenEXR 2, one part of scan lines without compression, of float16 or float32 channels."""
    names = sorted(channels)
    height, width = channels[names[0]].shape
    window = struct.pack("<iiii", 0, 0, width - 1, height - 1)

    def attribute(name: str, kind: str, value: bytes) -> bytes:
        return f"{name}\0{kind}\0".encode() + struct.pack("<i", len(value)) + value

    def channel(name: str) -> bytes:
        kind = 1 if channels[name].dtype == np.float16 else 2
        return name.encode() + b"\0" + struct.pack("<iBBBBii", kind, 0, 0, 0, 0, 1, 1)

    header = b"".join(
        [
            attribute("channels", "chlist", b"".join(map(channel, names)) + b"\0"),
            attribute("compression", "compression", b"\0"),
            attribute("dataWindow", "box2i", window),
            attribute("displayWindow", "box2i", window),
            attribute("lineOrder", "lineOrder", b"\0"),
            attribute("pixelAspectRatio", "float", struct.pack("<f", 1)),
            attribute("screenWindowCenter", "v2f", struct.pack("<ff", 0, 0)),
            attribute("screenWindowWidth", "float", struct.pack("<f", 1)),
        ]
    )
    start = b"v/1\x01\x02\0\0\0" + header + b"\0"
    lines, places, at = [], [], len(start) + 8 * height
    for row in range(height):
        pixels = b"".join(np.ascontiguousarray(channels[name][row]).tobytes() for name in names)
        places.append(at)
        lines.append(struct.pack("<ii", row, len(pixels)) + pixels)
        at += len(lines[-1])
    place(path).write_bytes(start + struct.pack(f"<{height}Q", *places) + b"".join(lines))
    return path


def kitti_flow(path: Path, flow: np.ndarray, valid: np.ndarray) -> Path:
    """KITTI's 16-bit flow (development kit): 64 steps a pixel from 32768, and where it is valid."""
    stored = np.concatenate([flow * 64 + 32768, np.ones((*valid.shape, 1))], axis=-1)
    return png(path, np.where(valid[..., None], stored.round(), 0).astype(np.uint16))
