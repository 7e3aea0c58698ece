"""Random numbers by address: equal to numpy's generator, on every device and in any batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from dispatch import DEVICE, accelerated, counting, host_of

from stepsight.execution import noise

STREAM = ("sample", 3)
ROWS = torch.tensor([[5, -3, 7], [1 << 62, 1, 0], [0, 0, 0], [-(1 << 63), -1, (1 << 63) - 1]])


@pytest.mark.parametrize("count", [0, 1, 4, 5, 64, 1001])
def test_the_rounds_are_those_of_numpy_to_the_last_bit(count):
    """`raw` asks numpy on a CPU; `philox` is what every other device runs."""
    key = noise._key(STREAM)
    expected = [
        np.random.Philox(
            key=np.array(key, np.uint64), counter=np.array([0, *row], np.int64).view(np.uint64)
        ).random_raw(count)
        for row in ROWS.numpy()
    ]
    expected = torch.from_numpy(np.array(expected, np.uint64).view(np.int64))
    assert torch.equal(noise.philox(key, ROWS, count), expected)
    assert torch.equal(noise.raw(STREAM, ROWS, count), expected)


def test_another_device_draws_the_same_in_float32_and_copies_nothing():
    with accelerated():
        there = ROWS.to(DEVICE)
        with counting() as found:
            drawn = noise.normal(STREAM, there, (3, 5, 7))
    assert not found.synchronisations and not found.copies, found
    assert (host_of(drawn) - noise.normal(STREAM, ROWS, (3, 5, 7))).abs().max() < 2e-6


@pytest.mark.parametrize("words", [1, 2, 3])
def test_a_row_is_a_function_of_its_stream_and_address(words):
    rows = ROWS[:3, :words]
    together = noise.normal(STREAM, rows, (2, 6, 10))
    for number, row in enumerate(rows):
        assert torch.equal(noise.normal(STREAM, row[None], (2, 6, 10))[0], together[number])
    others = noise.normal(("sample", 4), rows, (2, 6, 10))
    every = [*together, *others]
    assert len({row.sum().item() for row in every}) == 6


def test_longer_rows_begin_as_shorter_ones_do():
    long, short = (noise.normal(STREAM, ROWS, (c, 5, 3)) for c in (7, 2))
    assert torch.equal(long[:, :2], short)


def test_they_are_standard_normals():
    drawn = noise.normal(STREAM, torch.arange(64)[:, None], (16384,)).double().flatten()
    count = len(drawn)
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3), (6, 15)):
        spread = math.sqrt(math.prod(range(1, 2 * power, 2)) / count)  # of the mean of x^power
        assert abs(drawn.pow(power).mean() - moment) < 5 * spread
    for z in (1.0, 2.0, 3.0, 4.0):  # two-sided tails
        share = math.erfc(z / math.sqrt(2))
        assert abs((drawn.abs() > z).double().mean() - share) < 5 * math.sqrt(share / count)
    pairs = drawn.view(-1, 2)  # of one word
    assert abs((pairs[:, 0] * pairs[:, 1]).mean()) < 5 / math.sqrt(count / 2)
    assert drawn.abs().max() < 6.77 and drawn.dtype == torch.float64


def test_every_bit_of_the_bytes_counts_in_a_digest():
    data = torch.arange(200, dtype=torch.uint8).repeat(2, 1)[:, :189]  # no multiple of 8
    data[1, 100] ^= 1
    several = torch.cat([data, data[:1, :]])
    first, other, again = noise.digest(several).tolist()
    assert first == again != other
    flips = []
    for bit in range(64):
        changed = data[:1].clone()
        changed[0, bit // 8] ^= 1 << bit % 8
        flips.append(bin((noise.digest(changed).item() ^ first) & (1 << 64) - 1).count("1"))
    assert 16 < min(flips) and max(flips) < 48  # about half of the bits of the answer change
    blanks = [torch.zeros(1, count, dtype=torch.uint8) for count in (8, 9, 16)]
    assert len({noise.digest(blank).item() for blank in blanks}) == 3
