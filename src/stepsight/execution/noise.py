"""Random numbers by address: a counter-based generator whose answer to (stream, row, place) is the
same on every device, in every order, in any batch.

Philox4x64-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): ten rounds that
scramble a counter of four 64-bit words under a key of two. The key names the stream; of the counter
the first word counts along a row and the others are the row's address. On a CPU numpy's generator
answers; elsewhere the same rounds run as integer operations on the device, so that no number is
ever copied to it. Integers agree to the last bit. Normals are made of them in float64 and rounded
on a CPU, and in float32 elsewhere, as not every device has more: they agree within 2e-6.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Stream = tuple[int | str, ...]
Drawn = Callable[[Sequence[int]], Tensor]  # "b *shape" by the shape of a row

ROUNDS = 10
MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)  # what the key grows by in each round
LOW = 0xFFFFFFFF


def normal(stream: Stream, rows: Tensor, shape: Sequence[int]) -> Tensor:
    """Standard normals float32 "b *shape" on the device of `rows`, int64 "b w": the addresses, of
    at most three words, of rows of the stream.

    By Box and Muller (1958): a word gives the radius and the angle of two of them, so that longer
    rows begin as shorter ones do. No value lies beyond 6.77.
    """
    count = math.prod(shape)
    words = raw(stream, rows, -(-count // 2))
    low, high = words.view(torch.int32).unflatten(1, (-1, 2)).unbind(2)
    if rows.device.type == "cpu":
        radius = high.double().add_(2**31 + 0.5).mul_(2.0**-32).log_().mul_(-2).sqrt_()
        angle = low.double().mul_(2 * math.pi * 2.0**-32)
    else:
        radius, angle = _log_uniform(high).mul_(-2).sqrt_(), low.float() * (math.pi * 2.0**-31)
    pairs = torch.stack([(radius * angle.cos()).float(), (radius * angle.sin()).float()], dim=2)
    return pairs.flatten(1)[:, :count].unflatten(1, tuple(shape))


def _log_uniform(word: Tensor) -> Tensor:
    """log((n + 1/2) / 2^32), float32, of n = word + 2^31 for int32 words: above one half by what is
    missing from 1."""
    n = word.long() + 2**31
    low, missing = ((part.float() + 0.5) * 2.0**-32 for part in (n, 2**32 - 1 - n))
    return torch.where(word < 0, low.log(), torch.log1p(-missing))


def raw(stream: Stream, rows: Tensor, count: int) -> Tensor:
    """The first `count` words of each row, "b count": 64 bits, as int64."""
    key = _key(stream)
    if rows.device.type == "cpu":
        address = np.zeros((len(rows), 4), np.uint64)
        address[:, 1 : 1 + rows.shape[1]] = rows.numpy().view(np.uint64)
        keys = np.array(key, np.uint64)
        words = [np.random.Philox(key=keys, counter=row).random_raw(count) for row in address]
        return torch.from_numpy(np.array(words, np.uint64).reshape(len(rows), count).view(np.int64))
    return philox(key, rows, count)


def philox(key: Sequence[int], rows: Tensor, count: int) -> Tensor:
    """What `raw` answers, by operations on the device of `rows`."""
    blocks = torch.arange(1, -(-count // 4) + 1, device=rows.device)
    words = [blocks.expand(len(rows), -1)]
    words += [word[:, None].expand_as(words[0]) for word in F.pad(rows, (0, 3)).unbind(1)[:3]]
    a, b, c, d = words
    for step in range(ROUNDS):
        k0, k1 = (_signed(part + step * weyl) for part, weyl in zip(key, WEYL))
        (high_a, low_a), (high_c, low_c) = (_product(x, m) for x, m in zip((a, c), MULTIPLIERS))
        a, b, c, d = high_c ^ b ^ k0, low_c, high_a ^ d ^ k1, low_a
    return torch.stack([a, b, c, d], dim=-1).flatten(1)[:, :count]


def mixed(x: Tensor) -> Tensor:
    """64 bits scrambled one to one, int64: the finaliser of SplitMix64 (Steele et al. 2014)."""
    x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shifted(x, 31)


def digest(data: Tensor) -> Tensor:
    """A number int64 "b" that follows from bytes uint8 "b n" alone, on their device: the sum of its
    words, each scrambled with its place."""
    words = F.pad(data, (0, -data.shape[1] % 8)).view(torch.int64)
    places = torch.arange(words.shape[1], device=data.device) * _signed(WEYL[0])
    return mixed(mixed(words + places).sum(dim=1) + data.shape[1])


def _key(stream: Stream) -> tuple[int, int]:
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in stream)
    name = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return int.from_bytes(name[:8], "little"), int.from_bytes(name[8:], "little")


def _product(x: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """High and low words of the 128-bit product of unsigned words."""
    high, low = factor >> 32, factor & LOW
    x_high, x_low = _shifted(x, 32), x & LOW
    first = x_high * low + _shifted(x_low * low, 32)
    second = x_low * high + (first & LOW)
    return x_high * high + _shifted(first, 32) + _shifted(second, 32), x * _signed(factor)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """To the right, zeros coming in: torch's shift brings in the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(word: int) -> int:
    """The low 64 bits of a number, as torch's int64 has them."""
    word &= (1 << 64) - 1
    return word - (1 << 64) if word >> 63 else word
