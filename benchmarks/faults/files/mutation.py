"""Damage to files that knows what they are made of: the raw data are changed and the checksums and
sizes around them made right again, so that what lies behind the first check is reached too."""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

Mutation = Callable[[bytes, random.Random], bytes]
NUMBERS = (0, 1, 2, 127, 255, 256, 65535, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
WORDS = (  # what a text is replaced by
    "",
    ".",
    "..",
    "../../etc/passwd",
    "/dev/zero",
    "a\0b",
    "\ud800",
    "\x1b[2J",
    "x" * 300,
    "1e999",
    "nan",
    "-1",
    "=cmd|'/C calc'!A0",
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1 << 70,
    1.5,
    float("nan"),
    float("inf"),
    [],
    {},
    [[]],
)


def flipped(data: bytes, draw: random.Random) -> bytes:
    """Bits turned, bytes of all kinds put in place, stretches cut out, doubled or moved."""
    changed = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        if not changed:
            return draw.randbytes(draw.randrange(40))
        at, length = draw.randrange(len(changed)), draw.randint(1, 16)
        match draw.randrange(7):
            case 0 | 1:
                changed[at] ^= 1 << draw.randrange(8)
            case 2:
                width, order = draw.choice((1, 2, 4, 8)), draw.choice("<>")
                number = draw.choice(NUMBERS) & ((1 << 8 * width) - 1)
                kind = {1: "B", 2: "H", 4: "I", 8: "Q"}[width]
                changed[at : at + width] = struct.pack(order + kind, number)
            case 3:
                del changed[at : at + length]
            case 4:
                changed[at:at] = changed[at : at + length] * draw.choice((1, 1, 1, 300))
            case 5:
                changed[at:at] = draw.randbytes(length)
            case 6:
                del changed[at:]
    return bytes(changed)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += 12 + length


def png(data: bytes, draw: random.Random) -> bytes:
    """Chunks changed, dropped, doubled or added, the pixels before they are compressed; checksums
    right."""
    if draw.random() < 0.2:
        return flipped(data, draw)
    chunks = list(png_chunks(data))
    at = draw.randrange(len(chunks))
    kind, content = chunks[at]
    match draw.randrange(7):
        case 0:
            chunks[at] = kind, flipped(content, draw)
        case 1:
            chunks.pop(at)
        case 2:
            chunks.insert(at, chunks[at])
        case 3:
            names = (
                b"zTXt",
                b"iCCP",
                b"tRNS",
                b"PLTE",
                b"acTL",
                b"fcTL",
                b"fdAT",
                b"eXIf",
                b"iTXt",
            )
            packed = b"name\0\0" + zlib.compress(bytes(draw.choice((10, 1 << 22))))
            added = draw.choice((packed, draw.randbytes(draw.randrange(30))))
            chunks.insert(draw.randrange(len(chunks)), (draw.choice(names), added))
        case 4:
            fields = list(struct.unpack(">IIBBBBB", chunks[0][1]))
            which = draw.randrange(7)
            limit = (1 << 32) if which < 2 else 256
            fields[which] = draw.choice((*NUMBERS, *range(17))) % limit
            chunks[0] = b"IHDR", struct.pack(">IIBBBBB", *fields)
        case _:
            packed = b"".join(content for kind, content in chunks if kind == b"IDAT")
            raw = zlib.compress(flipped(zlib.decompress(packed), draw))
            rest = [chunk for chunk in chunks if chunk[0] != b"IDAT"]
            chunks = [rest[0], (b"IDAT", raw), *rest[1:]]
    return data[:8] + b"".join(png_chunk(*chunk) for chunk in chunks)


def text(data: bytes, draw: random.Random) -> bytes:
    """Words and lines of a text changed."""
    if draw.random() < 0.3:
        return flipped(data, draw)
    lines = data.decode("utf-8", "replace").splitlines()
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(lines))
        words = lines[at].replace(",", " , ").split(" ")
        words[draw.randrange(len(words))] = draw.choice((*WORDS, "y" * 140_000, '"'))
        match draw.randrange(4):
            case 0:
                lines.insert(at, lines[at])
            case 1:
                lines[at] = lines[at].replace(",", "\t", 1)
            case _:
                lines[at] = "".join(words) if "," in lines[at] else " ".join(words)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def json_text(data: bytes, draw: random.Random) -> bytes:
    """A value of a JSON text, or a few, of another kind; at times nested deeply, or no JSON."""
    if draw.random() < 0.15:
        return flipped(data, draw)
    if draw.random() < 0.02:
        return b"[" * 50_000 + b"]" * 50_000
    value = json.loads(data)
    for _ in range(draw.randint(1, 3)):
        value = _changed(value, draw)
    return json.dumps(value).encode()


def json_lines(data: bytes, draw: random.Random) -> bytes:
    """The same for one of the lines of a list."""
    lines = data.splitlines()
    at = draw.randrange(len(lines))
    lines[at] = json_text(lines[at], draw)
    return b"\n".join(lines)


def _changed(value: Any, draw: random.Random) -> Any:
    inner: list[Any] = list(value) if isinstance(value, dict) else []
    inner = list(range(len(value))) if isinstance(value, list) else inner
    if inner and draw.random() < 0.9:
        key = draw.choice(inner)
        copy: Any = value.copy()
        match draw.randrange(12):
            case 0:
                del copy[key]
            case 1 if isinstance(value, dict):
                copy[draw.choice(WORDS)] = copy.pop(key)
            case 1:
                copy.append(copy[key])
            case _:
                copy[key] = _changed(value[key], draw)
        return copy
    if isinstance(value, str) and draw.random() < 0.3:
        return flipped(value.encode("utf-8", "replace"), draw).decode("utf-8", "replace")
    if isinstance(value, int) and draw.random() < 0.5:
        return draw.choice((*NUMBERS, value + 1, -value, 255, 1 << 40))
    deep: Any = []
    for _ in range(300):
        deep = [deep]
    return draw.choice((*VALUES, *WORDS, deep))


def sized(header: int) -> Mutation:
    """Of files with a header of about so many bytes that says how much follows: the header alone,
    or what follows it alone, or all of the file."""

    def mutate(data: bytes, draw: random.Random) -> bytes:
        if draw.random() < 0.4:
            return flipped(data[:header], draw) + data[header:]
        if draw.random() < 0.5:
            return data[:header] + flipped(data[header:], draw)
        return flipped(data, draw)

    return mutate


def mat5(data: bytes, draw: random.Random) -> bytes:
    """What a compressed element holds, compressed again; or the elements themselves."""
    if draw.random() < 0.3:
        return flipped(data, draw)
    kind, size = struct.unpack_from("<II", data, 128)
    if kind != 15:
        return data[:128] + flipped(data[128:], draw)
    inner = flipped(zlib.decompress(data[136 : 136 + size]), draw)
    packed = zlib.compress(inner)
    return data[:128] + struct.pack("<II", 15, len(packed)) + packed + data[136 + size :]
